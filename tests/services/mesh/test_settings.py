"""What each service is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from services.mesh.settings import DEVICES, ROLES, environments


def _environments(**changes: Any) -> dict[str, dict[str, str]]:
    given: dict[str, Any] = {
        "token": "t",
        "link_ports": {role: 7000 + i for i, role in enumerate(DEVICES)},
        "admin_ports": {role: 9000 + i for i, role in enumerate(ROLES)},
        "guests": 2,
        "board": None,
        "settings": {},
    }
    return environments(**given | changes)


def test_each_service_hears_where_its_peers_are() -> None:
    envs = _environments()
    assert set(envs) == set(ROLES)
    for role, env in envs.items():
        assert env["RINGMESH_TOKEN"] == "t"
        assert env["RINGMESH_ADMIN__PORT"] == str(9000 + ROLES.index(role))
    for role in ("scmi", "nic", "guest"):
        assert envs[role]["RINGMESH_ITS__PORT"] == envs["its"]["RINGMESH_LISTEN__PORT"]
    for role in ("scmi", "nic"):
        assert envs["guest"][f"RINGMESH_{role.upper()}__PORT"] == envs[role]["RINGMESH_LISTEN__PORT"]
    assert envs["guest"]["RINGMESH_GUESTS"] == "2"
    assert "RINGMESH_LISTEN__PORT" not in envs["guest"]


def test_a_setting_goes_where_it_is_known() -> None:
    name = "RINGMESH_WORKLOAD__NET_WINDOW"
    envs = _environments(settings={name: "3", "RINGMESH_LOG__LEVEL": "debug"})
    assert [role for role in ROLES if name in envs[role]] == ["guest"]
    assert {env["RINGMESH_LOG__LEVEL"] for env in envs.values()} == {"debug"}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"RINGMESH_NOPE": "1"}, "NOPE"),
        ({"RINGMESH_LOG__NOPE": "1"}, "LOG__NOPE"),
        ({"RINGMESH_LOG__LEVEL__DEEP": "1"}, "LOG__LEVEL__DEEP"),
        ({"RINGMESH_LOG__LEVEL": "loud"}, "log.level"),
        ({"RINGMESH_GUESTS": "3"}, "GUESTS"),
        ({"RINGMESH_LISTEN__PORT": "3"}, "LISTEN__PORT"),
        ({"RINGMESH_LOG": "x"}, "log"),
    ],
)
def test_a_bad_setting_is_named(setting: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _environments(settings=setting)
    assert caught.value.key == key


def test_the_board_is_read_before_anything_starts(tmp_path: Path) -> None:
    board = tmp_path / "b.toml"
    board.write_text("bad = 1\n")
    with pytest.raises(ConfigError, match=r"b\.toml.*bad"):
        _environments(board=board)
    shipped = Path(__file__).resolve().parents[3] / "deploy" / "boards" / "juno-r2.toml"
    assert _environments(board=shipped)["scmi"]["RINGMESH_BOARD"] == str(shipped)
