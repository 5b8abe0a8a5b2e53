"""The guest's side of the GIC ITS: LPI tables, ITS tables, command queue, mappings (IHI 0069 chapter 5).

Done in Linux's order (drivers/irqchip/irq-gic-v3.c, irq-gic-v3-its.c): the distributor lets group 1 through, the
redistributors get their LPI tables and EnableLPIs, the ITS its BASERs and command queue and is enabled, each vCPU gets
a collection of its own.

What was mapped is remembered, so that :meth:`ItsDriver.restore` can program an ITS that lost it. As a rule none does:
the VMM restores it, and the driver does not notice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from common.errors import CallError, LocalError
from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries import PAGE
from common.gic.lpi import (
    LPI_BASE,
    LPI_ID_BITS,
    config_byte,
    config_table_size,
    pending_table_size,
)
from common.gic.registers import (
    ATTRIBUTES_ITS,
    ATTRIBUTES_RD,
    BASER_ENTRY_SIZE,
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_PAGES,
    BASER_TYPE,
    BASER_VALID,
    CTLR_ENABLED,
    CTLR_QUIESCENT,
    GICD_CTLR,
    GICD_CTLR_ARE,
    GICD_CTLR_GRP0,
    GICD_CTLR_GRP1,
    GICR_CTLR,
    GICR_CTLR_ENABLE_LPIS,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_TYPER,
    GICR_TYPER_LAST,
    GITS_BASER,
    GITS_BASERS,
    GITS_CTLR,
    GITS_TYPER,
    PENDBASER_ADDR,
    PENDBASER_PTZ,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
    TYPER_DEVBITS,
    TYPER_ID_BITS,
    TYPER_ITT_ENTRY_SIZE,
    TYPER_PHYSICAL,
    baser_with_address,
)
from common.world import Fifo, Memory, Table, World
from services.guest_driver.its_queue import ENXIO, ETIMEDOUT, TIMEOUT, CommandQueue, ItsDriverStats, Mmio

#: ITT addresses are 256-byte aligned (MAPD's field holds bits 51:8).
ITT_ALIGN: Final = 256


Allocate = Callable[[int, int], int]
"""``(size, alignment)`` in bytes → guest address of memory that is the driver's for good."""


@dataclass(slots=True, frozen=True)
class ItsLayout:
    """How large the driver makes its tables. ``devices`` caps the DeviceIDs that the flat device table holds (rounded
    up to 64 KiB pages), ``id_bits`` the INTID bits, ``queue`` is the command queue in bytes (a multiple of 64 KiB)."""

    devices: int = 8192
    id_bits: int = 14
    queue: int = PAGE
    timeout: float = TIMEOUT


@dataclass(slots=True, frozen=True)
class MappedDevice:
    """One device as the driver mapped it: address of its ITT and bytes of it, number of EventID bits."""

    itt: int
    size: int
    bits: int


@dataclass(slots=True, frozen=True)
class MappedEvent:
    """One event as the driver mapped it."""

    device: int
    event: int
    intid: int
    vcpu: int


@dataclass(slots=True)
class TableState:
    """What the ITS said about itself: bytes of an ITT entry, EventID bits; and the DeviceIDs that its table holds."""

    itt_entry: int = 0
    event_bits: int = 0
    devices: int = 0


class ItsDriver:
    """Driver of one ITS and the LPI tables of ``cpus`` redistributors. Collection n is vCPU n.

    ``allocate`` gives the memory of every table. Calls may overlap: their commands are queued in the order in which
    they change what is mapped, and nobody waits for another's to run. Each raises CallError: ETIMEDOUT when the ITS
    does not take a batch in time, ENXIO when it lacks what is needed.
    """

    __slots__ = (
        "_allocate", "_config", "_cpus", "_device_ids", "_devices", "_event_keys", "_events", "_layout", "_memory",
        "_mmio", "_mutex", "_pending", "_queue", "_state", "_tables", "_world", "stats",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        mmio: Mmio,
        memory: Memory,
        allocate: Allocate,
        *,
        cpus: int,
        layout: ItsLayout | None = None,
    ) -> None:
        self._world: Final = world
        self._mmio: Final = mmio
        self._memory: Final = memory
        self._allocate: Final = allocate
        self._cpus: Final = cpus
        self._layout: Final = layout or ItsLayout()
        if self._layout.queue % PAGE or not LPI_BASE < 1 << self._layout.id_bits <= 1 << LPI_ID_BITS:
            raise LocalError(f"ITS layout {self._layout}: queue must be whole 64 KiB, id_bits 14 to {LPI_ID_BITS}")
        self.stats: Final = world.new(ItsDriverStats)
        self._state: Final = world.new(TableState)
        self._mutex: Final = world.mutex()
        self._devices: Final[Table[MappedDevice]] = world.table()
        self._events: Final[Table[MappedEvent]] = world.table()
        #: What is mapped, in the order of mapping: DeviceIDs, and keys of ``_events``.
        self._device_ids: Final[Fifo[int]] = world.queue()
        self._event_keys: Final[Fifo[int]] = world.queue()
        #: BASER number → guest address of its table.
        self._tables: Final[Table[int]] = world.table()
        id_bits = self._layout.id_bits
        self._config: Final = allocate(config_table_size(id_bits), PAGE)
        self._pending: Final = tuple(allocate(pending_table_size(id_bits), PAGE) for _ in range(cpus))
        self._queue: Final = CommandQueue(
            world,
            mmio,
            memory,
            allocate(self._layout.queue, PAGE),
            self._layout.queue,
            self._layout.timeout,
            self.stats,
        )

    # --- set-up --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Program redistributors and ITS from reset, and map a collection for every vCPU."""
        size = config_table_size(self._layout.id_bits)
        self._memory.write(self._config, bytes([config_byte(False)]) * size)
        await self._set_up()

    async def restore(self) -> None:
        """Program an ITS that is as after a reset with everything that was mapped so far (Linux: its_restore_enable,
        then each mapping).

        What was pending in the old one is gone; devices send again what was not confirmed.
        """
        self.stats.restores += 1
        await self._set_up()

    async def go_back(self, restore: Callable[[], Awaitable[None]]) -> None:
        """``restore()`` puts a saved ITS in the place of this one; then what was mapped and moved since is so again.

        Raises what ``restore()`` raises; then nothing else has been done.
        """
        async with self._mutex:
            await restore()
            await self._queue.resync()
            commands: list[Command] = []
            for key in self._event_keys:
                event = self._events[key]
                commands += [_mapti(event), Command(op.MOVI, device=event.device, event=event.event, icid=event.vcpu)]
            for vcpu in range(self._cpus):
                commands += [Command(op.INVALL, icid=vcpu), Command(op.SYNC, rdbase=vcpu)]
            await self._queue.run(commands)

    async def _set_up(self) -> None:
        async with self._mutex:
            await self._program()
            commands = [Command(op.MAPC, icid=vcpu, rdbase=vcpu, valid=1) for vcpu in range(self._cpus)]
            for device in self._device_ids:
                mapped = self._devices[device]
                size = (1 << mapped.bits) * self._state.itt_entry
                if size > mapped.size:  # another ITS, with larger entries
                    mapped = self._devices[device] = MappedDevice(self._allocate(size, ITT_ALIGN), size, mapped.bits)
                self._memory.write(mapped.itt, bytes(size))
                commands.append(_mapd(device, mapped, 1))
            commands.extend(_mapti(self._events[key]) for key in self._event_keys)
            for vcpu in range(self._cpus):
                commands.append(Command(op.INVALL, icid=vcpu))
                commands.append(Command(op.SYNC, rdbase=vcpu))
            await self._queue.run(commands)

    async def _find_redistributors(self) -> None:
        """Each vCPU must have one (Linux: gic_iterate_rdists)."""
        for vcpu in range(self._cpus - 1):
            if await self._mmio.read(f"gicr{vcpu}", GICR_TYPER, 8) & GICR_TYPER_LAST:
                raise CallError("GICR_TYPER", ENXIO, f"{vcpu + 1} redistributors for {self._cpus} vCPUs")

    async def _program(self) -> None:
        await self._find_redistributors()
        write = self._mmio.write
        await write("gicd", GICD_CTLR, 4, GICD_CTLR_ARE | GICD_CTLR_GRP1 | GICD_CTLR_GRP0)
        await write("its", GITS_CTLR, 4, 0)
        deadline = self._world.deadline(self._layout.timeout)
        while not await self._mmio.read("its", GITS_CTLR, 4) & CTLR_QUIESCENT:
            if deadline.expired:
                raise CallError("GITS_CTLR", ETIMEDOUT, "the ITS does not become quiescent")
            await self._world.relax()
        deadline.cancel()
        id_bits = self._layout.id_bits
        for vcpu in range(self._cpus):
            frame = f"gicr{vcpu}"
            pending = self._pending[vcpu]
            self._memory.write(pending, bytes(pending_table_size(id_bits)))
            config = PROPBASER_ADDR.put(self._config) | PROPBASER_ID_BITS.put(id_bits - 1) | ATTRIBUTES_RD
            await write(frame, GICR_CTLR, 4, 0)
            await write(frame, GICR_PROPBASER, 8, config)
            await write(frame, GICR_PENDBASER, 8, PENDBASER_ADDR.put(pending) | PENDBASER_PTZ | ATTRIBUTES_RD)
            await write(frame, GICR_CTLR, 4, GICR_CTLR_ENABLE_LPIS)
        typer = await self._mmio.read("its", GITS_TYPER, 8)
        if not typer & TYPER_PHYSICAL:
            raise CallError("GITS_TYPER", ENXIO, "no physical LPIs")
        state = self._state
        state.itt_entry = TYPER_ITT_ENTRY_SIZE.get(typer) + 1
        state.event_bits = TYPER_ID_BITS.get(typer) + 1
        state.devices = 0
        for n in range(GITS_BASERS):
            await self._program_table(n, TYPER_DEVBITS.get(typer) + 1)
        await self._queue.program()
        await write("its", GITS_CTLR, 4, CTLR_ENABLED)
        if not await self._mmio.read("its", GITS_CTLR, 4) & CTLR_ENABLED:
            raise CallError("GITS_CTLR", ENXIO, "the ITS does not enable")

    async def _program_table(self, n: int, device_bits: int) -> None:
        """Give BASER ``n`` a flat, zeroed table if the ITS wants one (Linux: its_alloc_tables)."""
        offset = GITS_BASER + 8 * n
        baser = await self._mmio.read("its", offset, 8)
        entry = BASER_ENTRY_SIZE.get(baser) + 1
        kind = BASER_TYPE.get(baser)
        if kind == TYPE_DEVICES:
            count = min(1 << device_bits, self._layout.devices)
        elif kind == TYPE_COLLECTIONS:
            count = self._cpus
        else:
            return
        pages = min(-(-count * entry // PAGE), BASER_PAGES.limit + 1)
        table = self._tables.get(n)
        if table is None:
            table = self._tables[n] = self._allocate(pages * PAGE, PAGE)
        self._memory.write(table, bytes(pages * PAGE))
        await self._mmio.write("its", offset, 8, 0)
        value = BASER_VALID | baser_with_address(table) | BASER_PAGE_SIZE.put(BASER_PAGE_64K)
        await self._mmio.write("its", offset, 8, value | BASER_PAGES.put(pages - 1) | ATTRIBUTES_ITS)
        if kind == TYPE_DEVICES:
            self._state.devices = min(1 << device_bits, pages * PAGE // entry)

    # --- mappings ------------------------------------------------------------------------------------------------

    async def map_device(self, device: int, events: int) -> None:
        """Give ``device`` an ITT for ``events`` events (MAPD). Raises LocalError if it has one, CallError (ENXIO) if
        the ITS has no room for its DeviceID or so many events."""
        bits = max((events - 1).bit_length(), 1)
        async with self._mutex:
            if device in self._devices:
                raise LocalError(f"DeviceID {device:#x} is mapped already")
            if not 0 <= device < self._state.devices or not 0 < events <= 1 << self._state.event_bits:
                raise CallError("MAPD", ENXIO, f"DeviceID {device:#x} with {events} events")
            size = max((1 << bits) * self._state.itt_entry, ITT_ALIGN)
            mapped = MappedDevice(self._allocate(size, ITT_ALIGN), size, bits)
            self._memory.write(mapped.itt, bytes(size))
            self._devices[device] = mapped
            self._device_ids.append(device)
            target = await self._queue.post([_mapd(device, mapped, 1)])
        await self._queue.wait(target)

    async def map_event(self, device: int, event: int, intid: int, vcpu: int) -> None:
        """Map an event to LPI ``intid`` on ``vcpu`` (MAPTI, SYNC). The LPI stays disabled: see :meth:`enable_lpi`.

        Raises LocalError for a device, event, INTID or vCPU that does not exist, or an event that is mapped.
        """
        async with self._mutex:
            mapped = self._devices.get(device)
            key = _key(device, event)
            if mapped is None or not 0 <= event < 1 << mapped.bits or key in self._events:
                raise LocalError(f"DeviceID {device:#x}, EventID {event}: not there, or mapped already")
            if not LPI_BASE <= intid < 1 << self._layout.id_bits:
                raise LocalError(f"INTID {intid} is no LPI of {self._layout.id_bits} bits")
            self._check_vcpu(vcpu)
            mapping = MappedEvent(device, event, intid, vcpu)
            self._events[key] = mapping
            self._event_keys.append(key)
            target = await self._queue.post([_mapti(mapping), Command(op.SYNC, rdbase=vcpu)])
        await self._queue.wait(target)

    async def move_event(self, device: int, event: int, vcpu: int) -> None:
        """Send an event's LPI to another vCPU, pending state included (MOVI, SYNC)."""
        async with self._mutex:
            mapping = self._mapping(device, event)
            self._check_vcpu(vcpu)
            self._events[_key(device, event)] = MappedEvent(device, event, mapping.intid, vcpu)
            move = Command(op.MOVI, device=device, event=event, icid=vcpu)
            target = await self._queue.post([move, Command(op.SYNC, rdbase=mapping.vcpu)])
        await self._queue.wait(target)

    async def unmap_event(self, device: int, event: int) -> None:
        """Forget an event, pending state included (DISCARD, SYNC)."""
        async with self._mutex:
            mapping = self._mapping(device, event)
            self._events.pop(_key(device, event))
            self._event_keys.remove(_key(device, event))
            target = await self._queue.post([
                Command(op.DISCARD, device=device, event=event), Command(op.SYNC, rdbase=mapping.vcpu),
            ])  # fmt: skip
        await self._queue.wait(target)

    async def unmap_device(self, device: int) -> None:
        """Forget a device and all its events (MAPD with V = 0). Its ITT memory is not used again."""
        async with self._mutex:
            mapped = self._devices.get(device)
            if mapped is None:
                raise LocalError(f"DeviceID {device:#x} is not mapped")
            for key in [key for key in self._event_keys if key >> 32 == device]:
                self._event_keys.remove(key)
                self._events.pop(key)
            self._devices.pop(device)
            self._device_ids.remove(device)
            target = await self._queue.post([_mapd(device, mapped, 0)])
        await self._queue.wait(target)

    async def enable_lpi(self, device: int, event: int, enabled: bool = True) -> None:
        """Write the configuration byte of the event's LPI and make the ITS read it (INV, SYNC)."""
        async with self._mutex:
            mapping = self._mapping(device, event)
            self._memory.write(self._config + mapping.intid - LPI_BASE, bytes([config_byte(enabled)]))
            target = await self._queue.post(_inv(mapping))
        await self._queue.wait(target)

    async def inv(self, device: int, event: int) -> None:
        """Make the ITS read the configuration byte of the event's LPI again (INV, SYNC)."""
        async with self._mutex:
            target = await self._queue.post(_inv(self._mapping(device, event)))
        await self._queue.wait(target)

    async def invall(self, vcpu: int) -> None:
        """Make the ITS read the configuration of every LPI of ``vcpu`` again (INVALL, SYNC)."""
        async with self._mutex:
            self._check_vcpu(vcpu)
            target = await self._queue.post([Command(op.INVALL, icid=vcpu), Command(op.SYNC, rdbase=vcpu)])
        await self._queue.wait(target)

    async def raise_event(self, device: int, event: int) -> None:
        """Make the event's LPI pending by command (INT, SYNC): a test of the path without the device."""
        await self._on_event(op.INT, device, event)

    async def clear_event(self, device: int, event: int) -> None:
        """Make the event's LPI not pending (CLEAR, SYNC)."""
        await self._on_event(op.CLEAR, device, event)

    async def movall(self, source: int, target: int) -> None:
        """Move what is pending on one vCPU to another (MOVALL, SYNC of both). Mappings stay as they are."""
        async with self._mutex:
            self._check_vcpu(source)
            self._check_vcpu(target)
            end = await self._queue.post([
                Command(op.MOVALL, rdbase=source, rdbase2=target),
                Command(op.SYNC, rdbase=source), Command(op.SYNC, rdbase=target),
            ])  # fmt: skip
        await self._queue.wait(end)

    async def sync(self, vcpu: int = 0) -> None:
        """Everything before has taken effect at this vCPU's redistributor (SYNC)."""
        async with self._mutex:
            self._check_vcpu(vcpu)
            target = await self._queue.post([Command(op.SYNC, rdbase=vcpu)])
        await self._queue.wait(target)

    async def _on_event(self, opcode: int, device: int, event: int) -> None:
        async with self._mutex:
            mapping = self._mapping(device, event)
            command = Command(opcode, device=device, event=event)
            target = await self._queue.post([command, Command(op.SYNC, rdbase=mapping.vcpu)])
        await self._queue.wait(target)

    def _mapping(self, device: int, event: int) -> MappedEvent:
        mapping = self._events.get(_key(device, event))
        if mapping is None:
            raise LocalError(f"DeviceID {device:#x}, EventID {event} is not mapped")
        return mapping

    def _check_vcpu(self, vcpu: int) -> None:
        if not 0 <= vcpu < self._cpus:
            raise LocalError(f"vCPU {vcpu} is none of {self._cpus}")


def _key(device: int, event: int) -> int:
    return device << 32 | event


def _mapd(device: int, mapped: MappedDevice, valid: int) -> Command:
    return Command(op.MAPD, device=device, size=mapped.bits - 1, itt=mapped.itt, valid=valid)


def _mapti(mapping: MappedEvent) -> Command:
    return Command(op.MAPTI, device=mapping.device, event=mapping.event, intid=mapping.intid, icid=mapping.vcpu)


def _inv(mapping: MappedEvent) -> list[Command]:
    return [Command(op.INV, device=mapping.device, event=mapping.event), Command(op.SYNC, rdbase=mapping.vcpu)]
