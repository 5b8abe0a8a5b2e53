"""One ITS over a memory of its own, driven step by step from plain code: recorded cases, comparisons, experiments.

The interface of the recorded cases: MMIO, guest memory, MSIs, pending state, acknowledge, migration, reset. vCPUs take
nothing by themselves, so an LPI stays pending until :meth:`CaseAdapter.ack`.
"""

from __future__ import annotations

import asyncio
import mmap
import weakref
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from common.errors import LocalError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import PROFILES
from services.gic_its.snapshot import restore, save

T = TypeVar("T")

#: Guest RAM of the cases.
RAM_BASE: Final = 0x4000_0000
RAM_SIZE: Final = 0x2000_0000
RAM_END: Final = RAM_BASE + RAM_SIZE
#: vCPUs where a case does not say how many, and the most of them.
CPUS: Final = 4
MAX_CPUS: Final = 512
#: One past the largest DeviceID on the bus, and past what fits into GITS_TRANSLATER.
WORD: Final = 1 << 32


class CaseAdapter:
    """``case["config"]`` gives ``cpus``; ``profile`` is ``qemu`` or ``kvm``.

    Raises LocalError for another profile and for a number of vCPUs that no machine has; methods raise it for a vCPU
    that is not there, and FrameError for a frame or an access that is not.
    """

    def __init__(self, case: dict[str, Any], profile: str = "qemu") -> None:
        if profile not in PROFILES:
            raise LocalError(f"profile {profile!r} is none of {', '.join(PROFILES)}")
        self._profile: Final = PROFILES[profile]
        cpus = case.get("config", {}).get("cpus", CPUS)
        if not isinstance(cpus, int) or not 1 <= cpus <= MAX_CPUS:
            raise LocalError(f"{cpus!r} vCPUs: 1 to {MAX_CPUS} there may be")
        self._cpus: Final[int] = cpus
        self._memory: Final = GuestMemory()
        # pages that nobody touches cost nothing
        self._memory.add_region(RAM_BASE, RAM_SIZE, memoryview(mmap.mmap(-1, RAM_SIZE)))
        self._loop: Final = asyncio.new_event_loop()
        weakref.finalize(self, self._loop.close)  # who forgets close() leaves no open loop behind
        self._numbers: dict[tuple[int, int], int] = {}
        self._its = self._make()

    def _make(self) -> Its:
        its = Its(
            AsyncWorld(),
            DirectDma(self._memory),
            cpus=self._cpus,
            deliver=_nobody,
            done=_nobody,
            profile=self._profile,
        )
        its.hold()
        return its

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    @property
    def its(self) -> Its:
        """The instance that serves now."""
        return self._its

    # --- registers and memory ----------------------------------------------------------------------------------------

    def mmio_read(self, frame: str, off: int, size: int) -> int:
        """Read ``size`` bytes at ``off`` of ``its``, ``trans``, ``gicd`` or ``gicr0`` …"""
        return self._its.read(frame, off, size)

    def mmio_write(self, frame: str, off: int, size: int, value: int) -> None:
        """Write, and wait until it has taken effect."""
        self._run(self._its.mmio_write(frame, off, size, value))

    def mem_read(self, addr: int, n: int) -> bytes:
        """Guest memory; zeros where there is none, as on a bus."""
        start, end = _inside(addr, n)
        if start >= end:
            return bytes(n)
        return bytes(start - addr) + self._memory.read(start, end - start) + bytes(addr + n - end)

    def mem_write(self, addr: int, data: bytes) -> None:
        """Guest memory; dropped where there is none."""
        start, end = _inside(addr, len(data))
        if start < end:
            self._memory.write(start, data[start - addr : end - addr])

    def mem_fill(self, addr: int, n: int, byte: int) -> None:
        """``n`` bytes of guest memory."""
        start, end = _inside(addr, n)
        if start < end:
            self._memory.fill(start, end - start, byte & 0xFF)

    # --- interrupts --------------------------------------------------------------------------------------------------

    def msi(self, devid: int, data: int) -> None:
        """A device writes ``data`` to GITS_TRANSLATER. A DeviceID that the bus has no room for is nobody's."""
        data %= WORD
        if not 0 <= devid < WORD:
            return
        number = self._numbers[devid, data] = self._numbers.get((devid, data), 0) + 1
        self._run(self._its.msi(devid, data, number))

    def drain(self) -> None:
        """Wait until the command queue is at rest."""
        self._run(self._its.drain())

    def pending(self, cpu: int, lpi: int) -> int:
        """1 if ``lpi`` is pending at redistributor ``cpu``."""
        return int(lpi in self.pending_all(cpu))

    def pending_all(self, cpu: int) -> list[int]:
        """The pending INTIDs of redistributor ``cpu``, ascending."""
        return self._its.pending(self._vcpu(cpu))

    def ack(self, cpu: int) -> int:
        """Read ICC_IAR1_EL1, then write ICC_EOIR1_EL1: the INTID, 1023 if there is none."""
        intid, number = self._its.acknowledge(self._vcpu(cpu))
        self._its.eoi(cpu, intid, number)
        return intid

    def _vcpu(self, cpu: int) -> int:
        if not 0 <= cpu < self._cpus:
            raise LocalError(f"vCPU {cpu} is none of {self._cpus}")
        return cpu

    # --- the machine -------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Save everything, carry it to a fresh instance and go on there.

        Raises CallError for what cannot be carried, as an ITT where there is no memory; then nothing has changed.
        """
        self.drain()
        fresh = self._make()
        self._run(restore(fresh, self._run(save(self._its)), at_rest=True))
        self._its.reset()
        self._its = fresh
        self._numbers = {}

    def reset(self) -> None:
        """System reset; guest memory stays."""
        self._its.reset()
        self._numbers = {}

    def close(self) -> None:
        """Nothing is left of it; may be called again."""
        self._loop.close()
        for region in self._memory.regions:
            self._memory.remove_region(region.base)


def _inside(addr: int, n: int) -> tuple[int, int]:
    """Start and end of the part of ``n`` bytes at ``addr`` that is in RAM; not a range where there is none."""
    return max(addr, RAM_BASE), min(addr + n, RAM_END)


def _nobody(*_what: int) -> None:
    """Nobody hears of deliveries and confirmations: vCPUs are held."""
