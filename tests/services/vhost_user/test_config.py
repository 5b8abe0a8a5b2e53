"""Where to listen, as an operator says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from services.vhost_user.config import MAX_PATH, SocketPlan, VhostUserConfig, parse, plans


@pytest.mark.parametrize(
    ("text", "path", "agent"),
    [
        ("vhost-user:/run/vm0.sock", "/run/vm0.sock", "vm0"),
        ("/run/vm0.sock", "/run/vm0.sock", "vm0"),
        ("vhost-user:a", "a", "a"),
        ("vhost-user:/run/vm0.sock,agent=OSPM", "/run/vm0.sock", "OSPM"),
        ("/" + "p" * (MAX_PATH - 1), "/" + "p" * (MAX_PATH - 1), "p" * (MAX_PATH - 1)),
    ],
)
def test_good(text: str, path: str, agent: str) -> None:
    assert parse(text) == SocketPlan(Path(path), agent)


@pytest.mark.parametrize(
    "text",
    ["", "vhost-user:", "vhost-user:,agent=a", "/a,agent=", "/a,agent", "/a,", "/a,name=b", "/a,agent=b,agent=c",
     "/" + "p" * MAX_PATH],
)  # fmt: skip
def test_bad(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        parse(text)


def test_several() -> None:
    assert [plan.agent for plan in plans(("/a.sock", "/b.sock"))] == ["a", "b"]
    for texts in ((), ("/a", "/a,agent=b"), ("/x/a", "/y/a")):
        with pytest.raises(ConfigError):
            plans(texts)


def test_a_file_of_the_mesh_service_serves(tmp_path: Path) -> None:
    file = tmp_path / "scmi.toml"
    file.write_text('board = "x.toml"\ndevice_id = 5\nsockets = ["/a"]\n[its]\nport = 1\n')
    config = load(VhostUserConfig, file, environ={})
    assert (config.board, config.sockets) == ("x.toml", ("/a",))
