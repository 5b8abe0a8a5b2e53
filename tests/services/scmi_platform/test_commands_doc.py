"""docs/scmi-commands.md is what the table of commands gives, and none of the specification's commands is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.scmi.status import VENDOR_PROTOCOLS
from services.scmi_platform.commands_doc import render
from services.scmi_platform.protocol import GENERIC, ProtocolServer
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import ProtocolTable, Registry

DOC = Path(__file__).resolve().parents[3] / "docs" / "scmi-commands.md"

#: Protocol: the highest version that Linux knows, message ids of commands and of notifications (DEN0056E §4).
FACTS: dict[int, tuple[int, range, range]] = {
    0x10: (0x20001, range(0x3, 0xC), range(1)),  # base: vendor … reset agent configuration; error event
    0x11: (0x30001, range(0x3, 0x9), range(2)),  # power domain: attributes … name; changed, change requested
    0x12: (0x20000, range(0x3, 0x6), range(1)),  # system power: state set, get, notify; state notifier
    0x13: (0x40000, range(0x3, 0xD), range(2)),  # performance: domain attributes … name; limits, level changed
    0x14: (0x30000, range(0x3, 0x10), range(2)),  # clock: attributes … permissions; rate changed, change requested
    0x15: (0x30001, range(0x3, 0xE), range(2)),  # sensor: description … axis name; trip point, update
    0x16: (0x30001, range(0x3, 0x7), range(1)),  # reset: attributes, reset, notify, name; reset issued
    0x17: (0x20000, range(0x3, 0xA), range(0)),  # voltage: attributes … name
    0x18: (0x20000, range(0x3, 0xD), range(2)),  # powercap: attributes … fast channel; cap, measurements changed
    0x19: (0x10000, range(0x3, 0xB), range(0)),  # pin control: attributes … set permissions
}


def test_the_file_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == render(), "python -m services.scmi_platform.commands_doc > docs/…"


def test_every_protocol_is_served() -> None:
    assert FACTS.keys() == {number for number in STANDARD.protocols if number < VENDOR_PROTOCOLS}


@pytest.mark.parametrize("protocol", FACTS)
def test_none_is_missing(protocol: int) -> None:
    version, commands, notifications = FACTS[protocol]
    table, server = STANDARD.protocols[protocol]
    assert table.versions[-1] == version
    assert sorted(table.commands) == list(commands)
    assert sorted(table.notifications or ()) == list(notifications)
    section = render().split(f"({protocol:#x})\n")[1].split("\n## ")[0]
    for row in table.commands.values():
        assert f"| {row.message:#x} | {row.name} |" in section
        assert callable(getattr(server, row.method))


def test_what_every_protocol_has() -> None:
    assert sorted(GENERIC) == [0x0, 0x1, 0x2, 0x10]


def test_a_protocol_of_a_vendor() -> None:
    table = ProtocolTable(0x91, (0x10000, 0x20000))
    registry = Registry()
    registry.serve(table, ProtocolServer)
    assert "## vendor (0x91)\n\nVersions: 0x10000, 0x20000.\n" in render(registry)
    assert "| vendor (0x91) | 0x20000 | 0x20000 |" in render(registry)
