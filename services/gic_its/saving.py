"""Tables to guest memory and back, by KVM's save/restore ABI revision 0 (Linux Documentation/virt/kvm/devices/
arm-vgic-its.rst).

What is restored is somebody else's data: every entry is checked before anything is made of it, and a table that is
refused leaves nothing mapped. :func:`restore_tables` raises CallError:

====== ==============================================================================================================
ENXIO  BASER0, BASER1 or CBASER is not valid
EFAULT a table or an ITT does not lie in guest memory
EBUSY  a BASER was written meanwhile
EINVAL an entry is inconsistent: an ITT of more EventID bits than the ITS has, a pINTID that is no LPI, an EventID +
       next past the ITT, an ICID that no collection has or the table has no room for, a PE that does not exist
EEXIST an ICID stands twice in the collection table
ENOMEM more devices, collections or events than this ITS takes
====== ==============================================================================================================

Where the tables are in guest memory only there is nothing to save, and nothing to restore: every use checks them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from common.errors import CallError, MemoryFaultError
from common.gic.entries import ENTRY_SIZE, ITE_INTID, L1, NOT_MAPPED, PAGE, VALID, Cte, Dte, Ite
from common.gic.lpi import LPI_BASE, LPI_LIMIT
from common.gic.registers import BASER_INDIRECT, BASER_VALID, CBASER_VALID
from common.gic.vmm_ops import EBUSY, EEXIST, EFAULT, EINVAL, ENOMEM, ENXIO
from common.registers import RegisterFile
from services.gic_its.core import Its
from services.gic_its.held_tables import HeldTables
from services.gic_its.state import UNMAPPED, Device

Read = Callable[[int, int], Awaitable[bytes]]
"""Address and length in guest memory → bytes."""

#: Bytes of a table that are read at a time, from a multiple of this on.
BLOCK: Final = 16384
#: Where the chain of devices goes on after its last one.
END: Final = 1 << 32


def configured(its: Its) -> bool:
    """Whether queue, device table and collection table are programmed."""
    get = its.registers.get
    return bool(get("GITS_BASER0") & get("GITS_BASER1") & BASER_VALID and get("GITS_CBASER") & CBASER_VALID)


async def save_tables(its: Its) -> None:
    """Write all that is mapped into the tables; the caller holds ``its.tables_mutex``. Raises CallError: ENXIO if there
    are none, EFAULT if one does not lie in guest memory, for a write of the ITS is posted and nobody hears of it."""
    if not configured(its):
        raise CallError("save_tables", ENXIO, "BASER0, BASER1 or CBASER is not valid")
    tables = its.tables
    if isinstance(tables, HeldTables):
        tables.write_all()
        its.dma.commit()
        for device in [tables.devices[number] for number in tables.devices]:
            if device.events:
                try:
                    await its.dma.read(device.itt + device.events[-1][-1] * ENTRY_SIZE, ENTRY_SIZE)
                except MemoryFaultError:
                    raise CallError(f"device {device.device:#x}", EFAULT, f"no memory at {device.itt:#x}") from None
    its.dma.commit()


async def restore_tables(its: Its) -> None:
    """Map what the tables say; the caller holds ``its.tables_mutex``. Raises CallError; then nothing is mapped."""
    if not configured(its):
        raise CallError("restore_tables", ENXIO, "BASER0, BASER1 or CBASER is not valid")
    tables = its.tables
    if not isinstance(tables, HeldTables):
        return
    tables.reset()
    try:
        await _Restore(its, tables).run()
    except MemoryFaultError as error:
        tables.reset()
        raise CallError("restore_tables", EFAULT, f"no memory at {error.value}") from None
    except CallError:
        tables.reset()
        raise
    for redistributor in its.redistributors:
        await redistributor.refresh_all()


class _Restore:
    """One reading of the tables: collections first, then devices with their ITTs.

    What it costs is bounded by what is mapped in the end and by the memory that the tables really take: ITTs that
    overlap, which no software has, are read once where there is nothing in them.
    """

    def __init__(self, its: Its, tables: HeldTables) -> None:
        self._its: Final = its
        self._tables: Final = tables
        self._vcpus: Final[dict[int, int]] = {}
        self._basers: Final = _basers(its.registers)
        #: (address, mask) of blocks without an entry
        self._empty: Final[set[tuple[int, int]]] = set()

    async def run(self) -> None:
        await self._collections()
        registers, table = self._its.registers, self._tables.device_table
        if not registers.get("GITS_BASER0") & BASER_INDIRECT:
            await self._devices(table.base, 0, table.entries, 0)
            return
        per_page = PAGE // ENTRY_SIZE
        after = 0
        for first in range(0, table.entries, per_page):
            level1 = L1.unpack(await self._read(table.base + first // per_page * ENTRY_SIZE, ENTRY_SIZE))
            if level1.valid:
                after = await self._devices(level1.page, first, min(per_page, table.entries - first), after)

    async def _read(self, addr: int, length: int) -> bytes:
        """Raises CallError where a BASER that was written during the read has taken away what was mapped so far."""
        control = self._its.control
        before = (control.devices, control.collections)
        data = await self._its.dma.read(addr, length)
        registers = self._its.registers
        if (control.devices, control.collections) != before or self._basers != _basers(registers):
            raise CallError("restore_tables", EBUSY, "a BASER was written meanwhile")
        return data

    async def _collections(self) -> None:
        its, tables = self._its, self._tables
        table = tables.collection_table
        entries = _Entries(self._read, table.base, table.entries, VALID, self._empty)
        while (found := await entries.next(len(self._vcpus))) is not None:
            index, data = found
            if index != len(self._vcpus):
                return  # the first invalid entry ends the list
            entry = Cte.unpack(data)
            where = f"collection {entry.icid}"
            if entry.icid >= table.entries:
                raise CallError(where, EINVAL, f"the table has {table.entries} entries")
            if entry.rdbase != NOT_MAPPED and entry.rdbase >= len(its.redistributors):
                raise CallError(where, EINVAL, f"PE {entry.rdbase} is none of {len(its.redistributors)}")
            if entry.icid in self._vcpus:
                raise CallError(where, EEXIST, "stands twice in the table")
            if len(self._vcpus) >= tables.limits.collections:
                raise CallError(where, ENOMEM, f"more than {tables.limits.collections} collections")
            vcpu = UNMAPPED if entry.rdbase == NOT_MAPPED else entry.rdbase
            self._vcpus[entry.icid] = vcpu
            tables.add_collection(entry.icid, vcpu)

    async def _devices(self, base: int, first: int, count: int, after: int) -> int:
        """The part of the device table at ``base`` that begins with DeviceID ``first``; nothing before ``after``.
        Returns the DeviceID to go on with."""
        tables, bits = self._tables, self._its.profile.event_bits
        entries = _Entries(self._read, base, count, VALID, self._empty)
        at = max(after - first, 0)
        while (found := await entries.next(at)) is not None:
            at, data = found
            entry = Dte.unpack(data)
            where = f"device {first + at:#x}"
            if entry.bits > bits:
                raise CallError(where, EINVAL, f"{entry.bits} EventID bits, {bits} at most")
            if len(tables.devices) >= tables.limits.devices:
                raise CallError(where, ENOMEM, f"more than {tables.limits.devices} devices")
            await self._events(tables.add_device(first + at, base + at * ENTRY_SIZE, entry.itt, entry.bits))
            if not entry.next:
                return END
            at += entry.next
        return first + at

    async def _events(self, device: Device) -> None:
        tables = self._tables
        size = 1 << device.bits
        entries = _Entries(self._read, device.itt, size, ITE_INTID.mask, self._empty)
        event = 0
        while (found := await entries.next(event)) is not None:
            event, data = found
            entry = Ite.unpack(data)
            where = f"device {device.device:#x} event {event}"
            if not LPI_BASE <= entry.intid < LPI_LIMIT:
                raise CallError(where, EINVAL, f"pINTID {entry.intid} is no LPI")
            if event + entry.next >= size:
                raise CallError(where, EINVAL, f"the next one, {event + entry.next}, is past the ITT of {size}")
            vcpu = self._vcpus.get(entry.icid)
            if vcpu is None:
                raise CallError(where, EINVAL, f"no collection {entry.icid}")
            if self._its.control.events >= tables.limits.events:
                raise CallError(where, ENOMEM, f"more than {tables.limits.events} events")
            tables.add_event(device, event, entry.intid, entry.icid, vcpu)
            if not entry.next:
                return
            event += entry.next


def _basers(registers: RegisterFile) -> tuple[int, int]:
    return registers.get("GITS_BASER0"), registers.get("GITS_BASER1")


class _Entries:
    """The entries of a table that have bits of ``mask``. Reads raise MemoryFaultError.

    A table is read block by block, and blocks that the chain of entries leaves out are not. ``empty`` remembers those
    of guest memory that have none (with their mask): a guest may have all its devices' ITTs at one address, and then
    a restore still costs no more than the memory that they take.
    """

    __slots__ = ("_base", "_count", "_empty", "_end", "_first", "_mask", "_read", "_words")

    def __init__(self, read: Read, base: int, count: int, mask: int, empty: set[tuple[int, int]]) -> None:
        self._read: Final = read
        self._base: Final = base
        self._count: Final = count
        self._mask: Final = mask
        self._empty: Final = empty
        #: entries ``_first`` to ``_end`` are those that were read last
        self._first = self._end = 0
        self._words: Sequence[int] = ()

    async def next(self, at: int) -> tuple[int, bytes] | None:
        """Index and bytes of the first one from ``at`` on, which never goes back; None if there is none."""
        while at < self._count:
            if at >= self._end:
                await self._load(at)
            for index, word in enumerate(self._words[at - self._first :], at):
                if word & self._mask:
                    return index, word.to_bytes(ENTRY_SIZE, "little")
            at = self._end
        return None

    async def _load(self, at: int) -> None:
        """From entry ``at`` to the end of its block, or of the table."""
        start = self._base + at * ENTRY_SIZE
        end = min(start // BLOCK * BLOCK + BLOCK, self._base + self._count * ENTRY_SIZE)
        self._first, self._end = at, at + (end - start) // ENTRY_SIZE
        self._words = ()
        if (start, self._mask) not in self._empty:
            data = await self._read(start, end - start)
            if data != bytes(len(data)):
                self._words = memoryview(data).cast("Q")
            if end - start == BLOCK and not any(word & self._mask for word in self._words):
                self._empty.add((start, self._mask))
