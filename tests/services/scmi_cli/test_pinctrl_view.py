"""``ringmesh scmi … pinctrl`` against a real platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.scmi_cli.views import view_of
from tests.services.scmi_cli.conftest import scmi
from tests.services.scmi_platform.protocols.test_pinctrl import BOARD

GROUP, FUNCTION = 0x1_0000, 0x2_0000


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


def test_names() -> None:
    assert view_of("pinctrl") is view_of("PINCTRL") is view_of("pin_control") is view_of("pin") is view_of("0x19")


def test_protocols(ask: Any) -> None:
    (line,) = (line for line in ask("protocols").splitlines() if line.startswith("0x19"))
    assert line.split(maxsplit=4) == ["0x19", "pin_control", "1.0", "49", "42 pins, 3 groups, 4 functions"]
    (one,) = (one for one in ask("protocols", "--json")["protocols"] if one["id"] == 0x19)
    assert one["attributes"] == {"pins": 42, "groups": 3, "functions": 4}


def test_describe(ask: Any) -> None:
    assert ask("describe", "pinctrl", "rx", "--json") == {
        "id": 1, "name": "rx", "function": 0, "configs": {"bias_pull_up": 1, "drive_strength": 4, "input_value": 1},
        "members": None, "gpio": None,
    }  # fmt: skip
    assert ask("describe", "pinctrl", "group:uart-flow", "--json") == {
        "id": GROUP + 1, "name": "group:uart-flow", "function": None, "configs": {}, "members": [1, 0, 2], "gpio": None,
    }  # fmt: skip
    lines = ask("describe", "pinctrl", str(FUNCTION + 2)).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["id", str(FUNCTION + 2)], ["name", "function:gpio-led"], ["function", "-"], ["configs", "-"],
        ["members", "led cts"], ["gpio", "yes"],
    ]  # fmt: skip
    assert ask("get", "pinctrl", "function:uart0", "members") == "group:uart group:uart-flow"
    assert ask("get", "pinctrl", "function:uart0", "gpio") == "no"
    assert ask("get", "pinctrl", "a-pin-with-a-long-name", "configs") == "-"


def test_the_list_has_all_kinds(ask: Any) -> None:
    lines = ask("describe", "pinctrl").splitlines()
    assert len(lines) == 1 + 49
    assert lines[1].split()[:2] == ["0", "tx"]
    assert lines[-1].split()[:2] == [str(FUNCTION + 3), "function:a-function-with-a-long-name"]


def test_set_function(ask: Any) -> None:
    assert ask("set", "pinctrl", "group:uart", "function", "gpio").endswith("group:uart: function gpio")
    assert ask("get", "pinctrl", "tx", "function", "--poll") == "gpio"
    assert ask("set", "pinctrl", "group:uart", "function", "0").endswith("function uart0")
    assert ask("set", "pinctrl", "led", "function", "none").endswith("function -")


def test_set_configs(ask: Any) -> None:
    said = ask("set", "pinctrl", "tx", "configs", "drive_strength=8", "slew_rate=0x2", "--json")
    assert said["configs"] == {"bias_pull_up": 1, "drive_strength": 8, "slew_rate": 2}
    assert ask("set", "pinctrl", "2", "configs", "vendor_192=9").endswith("configs bias_pull_up=0 vendor_192=9")


def test_one_agent_at_a_time(address: str, ask: Any) -> None:
    assert ask("set", "pinctrl", "cts", "requested", "on", "--guest", "RTOS").endswith("requested on")
    said = scmi("set", "pinctrl", "group:uart-flow", "requested", "on", address=address)
    assert (said.code, "PINCTRL_REQUEST: IN_USE (-11)" in said.err) == (1, True)
    assert ask("set", "pinctrl", "cts", "requested", "off", "--guest", "RTOS").endswith("requested off")
    assert ask("set", "pinctrl", "cts", "permission", "1", "deny", "--guest", "BOSS").endswith("agent 1 denied")
    said = scmi("get", "pinctrl", "cts", address=address)  # agent 1
    assert [line.split() for line in said.out.splitlines()][:2] == [["function", "DENIED"], ["configs", "DENIED"]]
    assert ask("set", "pinctrl", "cts", "permission", "1", "allow", "--guest", "BOSS", "--json") == {
        "id": 2, "name": "cts", "permission": {"agent": 1, "allowed": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("tx", "configs", "drive_strength=3"), 1, "INVALID_PARAMETERS"),
        (("tx", "function", "uart0"), 1, "NOT_SUPPORTED"),
        (("tx", "function", "spi"), 2, "there is uart0, gpio, gpio-led, a-function-with-a-long-name, none"),
        (("tx", "function", "65536"), 2, "no function '65536'"),
        (("tx", "configs", "speed=3"), 2, "TYPE=VALUE"),
        (("tx", "configs", "slew_rate"), 2, "TYPE=VALUE"),
        (("tx", "configs", "slew_rate=4294967296"), 2, "TYPE=VALUE"),
        (("function:gpio", "configs", "slew_rate=1"), 2, "neither a pin nor a group"),
        (("tx", "requested", "yes"), 2, "on or off"),
        (("tx", "permission", "1"), 2, "AGENT allow|deny"),
        (("tx", "permission", "4294967296", "deny"), 2, "AGENT allow|deny"),
        (("tx", "permission", "1", "deny"), 1, "DENIED"),
        (("uart", "function", "none"), 2, "'uart' is not the name of one"),
        (("42", "function", "none"), 1, "NOT_FOUND"),
        (("0x30000", "function", "none"), 2, "does not list pin_control 196608"),
    ],
)
def test_refused(address: str, args: tuple[str, ...], code: int, reason: str) -> None:
    said = scmi("set", "pinctrl", *args, address=address)
    assert (said.code, reason in said.err) == (code, True), said
