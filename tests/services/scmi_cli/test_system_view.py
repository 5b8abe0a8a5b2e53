"""``ringmesh scmi … system`` against a real platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services.scmi_cli.conftest import GUARD, ROOT, TOKEN, clean_env, scmi
from tests.services.scmi_platform.scmi_rig import HERE

BOARD = HERE / "protocols" / "board_power.toml"


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


@pytest.fixture
def guest() -> str:
    return "PSCI"


def test_what_there_is(ask: Any) -> None:
    rows = {one["name"]: one for one in ask("protocols", "--json")["protocols"]}
    assert rows["system_power"]["attributes"] == {"warm_reset": True, "suspend": False}
    (about,) = ask("describe", "system", "--json")["system_power"]
    assert (about["name"], about["optional"]) == ("system", {"warm_reset": True, "suspend": False})
    assert "warm_reset" in ask("describe", "system_power", "system")


def test_a_state_is_asked_for_and_read(ask: Any) -> None:
    assert ask("set", "system", "0", "state", "shutdown") == "system_power 0 system: state shutdown"
    assert ask("get", "system", "system", "state") == "shutdown"
    assert (
        ask("set", "system", "0", "state", "cold-reset", "forceful", "--poll")
        == "system_power 0 system: state cold_reset"
    )
    assert ask("set", "system", "0", "state", "0x80000005", "--json")["state"] == 0x8000_0005
    assert ask("get", "system", "0", "state") == "0x80000005"
    assert ask("set", "0x12", "0", "state", "power_up", "graceful") == "system_power 0 system: state power_up"


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("0", "state", "suspend"), 1, "SYSTEM_POWER_STATE_SET: NOT_SUPPORTED (-1)"),
        (("0", "state", "7"), 1, "SYSTEM_POWER_STATE_SET: INVALID_PARAMETERS (-2)"),
        (("0", "state", "off"), 2, "shutdown, cold_reset, warm_reset, power_up, suspend or a vendor's number"),
        (("0", "state", "shutdown", "softly"), 2, "'softly': graceful or forceful is wanted"),
        (("0", "state", "shutdown", "graceful", "forceful"), 2, "graceful or forceful is wanted"),
        (("1", "state", "shutdown"), 2, "the platform does not list system_power 1"),
    ],
)
def test_what_is_refused(address: str, words: tuple[str, ...], code: int, why: str) -> None:
    said = scmi("set", "system", *words, "--guest", "PSCI", address=address)
    assert (said.code, why in said.err) == (code, True), said


def test_who_may_not(address: str) -> None:
    said = scmi("set", "system", "0", "state", "shutdown", "--guest", "OSPM", address=address)
    assert (said.code, "NOT_SUPPORTED (-1)" in said.err) == (1, True), said
    said = scmi("get", "system", "0", "optional", "--json", "--guest", "OSPM", address=address)
    assert json.loads(said.out)["optional"] == {"warm_reset": False, "suspend": False}


def test_another_agent_watches(address: str) -> None:
    command = [
        sys.executable,
        "-m",
        "services.cli",
        "scmi",
        "watch",
        "system",
        "--guest",
        "OSPM",
        "--count",
        "2",
        "--json",
    ]
    env = clean_env() | {"RINGMESH_SCMI": address, "RINGMESH_TOKEN": TOKEN}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ringmesh scmi: watching") or "watching 1 notification" in line:
                break
        for words in (("shutdown",), ("warm_reset", "forceful")):
            assert scmi("set", "system", "0", "state", *words, "--guest", "PSCI", address=address).code == 0
        out, _ = process.communicate(timeout=GUARD)
    said = [json.loads(line) for line in out.splitlines()]
    assert [(one["state"], one["graceful"], one["timeout"], one["agent"]) for one in said] == [
        (0, True, 9000, 2),
        (2, False, 0, 2),
    ]
