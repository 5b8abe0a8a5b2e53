"""docs/examples/vendor_protocol.py: what docs/own-firmware.md says of it, on a platform and on a served one."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import ConfigError, RemoteError, ScmiError
from common.scmi.status import Status
from services.guest_driver.notify_events import Event, Notification, ProtocolEvents
from services.guest_driver.scmi_session import connect
from services.scmi_platform.board import Board
from services.scmi_platform.state import PlatformState
from services.scmi_platform.vendor import registry_for
from tests.services.scmi_cli.conftest import TOKEN, scmi, serving
from tests.services.scmi_platform.scmi_rig import Rig, words

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "vendor_protocol.py"
DDR = 0x80
BOARD = f"""
[platform]
vendor = "acme"
vendor_protocols = ["{EXAMPLE}"]

[[agents]]
name = "OSPM"

[[agents]]
name = "BOSS"
trusted = true

[[devices]]
name = "d"

[vendor.ddr]
frequencies_mhz = [800, 1600, 3200]
train_us = 500
"""


def make(folder: Path, text: str = BOARD) -> Rig:
    path = folder / "board.toml"
    path.write_text(text)
    return Rig(path, registry=registry_for(Board.load(path), str(path)))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make(tmp_path)


@pytest.mark.parametrize(
    ("message", "payload", "reply"),
    [
        (0x0, b"", words(0, 0x20000)),
        (0x1, b"", words(0, 3)),
        (0x2, words(0x6), words(0, 0)),
        (0x3, words(0), words(0, 3, 800, 1600, 3200)),
        (0x3, words(2), words(0, 1, 3200)),
        (0x3, words(3), words(Status.OUT_OF_RANGE)),
        (0x4, words(0, 1600), words(0)),
        (0x4, words(0, 1601), words(Status.INVALID_PARAMETERS)),
        (0x4, words(2, 1600), words(Status.INVALID_PARAMETERS)),
        (0x4, words(0), words(Status.PROTOCOL_ERROR)),
        (0x5, b"", words(0, 800)),
        (0x6, words(1), words(0)),
        (0x6, words(2), words(Status.INVALID_PARAMETERS)),
        (0x7, b"", words(Status.NOT_SUPPORTED)),
    ],
)
def test_commands(rig: Rig, message: int, payload: bytes, reply: bytes) -> None:
    assert rig.ask(DDR, message, payload) == reply


def test_asynchronous_and_notified(rig: Rig) -> None:
    assert rig.ask(DDR, 0x6, words(1), agent=2) == words(0)
    assert rig.ask(DDR, 0x4, words(1, 3200)) == words(0)
    assert rig.ask(DDR, 0x5) == words(0, 800)
    rig.advance(0.0005)
    changed, done = rig.take()
    assert (changed[0], changed[1].type, changed[2]) == (2, 3, words(1, 0, 3200))
    assert (done[0], done[1].type, done[2]) == (1, 2, words(0, 3200))
    assert [rig.ask(DDR, 0x4, words(1, 3200)) for _ in range(9)] == [words(0)] * 8 + [words(Status.BUSY)]
    assert rig.ask(DDR, 0x4, words(1, 800), again=True) == words(Status.COMMS_ERROR)
    rig.has_p2a = False
    assert rig.ask(DDR, 0x4, words(1, 800)) == words(Status.NOT_SUPPORTED)
    assert rig.ask(DDR, 0x6, words(1)) == words(Status.NOT_SUPPORTED)


def test_the_older_version_has_no_notifications(rig: Rig) -> None:
    assert rig.ask(DDR, 0x10, words(0x10000)) == words(0)
    assert rig.ask(DDR, 0x6, words(1)) == words(Status.NOT_SUPPORTED)


def test_what_was_set_stays_set_and_is_reset(rig: Rig, tmp_path: Path) -> None:
    rig.ask(DDR, 0x4, words(0, 1600))
    entries = msgspec.msgpack.decode(msgspec.msgpack.encode(PlatformState(rig.platform).snapshot()))
    assert [one for one in entries if one[0] == DDR] == [[DDR, 0, {"mhz": 1600, "owner": 1}]]
    other = make(tmp_path)
    assert PlatformState(other.platform).restore([tuple(one) for one in entries]) == []
    assert other.ask(DDR, 0x5) == words(0, 1600)
    assert rig.ask(0x10, 0xB, words(1, 0)) == words(0)
    assert rig.ask(DDR, 0x5) == words(0, 800)
    server: Any = other.platform.protocols[DDR]
    with pytest.raises(RemoteError, match="no such frequency"):
        server.load(0, msgspec.structs.replace(server.save(0), mhz=1))


def test_boards(tmp_path: Path) -> None:
    assert DDR not in make(tmp_path, BOARD.partition("[vendor.ddr]")[0]).platform.protocols
    with pytest.raises(ConfigError, match=r"vendor.ddr: .*length >= 1"):
        make(tmp_path, BOARD.replace("800, 1600, 3200", ""))


def test_an_agent_of_a_served_platform(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD)
    with serving(path) as address:
        said = scmi("protocols", address=address)
        assert "vendor 0x80" in said.out, said
        assert asyncio.run(script(address)) == [1600, 3200]


async def script(address: str) -> list[int]:
    """As docs/own-firmware.md has it; returns the frequencies that notifications told of."""
    seen: list[Notification] = []
    async with connect(address, token=TOKEN) as agent:
        assert await agent.base.protocols() == [DDR]

        async def enable(_source: int, on: bool) -> None:
            await agent.do_xfer(DDR, 0x6, struct.pack("<I", on))

        changed = Event(0, 12, lambda payload: struct.unpack("<III", payload), lambda report: int(report[1]), enable)
        agent.notifications.register_protocol_events(ProtocolEvents(DDR, (changed,), sources=1))
        await agent.on_notification(DDR, 0, seen.append)
        await agent.do_xfer(DDR, 0x4, struct.pack("<II", 0, 1600))
        assert await agent.do_xfer_with_response(DDR, 0x4, struct.pack("<II", 1, 3200)) == struct.pack("<I", 3200)
        assert await agent.do_xfer(DDR, 0x5) == struct.pack("<I", 3200)
        with pytest.raises(ScmiError) as error:
            await agent.do_xfer(DDR, 0x4, struct.pack("<II", 0, 1))
        assert error.value.status == Status.INVALID_PARAMETERS
    return [one.report[2] for one in seen]
