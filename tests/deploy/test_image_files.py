"""Dockerfile, .dockerignore and make-token.sh, as far as they can be checked without an engine."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

from tests.deploy.deployment import DEPLOY, PORTS, PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")


def test_needs_nothing_but_the_base_image() -> None:
    """A syntax line would pull a front end; a heredoc would need one."""
    assert not re.search(r"(?im)^#\s*syntax\s*=", DOCKERFILE)
    assert "<<" not in DOCKERFILE
    assert set(re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)) == {"${BASE}"}
    assert "ARG BASE=python:3.11-slim" in DOCKERFILE


def test_dependencies_are_pinned_by_hash() -> None:
    assert "--require-hashes -r requirements-run.lock" in DOCKERFILE
    assert "--no-deps" in DOCKERFILE


def test_setuptools_can_be_cut_out_of_the_lock(tmp_path: Path) -> None:
    """The image's build takes setuptools, with its hashes, from the lock of the development environment."""
    (program,) = re.findall(r"awk '([^']+)' requirements.lock", DOCKERFILE)
    command = ["awk", program, str(PROJECT / "requirements.lock")]
    cut = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(
        r"setuptools==[0-9.]+ \\\n( +--hash=sha256:[0-9a-f]{64} \\\n)* +--hash=sha256:[0-9a-f]{64}\n", cut
    )


def test_result_runs_as_nobody_special_and_says_how_it_is() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"(?m)^USER 10001:10001$", final)
    assert 'ENTRYPOINT ["ringmesh"]' in final
    assert re.search(r'(?m)^CMD \["serve", "(guest|scmi|nic|its)"\]$', final)
    assert "HEALTHCHECK" in final
    assert "/healthz" in final
    assert "org.opencontainers.image.title" in final
    exposed = re.search(r"(?m)^EXPOSE (.*)$", final)
    assert exposed is not None
    assert exposed[1] == "7101 7102 7103 9100-9104"
    assert {port for pair in PORTS.values() for port in pair if port} <= {7101, 7102, 7103, *range(9100, 9105)}


def test_context_holds_what_the_image_runs_and_no_secret() -> None:
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in >= {
        "services",
        "common",
        "deploy/boards",
        "deploy/captures",
        "pyproject.toml",
        "requirements-run.lock",
    }
    assert "deploy" not in let_in
    assert not [name for name in let_in if "secret" in name]
    assert [name for name in let_in if not (PROJECT / name).exists()] == []


class TestMakeToken:
    def run(self, tmp_path: Path, *args: str) -> str:
        script = tmp_path / "deploy" / "make-token.sh"
        if not script.exists():
            script.parent.mkdir()
            script.write_bytes((DEPLOY / "make-token.sh").read_bytes())
        done = subprocess.run(["sh", str(script), *args], capture_output=True, text=True, check=True, cwd="/")
        assert done.stderr == ""
        return (tmp_path / "deploy" / "secrets" / "token").read_text()

    def test_writes_a_token_that_the_containers_can_read_and_other_users_cannot(self, tmp_path: Path) -> None:
        token = self.run(tmp_path)
        assert re.fullmatch(r"[0-9a-f]{64}", token)
        secrets = tmp_path / "deploy" / "secrets"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
        assert stat.S_IMODE((secrets / "token").stat().st_mode) & 0o004
        assert [path.name for path in secrets.iterdir()] == ["token"]

    def test_keeps_a_token_unless_forced(self, tmp_path: Path) -> None:
        first = self.run(tmp_path)
        assert self.run(tmp_path) == first
        assert self.run(tmp_path, "--force") != first

    def test_token_is_not_committed(self) -> None:
        ignored = (DEPLOY / "secrets" / ".gitignore").read_text().split()
        assert ignored == ["*", "!.gitignore", "!token.example"]
