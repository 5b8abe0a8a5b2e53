"""What each service is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from services.mesh.settings import DEVICES, ROLES, environments, faults_on_purpose, inherit


def _environments(**changes: Any) -> dict[str, dict[str, str]]:
    given: dict[str, Any] = {
        "token": "t",
        "link_ports": {role: 7000 + i for i, role in enumerate(DEVICES)},
        "admin_ports": {role: 9000 + i for i, role in enumerate(ROLES)},
        "guests": 2,
        "board": None,
        "state": Path("/state"),
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
    ("settings", "has"),
    [
        ({}, None),
        ({"RINGMESH_NET_PAIRS": "4"}, None),
        ({"RINGMESH_NET_PAIRS": "9"}, "9"),
        ({"RINGMESH_NET_PAIRS": "9", "RINGMESH_QUEUE_PAIRS": "2"}, "2"),
    ],
)
def test_the_nic_has_the_queue_pairs_that_the_guest_wants(settings: dict[str, str], has: str | None) -> None:
    envs = _environments(settings=settings)
    assert envs["nic"].get("RINGMESH_QUEUE_PAIRS") == has
    assert envs["guest"].get("RINGMESH_NET_PAIRS") == settings.get("RINGMESH_NET_PAIRS")


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"RINGMESH_NET_PAIRS": "65"}, "net_pairs"),
        ({"RINGMESH_NET_PAIRS": "many"}, "net_pairs"),
        ({"RINGMESH_NOPE": "1"}, "NOPE"),
        ({"RINGMESH_LOG__NOPE": "1"}, "LOG__NOPE"),
        ({"RINGMESH_LOG__LEVEL__DEEP": "1"}, "LOG__LEVEL__DEEP"),
        ({"RINGMESH_LOG__LEVEL": "loud"}, "log.level"),
        ({"RINGMESH_GUESTS": "3"}, "GUESTS"),
        ({"RINGMESH_LISTEN__PORT": "3"}, "LISTEN__PORT"),
        ({"RINGMESH_LOG": "x"}, "log"),
        ({"RINGMESH_TOKEN_FILE": "/run/secret"}, "TOKEN_FILE"),
    ],
)
def test_a_bad_setting_is_named(setting: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _environments(settings=setting)
    assert caught.value.key == key


def test_an_inherited_variable_goes_where_it_is_known_and_gives_way_to_a_setting() -> None:
    inherited = {"RINGMESH_LOG__LEVEL": "info", "RINGMESH_WORKLOAD__NET_WINDOW": "3"}
    envs = _environments(inherited=inherited, settings={"RINGMESH_LOG__LEVEL": "error"})
    assert {env["RINGMESH_LOG__LEVEL"] for env in envs.values()} == {"error"}
    assert [role for role in ROLES if "RINGMESH_WORKLOAD__NET_WINDOW" in envs[role]] == ["guest"]


@pytest.mark.parametrize("name", ["RINGMESH_NOPE", "RINGMESH_NOPE__PORT", "RINGMESH_GUESTS", "RINGMESH_TOKEN_FILE"])
def test_a_bad_inherited_variable_is_named(name: str) -> None:
    inherited, addresses = inherit({name: "3"})
    assert not addresses
    with pytest.raises(ConfigError) as caught:
        _environments(inherited=inherited)
    assert (caught.value.source, caught.value.key) == ("environment", name)


def test_inherited_addresses_give_way_and_are_told() -> None:
    environ = {"RINGMESH_LISTEN__PORT": "1", "RINGMESH_ADMIN__HOST": "::", "RINGMESH_log__level": "info", "HOME": "/"}
    inherited, addresses = inherit(environ)
    assert addresses == ["RINGMESH_ADMIN__HOST", "RINGMESH_LISTEN__PORT"]
    assert inherited == {"RINGMESH_LOG__LEVEL": "info"}


def test_the_board_may_be_a_setting_and_the_option_goes_before_what_was_inherited(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[3] / "deploy" / "boards" / "juno-r2.toml"
    assert _environments(settings={"RINGMESH_BOARD": str(shipped)})["scmi"]["RINGMESH_BOARD"] == str(shipped)
    other = {"RINGMESH_BOARD": str(tmp_path / "none.toml")}
    assert _environments(board=shipped, inherited=other)["scmi"]["RINGMESH_BOARD"] == str(shipped)
    for given in ({"settings": other}, {"inherited": other}, {"settings": other, "board": shipped}):
        with pytest.raises(ConfigError):
            _environments(**given)


def test_the_board_is_read_before_anything_starts(tmp_path: Path) -> None:
    board = tmp_path / "b.toml"
    board.write_text("bad = 1\n")
    with pytest.raises(ConfigError, match=r"b\.toml.*bad"):
        _environments(board=board)
    shipped = Path(__file__).resolve().parents[3] / "deploy" / "boards" / "juno-r2.toml"
    assert _environments(board=shipped)["scmi"]["RINGMESH_BOARD"] == str(shipped)


@pytest.mark.parametrize(
    ("setting", "on_purpose"),
    [({}, False), ({"FAULTS__LATE": "0"}, False), ({"FAULTS__SEED": "3"}, False), ({"FAULTS__NEVER": "3"}, True)],
)
def test_whether_faults_were_asked_for(setting: dict[str, str], on_purpose: bool) -> None:
    env = {f"RINGMESH_{key}": value for key, value in setting.items()}
    assert faults_on_purpose(env | {"RINGMESH_TOKEN": "x"}) == on_purpose


@pytest.mark.parametrize("given", ["BACKEND__KIND", "WORKLOAD__NET"])
def test_the_load_expects_what_the_nic_is_plugged_into(given: str) -> None:
    made = _environments(settings={f"RINGMESH_{given}": "replay"})
    assert made["nic"]["RINGMESH_BACKEND__KIND"] == made["guest"]["RINGMESH_WORKLOAD__NET"] == "replay"


def test_two_choices_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError, match="expects 'echo'"):
        _environments(settings={"RINGMESH_BACKEND__KIND": "replay", "RINGMESH_WORKLOAD__NET": "echo"})


def test_a_switch_for_one_guest_is_refused() -> None:
    with pytest.raises(ConfigError, match="two guests or more"):
        _environments(settings={"RINGMESH_BACKEND__KIND": "switch"}, guests=1)
