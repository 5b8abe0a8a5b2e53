"""The VMM's part in the ITS of a guest: KVM's device operations over the guest's link (common/gic/vmm_ops.py).

It restores an ITS from its shadow when the link comes up, saves it, and restores what was saved. While vCPUs are
stopped the guest makes no MMIO access.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, Literal, Protocol

from common.errors import CallError, LinkDownError, RemoteError
from common.gic.registers import BASER_VALID, CBASER_VALID, GITS_CTLR, GITS_TYPER, TYPER_ITT_ENTRY_SIZE
from common.gic.saved import (
    SavedIts,
    check,
    read_registers,
    table_ranges,
)
from common.gic.table_layout import LAYOUTS
from common.gic.vmm_ops import (
    CTRL_RESET,
    EINVAL,
    GET_ITS_REG,
    RUN_VCPUS,
    SAVE_PENDING_TABLES,
    SAVE_TABLES,
    SET_ITS_REG,
    STOP_VCPUS,
)
from common.world import Memory, World
from services.guest_driver.calls import Calls
from services.guest_driver.its_shadow import ItsShadow, VmmCall

_PROFILES: Final[tuple[Literal["kvm", "qemu"], ...]] = ("kvm", "qemu")


class Gate(Protocol):
    """What keeps the guest's MMIO back."""

    async def hold(self) -> None:
        """New accesses wait from here on; those under way have ended on return. Raises LinkDownError."""
        ...

    def release(self) -> None:
        """Accesses go on, unless the link has broken since hold()."""
        ...


class ItsVmm:
    """The VMM of one guest with ``cpus`` redistributors. One procedure runs at a time. ``calls`` belongs to whoever
    has the link.

    ``on_refused()`` is called when an ITS does not become what it should: it is as after a reset then, and the driver
    must program it.
    """

    __slots__ = ("_cpus", "_gate", "_memory", "_mutex", "_on_refused", "_shadow", "calls")

    def __init__(
        self,
        world: World,
        memory: Memory,
        shadow: ItsShadow,
        gate: Gate,
        *,
        cpus: int,
        on_refused: Callable[[], None],
    ) -> None:
        self.calls: Final = Calls("its")
        self._memory: Final = memory
        self._shadow: Final = shadow
        self._gate: Final = gate
        self._cpus: Final = cpus
        self._mutex: Final = world.mutex()
        self._on_refused: Final = on_refused

    async def replay(self) -> None:
        """Make the ITS what its shadow says. The caller keeps MMIO back.

        Raises LinkDownError, and CallError with the errno where the ITS refuses; that leaves the ITS and its shadow
        as after a reset.
        """
        async with self._mutex:
            await self._carry_out(self._shadow.restore_calls())

    async def save(self) -> SavedIts:
        """All of the ITS, as it is between two instructions of the guest.

        Raises LinkDownError, CallError where the ITS refuses, RemoteError for registers that cannot be. vCPUs run
        afterwards in any case.
        """
        async with self._mutex, self._held():
            call = self.calls.call
            await call(STOP_VCPUS)
            try:
                dist, redists, its = await read_registers(partial(call, kind=int), self._cpus)
                saved = SavedIts(profile=_profile(its), cpus=self._cpus, dist=dist, redists=redists, its=its, memory=[])
                check(saved)
                await call(SAVE_PENDING_TABLES)
                if _has_tables(its):
                    await call(SAVE_TABLES)
                read = self._memory.read
                saved.memory = [(addr, read(addr, length)) for addr, length in table_ranges(saved, read)]
            finally:
                with suppress(LinkDownError):
                    await call(RUN_VCPUS)
            return saved

    async def restore(self, saved: SavedIts) -> None:
        """Put a saved ITS in the place of this one: its memory, its registers, its tables.

        Raises RemoteError for one that does not fit this guest, before anything is touched, LinkDownError, and
        CallError where the ITS refuses; that leaves it as after a reset, for the driver to program.
        """
        check(saved)
        if saved.cpus != self._cpus:
            raise RemoteError("cpus", saved.cpus, self._cpus, "another number of redistributors")
        for addr, data in saved.memory:
            self._memory.check(addr, len(data))
        async with self._mutex, self._held():
            for addr, data in saved.memory:
                self._memory.write(addr, data)
            # from here on a lost link restores the new state, not the old one
            self._shadow.load(saved)
            await self._carry_out(self._shadow.restore_calls())

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        await self._gate.hold()
        try:
            yield
        finally:
            self._gate.release()

    async def _carry_out(self, calls: Iterable[VmmCall]) -> None:
        """One after the other: what follows a step that was refused would make it worse."""
        self._shadow.restoring()
        try:
            await self._check_typer()
            for op, args in calls:
                if op == RUN_VCPUS or (op == SET_ITS_REG and args[0] == GITS_CTLR):
                    self._shadow.restored()  # before the ITS can run a command
                await self.calls.call(op, *args)
        except CallError:
            self._shadow.clear()
            for op in (CTRL_RESET, RUN_VCPUS):
                with suppress(CallError, LinkDownError):
                    await self.calls.call(op)
            self._on_refused()
            raise

    async def _check_typer(self) -> None:
        """What the guest knows of its ITS is still true. Raises CallError (EINVAL) where another one is there: the
        tables are their implementation's own, and to another mean nothing or something else."""
        typer = self._shadow.typer
        if typer is not None:
            await self.calls.call(STOP_VCPUS)
            found = await self.calls.call(GET_ITS_REG, GITS_TYPER)
            if found != typer:
                raise CallError("GITS_TYPER", EINVAL, f"{found} instead of {typer}: another ITS")


def _has_tables(its: Mapping[str, int]) -> bool:
    """Are queue, device table and collection table valid? There is nothing to be saved otherwise."""
    return bool(its["GITS_CBASER"] & CBASER_VALID and its["GITS_BASER0"] & its["GITS_BASER1"] & BASER_VALID)


def _profile(its: Mapping[str, int]) -> Literal["kvm", "qemu"]:
    """Whose tables an ITS with these registers has: the two differ in the size of an ITT entry."""
    size = TYPER_ITT_ENTRY_SIZE.get(its["GITS_TYPER"]) + 1
    for name in _PROFILES:
        if LAYOUTS[name].itt_entry == size:
            return name
    raise RemoteError("GITS_TYPER", hex(its["GITS_TYPER"]), None, f"ITT entries of {size} bytes are nobody's")
