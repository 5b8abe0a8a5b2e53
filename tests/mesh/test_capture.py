"""``ringmesh capture record`` and ``show`` against the running mesh."""

from __future__ import annotations

import collections
import os
import subprocess
from pathlib import Path

import msgpack
import pytest

from tests.mesh.harness import GUARD, RINGMESH, ROOT, TOKEN, Run

pytestmark = pytest.mark.mesh


def ringmesh(*args: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"RINGMESH_TOKEN": token}
    return subprocess.run(
        [*RINGMESH, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=GUARD
    )


@pytest.fixture(scope="module")
def capture(live: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of the NIC's links."""
    path = tmp_path_factory.mktemp("capture") / "nic.cap"
    done = ringmesh("capture", "record", live.services()["nic"][1], str(path), "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path.stat().st_size} bytes in {path}\n"
    return path


def test_another_decoder_reads_it_as_a_stream(capture: Path) -> None:
    tags: collections.Counter[tuple[str, str, str]] = collections.Counter()
    last = 0.0
    with capture.open("rb") as file:
        for time, link, direction, frame in msgpack.Unpacker(file):
            tag = msgpack.unpackb(frame)[0]
            tags[link, direction, tag] += 1
            assert time >= last
            last = time
    assert tags["guest/guest0", "in", "avail"] > 10
    assert tags["guest/guest0", "out", "used"] > 10
    assert tags["guest/guest0", "in", "irq"] > 10
    assert tags["its", "out", "msi"] > 10
    assert not any(tag == "hello" for _, _, tag in tags), "a hello carries the token"


def test_show_prints_a_line_a_frame(capture: Path) -> None:
    done = ringmesh("capture", "show", str(capture))
    assert done.returncode == 0, done.stderr
    with capture.open("rb") as file:
        assert len(done.stdout.splitlines()) == sum(1 for _ in msgpack.Unpacker(file))
    for arrow, tag in (("<-", "avail"), ("->", "used"), ("->", "msi")):
        assert f"{arrow} {tag} " in done.stdout


def test_show_ends_quietly_when_its_reader_leaves(tmp_path: Path) -> None:
    path = tmp_path / "long.cap"
    path.write_bytes(msgpack.packb([1.0, "its", "out", msgpack.packb(["msi", 1])]) * 20_000)  # more than a pipe holds
    with subprocess.Popen(
        [*RINGMESH, "capture", "show", str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as popen:
        assert popen.stdout is not None
        assert popen.stderr is not None
        assert "msi" in popen.stdout.readline()
        popen.stdout.close()
        assert popen.stderr.read() == ""
        assert popen.wait(GUARD) == 0


def test_show_filters(capture: Path) -> None:
    args = ("--link", "guest", "--direction", "out", "--tag", "used", "--queue", "1")
    lines = ringmesh("capture", "show", str(capture), *args).stdout.splitlines()
    assert lines
    assert all(" -> used " in line and "guest/guest0" in line and "queue=1" in line for line in lines)


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["show", "/nowhere.cap"], 2, "PATH"),
        (["show", str(Path(__file__)), "--direction", "up"], 2, "--direction"),
        (["show", str(Path(__file__))], 1, "record"),
        (["record", "http://127.0.0.1:1", "/dev/null"], 1, "127.0.0.1:1"),
        (["record", "foo", "/dev/null"], 2, "'foo' is not a URL"),
        (["record", "http://127.0.0.1:1", "/dev/null", "--seconds", "inf"], 2, "--seconds"),
    ],
)
def test_errors_name_what_was_wrong(args: list[str], code: int, named: str) -> None:
    done = ringmesh("capture", *args)
    assert done.returncode == code
    assert named.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_capture_wants_the_token(live: Run, tmp_path: Path) -> None:
    done = ringmesh("capture", "record", live.services()["its"][1], str(tmp_path / "x.cap"), token="wrong")
    assert done.returncode == 1
    assert "Bearer token" in done.stderr
    assert not (tmp_path / "x.cap").exists()
