"""QEMU's GICv3 with its ITS, behind the methods that the recorded cases are played through.

What runs is the ``virt`` board. QEMU carries a queue out inside the write of CWRITER and keeps the pending tables in
guest memory current; its CPUs are stopped but for acknowledging an interrupt.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from typing import Any, Final, Self

from tests.qemu import guest
from tests.qemu.qtest import GUARD, Machine, QtestError, load, store

#: virt's memory map (hw/arm/virt.c).
FRAMES: Final = {"gicd": 0x0800_0000, "its": 0x0808_0000, "trans": 0x0809_0000}
_REDISTRIBUTORS: Final = 0x080A_0000
_RD_STRIDE: Final = 0x2_0000
_ECAM: Final = 0x40_1000_0000
_BARS: Final = 0x1000_0000
_BAR_SIZE: Final = 0x10_0000
RAM: Final = 0x4000_0000
#: MiB of it.
MEMORY: Final = 512
#: What the cases and streams work in, and what is zero at first.
USED: Final = 0x400_0000
#: The CPUs' program: at the top of it.
_PROGRAM: Final = RAM + (MEMORY << 20) - guest.SIZE
#: Where a reset puts the device tree.
_TREE: Final = 0x10_0000

GITS_TRANSLATER: Final = 0x0809_0040
_PROPBASER, _PENDBASER = 0x70, 0x78
_FIRST_LPI: Final = 8192
_ADDRESS: Final = 0x000F_FFFF_FFFF_0000

#: The devices that can raise MSIs where a case names no others: 00:02.0 and 00:03.0.
REQUESTERS: Final = (16, 24)
#: QEMU's edu device: interrupt raise and acknowledge.
_EDU_RAISE, _EDU_LOWER = 0x60, 0x64
_PCI_COMMAND, _PCI_BAR0, _PCI_CAPABILITIES = 0x04, 0x10, 0x34
_MEMORY_AND_MASTER: Final = 0x6


class Board:
    """One QEMU with ``cpus`` CPUs and an ``edu`` device for each DeviceID (bus 0, so a DeviceID is a devfn). Migration
    puts another process in its place."""

    def __init__(self, cpus: int = 4, devices: Collection[int] = REQUESTERS) -> None:
        self.cpus = cpus
        self.devices = sorted(devices)
        self.machine = self._start()
        self.machine.write(_PROGRAM, guest.program(cpus))

    def _start(self, incoming: socket.socket | None = None) -> Machine:
        edus = [f"edu,addr={device >> 3:#x}.{device & 7}" for device in self.devices]
        return Machine(
            [
                "-machine", "virt,gic-version=3,its=on", "-cpu", "max", "-smp", str(self.cpus), "-m", str(MEMORY),
                "-device", f"loader,addr={_PROGRAM:#x},cpu-num=0",
                *[word for edu in edus for word in ("-device", edu)],
            ],
            incoming,
        )  # fmt: skip

    def clean(self) -> None:
        """As it was switched on, with memory that is zero."""
        self._system_reset()
        self.machine.fill(RAM, USED, 0)

    def reset(self) -> None:
        """A system reset; memory stays, also where QEMU puts its device tree again."""
        kept = self.machine.read(RAM, _TREE)
        self._system_reset()
        self.machine.write(RAM, kept)

    def _system_reset(self) -> None:
        self.machine.qmp("system_reset")
        self.machine.wait_event("RESET")

    def migrate(self) -> None:
        """Everything into a fresh process, as a live migration carries it."""
        ours, theirs = socket.socketpair()
        fresh = self._start(incoming=theirs)
        try:
            with ours:
                self.machine.qmp("getfd", fds=[ours.fileno()], fdname="away")
            self.machine.qmp("migrate", uri="fd:away")
            _wait(lambda: _migrated(self.machine) and _migrated(fresh), "the migration does not end")
        except BaseException:
            fresh.close()
            raise
        self.machine.close()
        self.machine = fresh

    def acknowledge(self, cpu: int) -> int:
        """What ICC_IAR1_EL1 of ``cpu`` says, ended at once by ICC_EOIR1_EL1. The CPUs run meanwhile."""
        at = _PROGRAM + guest.mailbox(cpu)
        request = self.machine.load(at + guest.REQUEST, 8) + 1
        self.machine.store(at + guest.REQUEST, 8, request)
        self.machine.qmp("cont")
        _wait(lambda: self.machine.load(at + guest.DONE, 8) == request, f"CPU {cpu} does not answer")
        self.machine.qmp("stop")
        return self.machine.load(at + guest.RESULT, 8)

    def raise_msi(self, device: int, data: int) -> None:
        """The device writes 16 bits of ``data``, all that MSI has, to GITS_TRANSLATER. Raises ValueError."""
        if device not in self.devices or not 0 <= data < 1 << 16:
            raise ValueError(f"no MSI of DeviceID {device} with data {data:#x}")
        config = _ECAM + (device << 12)
        bar = _BARS + self.devices.index(device) * _BAR_SIZE
        msi = config + self.machine.load(config + _PCI_CAPABILITIES, 1)
        # set up anew each time: a reset and a migration take it away
        self.machine.requests(
            [
                store(config + _PCI_BAR0, 4, bar),
                store(config + _PCI_COMMAND, 2, _MEMORY_AND_MASTER),
                store(msi + 4, 4, GITS_TRANSLATER),
                store(msi + 8, 4, 0),
                store(msi + 12, 2, data),
                store(msi + 2, 2, 1),
                store(bar + _EDU_RAISE, 4, 1),
                store(bar + _EDU_LOWER, 4, 1),
            ]
        )

    def close(self) -> None:
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class QemuAdapter:
    """One case on a board of its own, or on ``board``, which is cleaned for it and outlives it."""

    def __init__(self, case: dict[str, Any], board: Board | None = None) -> None:
        config = case["config"]
        devices = set(config.get("msi_devids", ()))
        self._own = board is None
        self.board = board or Board(config["cpus"], devices | set(REQUESTERS))
        if self.board.cpus != config["cpus"] or not devices <= set(self.board.devices):
            raise ValueError(f"the board has not what {case.get('name')} needs: {config}")
        self.board.clean()

    @staticmethod
    def address(frame: str, off: int) -> int:
        """Of a register, by the cases' names of the frames."""
        if frame.startswith("gicr"):
            return _REDISTRIBUTORS + int(frame[4:]) * _RD_STRIDE + off
        return FRAMES[frame] + off

    def mmio_read(self, frame: str, off: int, size: int) -> int:
        return self.board.machine.load(self.address(frame, off), size)

    def mmio_write(self, frame: str, off: int, size: int, value: int) -> None:
        self.board.machine.store(self.address(frame, off), size, value)

    def mem_read(self, addr: int, n: int) -> bytes:
        return self.board.machine.read(addr, n)

    def mem_write(self, addr: int, data: bytes) -> None:
        self.board.machine.write(addr, data)

    def mem_fill(self, addr: int, n: int, byte: int) -> None:
        self.board.machine.fill(addr, n, byte)

    def msi(self, devid: int, data: int) -> None:
        self.board.raise_msi(devid, data)

    def drain(self) -> None:
        """Nothing to wait for: a write of CWRITER ends with the queue at rest."""

    def pending(self, cpu: int, lpi: int) -> int:
        return int(lpi in self.pending_all(cpu))

    def pending_all(self, cpu: int) -> list[int]:
        """By the pending table, as far as PROPBASER.IDbits."""
        frame = f"gicr{cpu}"
        words = [load(self.address(frame, offset), 8) for offset in (_PROPBASER, _PENDBASER)]
        propbaser, pendbaser = (int(word, 16) for word in self.board.machine.requests(words))
        bits = min(propbaser & 0x1F, 15) + 1
        if 1 << bits <= _FIRST_LPI:
            return []
        skip = _FIRST_LPI // 8
        table = self.board.machine.read((pendbaser & _ADDRESS) + skip, (1 << bits) // 8 - skip)
        bytes_ = [(_FIRST_LPI + 8 * at, byte) for at, byte in enumerate(table) if byte]
        return [first + bit for first, byte in bytes_ for bit in range(8) if byte >> bit & 1]

    def ack(self, cpu: int) -> int:
        return self.board.acknowledge(cpu)

    def migrate(self) -> None:
        self.board.migrate()

    def reset(self) -> None:
        self.board.reset()

    def close(self) -> None:
        if self._own:
            self.board.close()


def _migrated(machine: Machine) -> bool:
    """Raises QtestError where it failed."""
    state = machine.qmp("query-migrate")
    if state.get("status") in {"failed", "cancelled"}:
        raise QtestError(f"migration: {state}")
    return bool(state.get("status") == "completed")


def _wait(done: Callable[[], bool], late: str) -> None:
    """Raises QtestError saying ``late``."""
    end = time.monotonic() + GUARD
    while not done():
        if time.monotonic() > end:
            raise QtestError(late)
        time.sleep(0.001)
