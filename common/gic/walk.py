"""What an ITS has mapped, read from the tables in guest memory as somebody who restores them would read them.

:func:`walk` gives devices, events, collections, what is pending and where the command queue stands. The tables are the
guest's and untrusted: what makes no sense in them becomes a :class:`Finding` with its address, never an exception, and
the work is bounded whatever they say.

KVM's tables are lists (``next``; Documentation/virt/kvm/devices/arm-vgic-its.rst): entries that no list reaches are not
restored, so they are a finding, unless ``everything`` asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from common.errors import MemoryFaultError
from common.gic.commands import COMMAND_SIZE, SPEC, decode
from common.gic.entries import ENTRY_SIZE, NOT_MAPPED, Dte, Ite
from common.gic.lpi import CONFIG_ENABLE, CONFIG_PRIORITY, LPI_BASE, LPI_LIMIT, pending_intids
from common.gic.registers import (
    BASER_TYPE,
    CBASER_ADDR,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    CREADR_STALLED,
    CTLR_ENABLED,
    GITS_BASERS,
    QUEUE_OFFSET,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
)
from common.gic.saved import SavedIts, lpi_tables, reader
from common.gic.table_layout import LAYOUTS
from common.gic.table_shape import EVENT_BITS, Piece, Read, Shape, pieces, shape, used

#: Most findings that are kept; the rest is counted.
MAX_FINDINGS: Final = 100
#: Most events, and most bytes of ITTs, that are looked at.
MAX_EVENTS: Final = 1 << 17
MAX_ITT_BYTES: Final = 32 << 20
#: Waiting commands that are shown.
MAX_COMMANDS: Final = 8
#: Entries of an ITT that are read at once.
_CHUNK: Final = 4096


class Finding(msgspec.Struct, frozen=True):
    """Something that makes no sense, or could not be read, at this guest address."""

    address: int
    reason: str


class Event(msgspec.Struct):
    """An event of a device. ``vcpu`` is None where its collection is not mapped; ``enabled`` and ``priority`` (the
    LPI's configuration byte, IHI 0069 §5.1.1) are None where that cannot be read; ``pending`` is at ``vcpu``."""

    event: int
    intid: int
    icid: int
    vcpu: int | None
    enabled: bool | None
    priority: int | None
    pending: bool


class Device(msgspec.Struct):
    """A mapped device: address of its ITT, width of its EventIDs in bits."""

    device: int
    itt: int
    bits: int
    events: list[Event]


class Collection(msgspec.Struct):
    """``vcpu`` is None where the collection is in use but not mapped."""

    icid: int
    vcpu: int | None


class Queue(msgspec.Struct):
    """The command queue; ``size``, ``creadr`` and ``cwriter`` in bytes. ``waiting`` counts commands, ``commands`` are
    the next of them in words."""

    address: int
    size: int
    creadr: int
    cwriter: int
    stalled: bool
    waiting: int
    commands: list[str]


class Walk(msgspec.Struct):
    """What :func:`walk` found. ``pending[vcpu]`` are INTIDs; ``queue`` is None where GITS_CBASER is not valid;
    ``more_findings`` were not kept."""

    profile: str
    cpus: int
    enabled: bool
    queue: Queue | None
    devices: list[Device]
    collections: list[Collection]
    pending: list[list[int]]
    findings: list[Finding]
    more_findings: int = 0


def walk(saved: SavedIts, read: Read | None = None, *, everything: bool = False) -> Walk:
    """What the ITS with these registers has mapped. ``read`` reads the memory of the guest; None: what was saved.

    ``everything``: look at all entries of KVM's tables, not only at those that a restore would find.
    """
    return _Walker(saved, reader(saved.memory) if read is None else read, everything).walk


class _Walker:
    def __init__(self, saved: SavedIts, read: Read, everything: bool) -> None:
        self._saved: Final = saved
        self._read: Final = read
        self._layout: Final = LAYOUTS[saved.profile]
        self._chained: Final = self._layout.chained and not everything
        self._places: Final[dict[int, int | None]] = {}
        self._itt_bytes = 0
        self._events = 0
        enabled = bool(saved.its["GITS_CTLR"] & CTLR_ENABLED)
        self.walk: Final = Walk(saved.profile, saved.cpus, enabled, None, [], [], [], [])
        self.walk.queue = self._queue()
        tables = [(BASER_TYPE.get(value), shape(value)) for value in map(self._baser, range(GITS_BASERS))]
        self._tables(tables, TYPE_COLLECTIONS)
        self._configs, pending = self._lpi_tables()
        self.walk.pending = pending
        self._pending: Final = [frozenset(intids) for intids in pending]
        self._tables(tables, TYPE_DEVICES)

    def _baser(self, index: int) -> int:
        return self._saved.its[f"GITS_BASER{index}"]

    def _tables(self, tables: list[tuple[int, Shape | None]], kind: int) -> None:
        """Walk what is there of one kind, collections or devices."""
        for each, table in tables:
            if each != kind or table is None:
                continue
            if table.entry != ENTRY_SIZE:
                self._find(table.addr, f"entries of {table.entry} bytes in GITS_BASER, not {ENTRY_SIZE}")
            self._collections(table) if kind == TYPE_COLLECTIONS else self._devices(table)

    def _find(self, address: int, reason: str) -> None:
        if len(self.walk.findings) < MAX_FINDINGS:
            self.walk.findings.append(Finding(address, reason))
        else:
            self.walk.more_findings += 1

    def _bytes(self, addr: int, length: int, what: str) -> bytes | None:
        """Guest memory; None, and a finding, where it cannot be read."""
        try:
            return self._read(addr, length)
        except MemoryFaultError:
            self._find(addr, f"{what}: {length} bytes are not in memory")
            return None

    def _pieces(self, table: Shape, what: str) -> Iterator[tuple[Piece, bytes]]:
        def fault(addr: int) -> None:
            self._find(addr, f"{what}, level 1: not in memory")

        for piece in pieces(table, self._read, fault):
            data = self._bytes(piece.addr, piece.length, what)
            if data is not None:
                yield piece, data

    # --- collections ----------------------------------------------------------------------------------------------

    def _collections(self, table: Shape) -> None:
        following = 0
        for piece, data in self._pieces(table, "collection table"):
            for at, each in used(data, ENTRY_SIZE):
                entry = self._layout.cte(each, piece.first + at)
                if self._chained and (piece.first + at != following or not entry.valid):
                    return  # the list has ended
                if entry.valid:
                    self._collection(entry.icid, entry.rdbase, piece.addr + at * ENTRY_SIZE)
                following += 1

    def _collection(self, icid: int, rdbase: int, addr: int) -> None:
        vcpu = rdbase if rdbase < self._saved.cpus else None
        if vcpu is None and rdbase != NOT_MAPPED:
            self._find(addr, f"collection {icid}: there is no PE {rdbase}, of {self._saved.cpus}")
        if icid in self._places:
            self._find(addr, f"collection {icid}: there are two of this ICID")
            return
        self._places[icid] = vcpu
        self.walk.collections.append(Collection(icid, vcpu))

    # --- devices and their events ---------------------------------------------------------------------------------

    def _devices(self, table: Shape) -> None:
        chain = _Chain(self._chained)
        for piece, data in self._pieces(table, "device table"):
            if table.indirect:
                chain.enter(piece.first)  # a list goes on at the start of the next valid page
            for at, each in used(data, ENTRY_SIZE):
                entry, addr = self._layout.dte(each), piece.addr + at * ENTRY_SIZE
                if entry.valid and chain.reaches(piece.first + at, entry.next, addr):
                    self._device(piece.first + at, entry, addr)
        self._unreached(chain, "devices")

    def _device(self, number: int, entry: Dte, addr: int) -> None:
        device = Device(number, entry.itt, entry.bits, [])
        self.walk.devices.append(device)
        size = self._layout.itt_entry << entry.bits
        if entry.bits > EVENT_BITS:
            self._find(addr, f"device {number:#x}: EventIDs of {entry.bits} bits, of at most {EVENT_BITS}")
            return
        if self._itt_bytes + size > MAX_ITT_BYTES:
            self._find(addr, f"device {number:#x}: its ITT is not looked at, they have more than {MAX_ITT_BYTES} bytes")
            return
        self._itt_bytes += size
        chain = _Chain(self._chained)
        for event, ite, at in self._itt(device, size):
            if chain.reaches(event, ite.next, at):
                if self._events == MAX_EVENTS:
                    self._find(at, f"device {number:#x}: more than {MAX_EVENTS} events, the others are not looked at")
                    return
                self._event(device, event, ite, at)
        self._unreached(chain, f"events of device {number:#x}")

    def _itt(self, device: Device, size: int) -> Iterator[tuple[int, Ite, int]]:
        """EventID, entry and address of the valid entries of an ITT of ``size`` bytes."""
        step = self._layout.itt_entry
        for start in range(0, size, _CHUNK * step):
            length = min(_CHUNK * step, size - start)
            data = self._bytes(device.itt + start, length, f"device {device.device:#x}: ITT")
            for at, entry in used(data or b"", step):
                ite = self._layout.ite(entry)
                if ite is not None:
                    yield start // step + at, ite, device.itt + start + at * step

    def _event(self, device: Device, number: int, ite: Ite, addr: int) -> None:
        where = f"device {device.device:#x} event {number}"
        if not LPI_BASE <= ite.intid < LPI_LIMIT:
            self._find(addr, f"{where}: INTID {ite.intid} is no LPI, {LPI_BASE} to {LPI_LIMIT - 1}")
        if number + ite.next >= 1 << device.bits:
            self._find(addr, f"{where}: the next is {ite.next} further, past the ITT of {1 << device.bits} events")
        if ite.icid not in self._places:
            self._find(addr, f"{where}: there is no collection {ite.icid}")
        self._events += 1
        vcpu = self._places.get(ite.icid)
        config = self._config(vcpu or 0, ite.intid)
        enabled, priority = (None, None) if config is None else (bool(config & CONFIG_ENABLE), config & CONFIG_PRIORITY)
        pending = vcpu is not None and ite.intid in self._pending[vcpu]
        device.events.append(Event(number, ite.intid, ite.icid, vcpu, enabled, priority, pending))

    def _unreached(self, chain: _Chain, what: str) -> None:
        if chain.missed:
            self._find(chain.first_missed, f"{chain.missed} valid {what} that no `next` leads to: not restored")

    # --- LPIs -----------------------------------------------------------------------------------------------------

    def _lpi_tables(self) -> tuple[list[bytes], list[list[int]]]:
        """By vCPU: the configuration table, what is pending. Redistributors mostly share the first."""
        configs: list[bytes] = []
        pending: list[list[int]] = []
        read: dict[tuple[int, int], bytes] = {}
        for vcpu, redist in enumerate(self._saved.redists):
            tables = lpi_tables(redist)
            if not tables:
                configs.append(b"")
                pending.append([])
                continue
            config, (addr, length) = tables
            if config not in read:
                read[config] = self._bytes(*config, f"vCPU {vcpu}: LPI configuration table") or b""
            configs.append(read[config])
            table = self._bytes(addr, length, f"vCPU {vcpu}: LPI pending table") or b""
            pending.append(pending_intids(table[LPI_BASE // 8 :]))
        return configs, pending

    def _config(self, vcpu: int, intid: int) -> int | None:
        table = self._configs[vcpu]
        return table[intid - LPI_BASE] if 0 <= intid - LPI_BASE < len(table) else None

    # --- the command queue ----------------------------------------------------------------------------------------

    def _queue(self) -> Queue | None:
        its = self._saved.its
        base, creadr, cwriter = its["GITS_CBASER"], its["GITS_CREADR"], its["GITS_CWRITER"]
        if not base & CBASER_VALID:
            return None
        size = (CBASER_PAGES.get(base) + 1) * CBASER_PAGE
        stalled = bool(creadr & CREADR_STALLED)
        queue = Queue(CBASER_ADDR.get(base), size, creadr & QUEUE_OFFSET, cwriter & QUEUE_OFFSET, stalled, 0, [])
        for name, offset in (("GITS_CREADR", queue.creadr), ("GITS_CWRITER", queue.cwriter)):
            if offset >= size:
                self._find(queue.address, f"{name} = {offset:#x} is past the queue of {size:#x} bytes")
                return queue
        queue.waiting = (queue.cwriter - queue.creadr) % size // COMMAND_SIZE
        for index in range(min(queue.waiting, MAX_COMMANDS)):
            data = self._bytes(queue.address + (queue.creadr + index * COMMAND_SIZE) % size, COMMAND_SIZE, "command")
            if data is None:
                break
            queue.commands.append(_in_words(data))
        return queue


class _Chain:
    """What following ``next`` comes by. Entries are asked about by rising ID, only valid ones: a reader steps over
    the others one by one."""

    __slots__ = ("_at", "_followed", "first_missed", "missed")

    def __init__(self, followed: bool) -> None:
        self._followed: Final = followed
        self._at: int | None = 0
        self.missed = 0
        self.first_missed = 0

    def enter(self, number: int) -> None:
        """Go on at this ID, unless the last entry was passed."""
        if self._at is not None:
            self._at = number

    def reaches(self, number: int, offset: int, addr: int) -> bool:
        """Is the valid entry of this ID come by? Its ``next`` says ``offset``; it lies at ``addr``."""
        if not self._followed:
            return True
        if self._at is None or number < self._at:
            self.first_missed = self.first_missed or addr
            self.missed += 1
            return False
        self._at = number + offset if offset else None
        return True


def _in_words(data: bytes) -> str:
    command = decode(data)
    spec = SPEC.get(command.op)
    if spec is None:
        return f"unknown {command.op:#04x}"
    return " ".join([spec.name, *(f"{name}={getattr(command, name):#x}" for name, _, _ in spec.fields)])
