"""A vendor's SCMI protocol: a DDR controller (0x80) whose frequency agents set. See docs/own-firmware.md.

The board file beside this one, or anywhere else::

    [platform]
    vendor = "acme"
    vendor_protocols = ["vendor_protocol.py"]

    [vendor.ddr]
    frequencies_mhz = [800, 1600, 3200]
    train_us = 500
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import msgspec

from common.errors import ConfigError, RemoteError
from common.scmi.fields import U32
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.protocol import ENABLE, ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable, Registry

if TYPE_CHECKING:
    from services.scmi_platform.board import Board
    from services.scmi_platform.platform import Platform

PROTOCOL = 0x80
CONTROLLER = 0  # there is one; the second word of a notification says which it is about

DESCRIBE = struct.Struct("<I")  # index of the first frequency wanted
FREQUENCY_SET = struct.Struct("<II")  # flags (asynchronous 0), MHz
FREQUENCY_CHANGED = struct.Struct("<III")  # agent, controller, MHz
ASYNC = 1


class Command(IntEnum):
    """Ids 0, 1, 2 and 0x10 are the same in every protocol, and served already."""

    DDR_DESCRIBE_FREQUENCIES = 0x3
    DDR_FREQUENCY_SET = 0x4
    DDR_FREQUENCY_GET = 0x5
    DDR_FREQUENCY_NOTIFY = 0x6


class Notification(IntEnum):
    DDR_FREQUENCY_CHANGED = 0x0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[vendor.ddr]`` of the board file."""

    frequencies_mhz: Annotated[list[int], msgspec.Meta(min_length=1)]
    train_us: int = 0


class State(msgspec.Struct, frozen=True):
    """What outlives a restart of the platform."""

    mhz: int
    owner: int


DDR = ProtocolTable(PROTOCOL, (0x10000, 0x20000), Notification)


class DdrProtocol(ProtocolServer):
    """Handlers take the agent and the whole message, whose size was checked; they return the return values, or why
    not."""

    __slots__ = ("mhz", "owner", "settings")

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        super().__init__(platform, table)
        try:
            self.settings = msgspec.convert(platform.board.vendor["ddr"], Settings)
        except msgspec.ValidationError as error:
            raise ConfigError("board", "vendor.ddr", str(error)) from None
        self.reset()

    def reset(self) -> None:
        self.mhz = self.settings.frequencies_mhz[0]
        self.owner = 0

    @classmethod
    def present(cls, board: Board) -> bool:
        """Boards without ``[vendor.ddr]`` are not served the protocol."""
        return "ddr" in board.vendor

    def attributes(self, agent: Agent) -> bytes:
        return U32.pack(len(self.settings.frequencies_mhz))

    @DDR.command(Command.DDR_DESCRIBE_FREQUENCIES, section="acme 2.1", size=4)
    def describe(self, agent: Agent, request: bytes) -> Result:
        (index,) = DESCRIBE.unpack_from(request, PAYLOAD)
        known = self.settings.frequencies_mhz
        if index >= len(known):
            return Status.OUT_OF_RANGE
        some = known[index : index + (self.platform.max_payload - 8) // 4]
        left = len(known) - index - len(some)
        return struct.pack(f"<{1 + len(some)}I", len(some) | left << 16, *some)

    @DDR.command(Command.DDR_FREQUENCY_GET, section="acme 2.3")
    def frequency_get(self, agent: Agent, request: bytes) -> Result:
        return U32.pack(self.mhz)

    @DDR.command(Command.DDR_FREQUENCY_SET, section="acme 2.2", size=8, delayed=Delayed(0, ASYNC, ASYNC))
    def frequency_set(self, agent: Agent, request: bytes) -> Result:
        flags, mhz = FREQUENCY_SET.unpack_from(request, PAYLOAD)
        if flags & ~ASYNC or mhz not in self.settings.frequencies_mhz:
            return Status.INVALID_PARAMETERS
        if not flags & ASYNC:
            return self._change(agent, mhz)
        if not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        started = self.platform.later(
            agent, request, self.settings.train_us / 1e6, lambda: self._change(agent, mhz) + U32.pack(mhz)
        )
        return b"" if started else Status.BUSY

    def _change(self, agent: Agent, mhz: int) -> bytes:
        changed, self.mhz, self.owner = mhz != self.mhz, mhz, agent.id
        self.touch(CONTROLLER)
        if changed:
            payload = FREQUENCY_CHANGED.pack(agent.id, CONTROLLER, mhz)
            self.platform.notify(PROTOCOL, Notification.DDR_FREQUENCY_CHANGED, CONTROLLER, payload)
        return b""

    @DDR.command(Command.DDR_FREQUENCY_NOTIFY, section="acme 2.4", size=4, since=0x20000, p2a=True)
    def frequency_notify(self, agent: Agent, request: bytes) -> Result:
        (enable,) = U32.unpack_from(request, PAYLOAD)
        if enable & ~ENABLE:
            return Status.INVALID_PARAMETERS
        event = Notification.DDR_FREQUENCY_CHANGED
        self.platform.subscribe(agent, PROTOCOL, event, CONTROLLER, bool(enable))
        return b""

    # --- what outlives a restart, and what a reset of an agent puts back ----------------------------------------------

    state_type = State

    def saved(self) -> range:
        return range(1)

    def save(self, number: int) -> State | None:
        return State(self.mhz, self.owner) if self.owner else None

    def load(self, number: int, state: State) -> None:
        if state.mhz not in self.settings.frequencies_mhz:
            raise RemoteError("mhz", state.mhz, None, "the controller has no such frequency")
        self.mhz, self.owner = state.mhz, state.owner

    def reset_agent(self, agent: Agent) -> None:
        if self.owner == agent.id:
            self.reset()
            self.touch(CONTROLLER)


def register(registry: Registry) -> None:
    """What the platform calls."""
    registry.serve(DDR, DdrProtocol)
