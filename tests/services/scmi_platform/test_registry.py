"""The table of commands: complete, bound once."""

from __future__ import annotations

from enum import IntEnum

import pytest

from common.errors import LocalError
from common.scmi import base, clock, performance, pinctrl, power, powercap, reset, sensor, system_power, voltage
from common.scmi.names import message_name
from services.scmi_platform.protocol import ProtocolServer
from services.scmi_platform.registry import Command, Delayed, ProtocolTable, Registry
from tests.services.scmi_platform.scmi_rig import HERE, Rig, words


class Message(IntEnum):
    FIRST = 0x3
    SECOND = 0x4


#: Protocol, its commands, a board that has it.
COMMANDS: list[tuple[int, type[IntEnum], str]] = [
    (base.PROTOCOL, base.Command, "board_small.toml"),
    (clock.PROTOCOL, clock.Command, "board_small.toml"),
    (sensor.PROTOCOL, sensor.Command, "board_small.toml"),
    (power.PROTOCOL, power.Command, "protocols/board_power.toml"),
    (system_power.PROTOCOL, system_power.Command, "protocols/board_power.toml"),
    (reset.PROTOCOL, reset.Command, "protocols/board_reset.toml"),
    (performance.PROTOCOL, performance.Command, "protocols/board_performance.toml"),
    (powercap.PROTOCOL, powercap.Command, "protocols/board_powercap.toml"),
    (voltage.PROTOCOL, voltage.Command, "protocols/board_voltage.toml"),
    (pinctrl.PROTOCOL, pinctrl.Command, "protocols/board_pinctrl.toml"),
]


@pytest.mark.parametrize(("protocol", "commands", "board"), COMMANDS)
def test_every_command_is_bound(protocol: int, commands: type[IntEnum], board: str) -> None:
    rig = Rig(HERE / board)
    rows = {key & 0xFF: row for key, row in rig.platform.commands(1).items() if key >> 10 == protocol}
    assert {number: row.name for number, row in rows.items()} == {int(one): one.name for one in commands}
    for row in rows.values():
        assert message_name(protocol, row.message) == row.name
        assert row.section.startswith("4.")
        assert 0 <= row.size <= row.max_size
        assert hasattr(rig.platform.protocols[protocol], row.method)


def test_second_binding_is_refused() -> None:
    table = ProtocolTable(0x80, versions=(0x10000,))
    table.command(Message.FIRST, section="x")(lambda self, agent, request: b"")
    with pytest.raises(LocalError, match=r"FIRST \(0x3\) is already bound"):
        table.command(Message.FIRST, section="x")(lambda self, agent, request: b"")
    with pytest.raises(LocalError, match="already bound"):
        table.add(Command(0x9, "FIRST", "other", "x", 0, 0))
    with pytest.raises(LocalError, match="already bound"):
        table.add(Command(0x3, "OTHER", "other", "x", 0, 0))
    table.command(Message.SECOND, section="x", size=4, max_size=8)(lambda self, agent, request: b"")
    assert (table.commands[4].size, table.commands[4].max_size) == (4, 8)


def test_second_server_is_refused() -> None:
    registry = Registry()
    table = ProtocolTable(0x80, versions=(0x10000,))
    registry.serve(table, ProtocolServer)
    with pytest.raises(LocalError, match="0x80 is already served"):
        registry.serve(table, ProtocolServer)


def test_a_copy_goes_its_own_way() -> None:
    registry = Registry()
    registry.serve(ProtocolTable(0x80, versions=(0x10000,)), ProtocolServer)
    copy = registry.copy()
    copy.serve(ProtocolTable(0x81, versions=(0x10000,)), ProtocolServer)
    assert (list(registry.protocols), list(copy.protocols)) == ([0x80], [0x80, 0x81])


def test_delayed_needs_enough_of_the_request_to_tell() -> None:
    delayed = Delayed(4, 1, 1)
    assert delayed.wanted(words(0, 0, 1))
    assert not delayed.wanted(words(0, 0, 2))
    assert not delayed.wanted(words(0, 0))


def test_not_repeatable() -> None:
    row = Command(0x4, "RESET", "reset", "4.8.2", 12, 12, repeatable=False)
    assert not row.may_repeat(words(0, 0, 0, 0))
