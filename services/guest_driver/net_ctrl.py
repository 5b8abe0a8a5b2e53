"""The control queue, the driver's side (virtio 1.3 §5.1.6.5): one command at a time, as Linux's virtio_net sends them.

What the device accepted is remembered, so that a device that restarted without its memory can be told again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from common.errors import CallError, LocalError
from common.virtio.net_ctrl import (
    COMMANDS,
    CTRL_HEADER,
    NET_OK,
    OFFLOADS,
    RX_MODE,
    VLAN_ID,
    VQ_PAIRS,
    AnnounceCommand,
    CtrlClass,
    MacCommand,
    MqCommand,
    OffloadsCommand,
    RxCommand,
    VlanCommand,
    ctrl_name,
    encode_mac_table,
)
from common.virtio.split_driver import SplitDriver
from common.world import Event, Memory, Table, World

#: Bytes of guest memory that a control queue's driver needs for its commands, aligned to 64.
CTRL_AREA_BYTES: Final = 4096
# in it: class and command, the answer, and from the next line on the data
_ACK_AT: Final = 8
_DATA_AT: Final = 64
#: Bytes of data that a command may have: more than 600 MAC addresses.
CTRL_DATA_MAX: Final = CTRL_AREA_BYTES - _DATA_AT

#: What the answer holds until the device has written it: neither OK nor ERR.
_NO_ANSWER: Final = b"\xff"
_DESCRIPTORS: Final = 3


class NetCtrl:
    """One control queue: ``world.new(NetCtrl, world, memory, ring, area, iova, notify)``.

    ``area`` is the guest address of CTRL_AREA_BYTES; the device sees guest address ``a`` at ``a + iova``. ``notify()``
    is the doorbell. ``features`` (u64) are those negotiated; by default any command may be tried. With ``poll`` the
    driver asks for no interrupts and looks until the answer is there, as Linux does; else :meth:`ctrl_callback` wakes
    it.
    """

    __slots__ = (
        "_area", "_features", "_iova", "_memory", "_mutex", "_notify", "_poll", "_ring", "_set", "_used", "_world",
        "commands", "refused",
    )  # fmt: skip

    _area: Final[int]
    _features: Final[int]
    _iova: Final[int]
    _memory: Final[Memory]
    _mutex: Final[AbstractAsyncContextManager[Any]]
    _notify: Final[Callable[[], None]]
    _poll: Final[bool]
    _ring: Final[SplitDriver]
    _set: Final[Table[bytes]]
    _used: Final[Event]
    _world: Final[World]

    def __init__(
        self,
        world: World,
        memory: Memory,
        ring: SplitDriver,
        area: int,
        iova: int,
        notify: Callable[[], None],
        *,
        features: int = -1,
        poll: bool = False,
    ) -> None:
        if ring.size < _DESCRIPTORS:
            raise LocalError(f"a control queue of {ring.size} entries: a command takes {_DESCRIPTORS} of them")
        memory.check(area, CTRL_AREA_BYTES)
        self._world = world
        self._memory = memory
        self._ring = ring
        self._area = area
        self._iova = iova
        self._notify = notify
        self._features = features
        self._poll = poll
        self._mutex = world.mutex()
        #: set by the queue's interrupt
        self._used = world.event()
        #: what the device accepted: _memo() of a command → its data
        self._set = world.table()
        #: commands that were answered, and those among them that the device did not take
        self.commands = 0
        self.refused = 0
        ring.disable_cb()

    # --- commands -----------------------------------------------------------------------------------------------------

    async def command(self, cls: int, command: int, data: bytes = b"") -> None:
        """Send one command (u8 class, u8 command) and wait for the device's answer.

        Raises CallError (EINVAL) where the answer is not OK; LocalError where the data is longer than CTRL_DATA_MAX
        or the feature was not negotiated (nothing is sent); RingError where the queue is broken.
        """
        row = COMMANDS.get((cls, command))
        if row is not None and not self._features & row.feature.bit:
            raise LocalError(f"{ctrl_name(cls, command)}: {row.feature.name} is not negotiated")
        if len(data) > CTRL_DATA_MAX:
            raise LocalError(f"{ctrl_name(cls, command)}: {len(data)} bytes of data, at most {CTRL_DATA_MAX}")
        async with self._mutex:
            await self._send(cls, command, data)
            self._remember(cls, command, data)

    async def set_rx_mode(self, mode: RxCommand, on: bool) -> None:
        """Turn one mode of the device's receive filter on or off. This and all below raise as :meth:`command`."""
        await self.command(CtrlClass.RX, mode, RX_MODE.pack(on))

    async def set_mac_table(self, unicast: Collection[bytes], multicast: Collection[bytes]) -> None:
        """The addresses (6 bytes each) to receive beside the own one."""
        await self.command(CtrlClass.MAC, MacCommand.TABLE_SET, encode_mac_table(unicast, multicast))

    async def set_mac(self, mac: bytes) -> None:
        """The own address, 6 bytes."""
        await self.command(CtrlClass.MAC, MacCommand.ADDR_SET, mac)

    async def vlan_add(self, vlan: int) -> None:
        """Receive frames of VLAN ``vlan`` (0 to 4094) too."""
        await self.command(CtrlClass.VLAN, VlanCommand.ADD, VLAN_ID.pack(vlan))

    async def vlan_del(self, vlan: int) -> None:
        """Receive no more frames of VLAN ``vlan``."""
        await self.command(CtrlClass.VLAN, VlanCommand.DEL, VLAN_ID.pack(vlan))

    async def set_pairs(self, pairs: int) -> None:
        """Use the first ``pairs`` queue pairs, which are set up before (§5.1.6.5.6.1)."""
        await self.command(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, VQ_PAIRS.pack(pairs))

    async def announce_ack(self) -> None:
        """The status bit ANNOUNCE was seen."""
        await self.command(CtrlClass.ANNOUNCE, AnnounceCommand.ACK)

    async def set_guest_offloads(self, offloads: int) -> None:
        """The offloads (feature bits, u64) to have on."""
        await self.command(CtrlClass.GUEST_OFFLOADS, OffloadsCommand.SET, OFFLOADS.pack(offloads))

    # --- a device that restarted --------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Tell a device that lost its memory all that was set, before any other command. Until it is told to filter
        such a device receives everything, so what admits frames goes first and promiscuous mode off comes last.

        Raises as :meth:`command`; where the device refuses, the rest is sent all the same.
        """
        refusal: CallError | None = None
        async with self._mutex:
            for memo in sorted(self._set, key=_restore_order):
                cls, command = _command_of(memo)
                try:
                    await self._send(cls, command, self._set[memo])
                except CallError as error:
                    refusal = refusal or error
        if refusal is not None:
            raise refusal

    def abort(self) -> None:
        """The queue is gone: whoever waits for an answer, and every later command, gets a RingError (Linux:
        virtio_break_device)."""
        self._ring.broken = True
        self._used.set()

    # --- the ring -----------------------------------------------------------------------------------------------------

    def ctrl_callback(self) -> None:
        """The control queue's interrupt."""
        self._used.set()

    async def _send(self, cls: int, command: int, data: bytes) -> None:
        """Under the mutex: the area and the ring hold one command."""
        memory, ring, area = self._memory, self._ring, self._area
        memory.write(area, CTRL_HEADER.pack(cls, command))
        memory.write(area + _ACK_AT, _NO_ANSWER)
        here = area + self._iova
        readable = [(here, CTRL_HEADER.size)]
        if data:
            memory.write(area + _DATA_AT, data)
            readable.append((here + _DATA_AT, len(data)))
        ring.add(readable, [(here + _ACK_AT, len(_NO_ANSWER))], command)
        if ring.kick_prepare():
            self._notify()
        while ring.get_buf() is None:
            if self._poll:
                await self._world.relax()
                continue
            self._used.clear()
            if ring.enable_cb() and not ring.broken:  # as abort() sets them: broken, then the event
                await self._used.wait()
            ring.disable_cb()
        self.commands += 1
        (ack,) = memory.read(area + _ACK_AT, len(_NO_ANSWER))
        if ack != NET_OK:
            self.refused += 1
            raise CallError(ctrl_name(cls, command), errno.EINVAL, f"the device answered {ack}")

    def _remember(self, cls: int, command: int, data: bytes) -> None:
        """The device took it. What is over once it is done, or unknown to us, need not be said again."""
        row = COMMANDS.get((cls, command))
        if row is None or len(data) < row.size or cls == CtrlClass.ANNOUNCE:
            return
        if cls == CtrlClass.VLAN:
            memo = _memo(cls, VlanCommand.ADD, *VLAN_ID.unpack_from(data))
            if command == VlanCommand.DEL:
                self._set.pop(memo, None)
            else:
                self._set[memo] = data
        else:
            self._set[_memo(cls, command)] = data


def _memo(cls: int, command: int, vlan: int = 0) -> int:
    """Under which key a command is remembered: a later one with the same key takes its place."""
    return cls << 24 | command << 16 | vlan


def _command_of(memo: int) -> tuple[int, int]:
    return memo >> 24, memo >> 16 & 0xFF


def _restore_order(memo: int) -> tuple[bool, int, int, int]:
    """The modes of the filter last, PROMISC (0) last of all."""
    cls, command = _command_of(memo)
    return cls == CtrlClass.RX, cls, -command, memo
