"""A saved ITS: registers of the distributor, the redistributors and the ITS, and the guest memory that belongs to them.

What KVM's device attributes give a VMM (Linux Documentation/virt/kvm/devices/arm-vgic-its.rst). A file is one msgpack
map, compressed as gzip does:

========= ============================================================================================================
version   1
profile   ``kvm`` or ``qemu``: whose layout the tables have
cpus      redistributors
dist      register → value: GICD_CTLR
redists   the same for each redistributor: GICR_CTLR, GICR_WAKER, GICR_PROPBASER, GICR_PENDBASER
its       the same: GITS_CTLR, GITS_IIDR, GITS_TYPER, GITS_CBASER, GITS_CWRITER, GITS_CREADR, GITS_BASER0 to 7
memory    ``[[address, bytes], …]`` by rising address: tables, ITTs, the command queue, LPI configuration and pending
========= ============================================================================================================

A file is untrusted: :func:`decode` refuses what does not fit with a RemoteError that names field and limit. What the
tables in ``memory`` say is not looked at here; whoever restores them checks it, as KVM does.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Literal

import msgspec

from common.errors import MemoryFaultError, RemoteError
from common.gic.entries import ENTRY_SIZE
from common.gic.lpi import LPI_ID_BITS, config_table_size, pending_table_size
from common.gic.registers import (
    BASER_TYPE,
    CBASER_ADDR,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    GICD_CTLR,
    GICR_CTLR,
    GICR_CTLR_ENABLE_LPIS,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_WAKER,
    GITS_BASER,
    GITS_BASERS,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_TYPER,
    PENDBASER_ADDR,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
)
from common.gic.table_layout import LAYOUTS, Layout
from common.gic.table_shape import EVENT_BITS, Piece, Read, level1, pieces, shape, used
from common.gic.vmm_ops import GET_DIST_REG, GET_ITS_REG, GET_REDIST_REG

VERSION: Final = 1
#: Most bytes of a file, uncompressed.
MAX_FILE: Final = 64 << 20
#: Of zlib: the format of gzip.
_GZIP: Final = 31
#: Most ranges of memory: each of 65536 devices may have an ITT of its own, and some more.
MAX_RANGES: Final = 1 << 17
MAX_CPUS: Final = 512
#: One past the largest address: 52 bits, as the registers hold.
ADDRESS_LIMIT: Final = 1 << 52
#: Addresses and lengths of ranges are multiples of the smallest entry.
ALIGNMENT: Final = 8

#: Registers by name → offset in their frame.
DIST_REGISTERS: Final = {"GICD_CTLR": GICD_CTLR}
REDIST_REGISTERS: Final = {
    "GICR_CTLR": GICR_CTLR,
    "GICR_WAKER": GICR_WAKER,
    "GICR_PROPBASER": GICR_PROPBASER,
    "GICR_PENDBASER": GICR_PENDBASER,
}
ITS_REGISTERS: Final = {
    "GITS_CTLR": GITS_CTLR,
    "GITS_IIDR": GITS_IIDR,
    "GITS_TYPER": GITS_TYPER,
    "GITS_CBASER": GITS_CBASER,
    "GITS_CWRITER": GITS_CWRITER,
    "GITS_CREADR": GITS_CREADR,
    **{f"GITS_BASER{n}": GITS_BASER + 8 * n for n in range(GITS_BASERS)},
}
#: Those of 32 bits; the others have 64.
_NARROW: Final = frozenset({"GICD_CTLR", "GICR_CTLR", "GICR_WAKER", "GITS_CTLR", "GITS_IIDR"})


class SavedIts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One ITS with its redistributors, as the module's docstring says; addresses and lengths in bytes."""

    version: int = VERSION
    profile: Literal["kvm", "qemu"]
    cpus: int
    dist: dict[str, int]
    redists: list[dict[str, int]]
    its: dict[str, int]
    memory: list[tuple[int, bytes]]


Get = Callable[..., Awaitable[int]]
"""``(op, *arguments)`` → value: an operation of :mod:`common.gic.vmm_ops`."""

Registers = dict[str, int]


async def read_registers(get: Get, cpus: int) -> tuple[Registers, list[Registers], Registers]:
    """``dist``, ``redists`` and ``its`` of a :class:`SavedIts`, from an ITS whose vCPUs are stopped."""
    dist = {name: await get(GET_DIST_REG, at) for name, at in DIST_REGISTERS.items()}
    redists = [
        {name: await get(GET_REDIST_REG, vcpu, at) for name, at in REDIST_REGISTERS.items()} for vcpu in range(cpus)
    ]
    return dist, redists, {name: await get(GET_ITS_REG, at) for name, at in ITS_REGISTERS.items()}


_decoder: Final = msgspec.msgpack.Decoder(SavedIts)
_WHERE: Final = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)


def encode(saved: SavedIts) -> bytes:
    """The file. Raises RemoteError for what :func:`decode` would refuse: registers and tables are the guest's."""
    check(saved)
    data = msgspec.msgpack.encode(saved)
    if len(data) > MAX_FILE:
        raise RemoteError("file", len(data), MAX_FILE, "too many bytes of tables")
    return zlib.compress(data, wbits=_GZIP)


def decode(file: bytes) -> SavedIts:
    """What a file holds. Raises RemoteError, with the field and its limit, for what is no saved ITS."""
    data = _expand(file)
    try:
        saved = _decoder.decode(data)
    except ValueError as error:  # every msgspec error is one
        where = _WHERE.fullmatch(str(error))
        field, reason = (where["field"], where["reason"]) if where else ("file", str(error))
        raise RemoteError(field or "file", None, None, f"{reason}: not the saved state of an ITS") from None
    check(saved)
    return saved


def _expand(file: bytes) -> bytes:
    """Uncompressed. Raises RemoteError where there is too much of it, or not all."""
    expander = zlib.decompressobj(_GZIP)
    try:
        data = expander.decompress(file, MAX_FILE + 1)
    except zlib.error:
        raise RemoteError("file", None, None, "not gzip: not the saved state of an ITS") from None
    if len(data) > MAX_FILE:
        raise RemoteError("file", None, MAX_FILE, "more bytes than that, uncompressed")
    if not expander.eof:
        raise RemoteError("file", len(file), None, "cut off")
    if expander.unused_data:
        raise RemoteError("file", len(file), len(file) - len(expander.unused_data), "bytes behind the end")
    return data


def check(saved: SavedIts) -> None:
    """Raise RemoteError, with the field and its limit, for a value out of range, a register that is unknown or
    missing, and memory that is misaligned, too much, not in order or overlapping."""
    if saved.version != VERSION:
        raise RemoteError("version", saved.version, VERSION)
    if not 1 <= saved.cpus <= MAX_CPUS:
        raise RemoteError("cpus", saved.cpus, MAX_CPUS, "1 is the least")
    if len(saved.redists) != saved.cpus:
        raise RemoteError("redists", len(saved.redists), saved.cpus, "one for each of `cpus` is wanted")
    _check_registers("dist", saved.dist, DIST_REGISTERS)
    _check_registers("its", saved.its, ITS_REGISTERS)
    for index, redist in enumerate(saved.redists):
        _check_registers(f"redists[{index}]", redist, REDIST_REGISTERS)
    _check_memory(saved.memory)


def _check_registers(place: str, values: dict[str, int], known: Mapping[str, int]) -> None:
    for name, value in values.items():
        if name not in known:
            raise RemoteError(place, name[:32], None, f"unknown register; there is {', '.join(known)}")
        width = 32 if name in _NARROW else 64
        if not 0 <= value < 1 << width:
            raise RemoteError(f"{place}.{name}", value, (1 << width) - 1)
    for name in known:
        if name not in values:
            raise RemoteError(f"{place}.{name}", None, None, "missing")


def _check_memory(memory: list[tuple[int, bytes]]) -> None:
    if len(memory) > MAX_RANGES:
        raise RemoteError("memory", len(memory), MAX_RANGES, "too many ranges")
    end = 0
    for index, (addr, data) in enumerate(memory):
        field = f"memory[{index}]"
        if addr % ALIGNMENT:
            raise RemoteError(f"{field} address", hex(addr), ALIGNMENT, "misaligned")
        if not data or len(data) % ALIGNMENT:
            raise RemoteError(f"{field} length", len(data), ALIGNMENT, "a positive multiple is wanted")
        if addr < end:
            raise RemoteError(f"{field} address", hex(addr), hex(end), "below the end of the range before it")
        end = addr + len(data)
        if end > ADDRESS_LIMIT:
            raise RemoteError(f"{field} end", hex(end), hex(ADDRESS_LIMIT))


def reader(memory: list[tuple[int, bytes]]) -> Read:
    """Reads of saved memory; what was not saved raises MemoryFaultError. An access may span ranges that meet."""
    starts = [addr for addr, _ in memory]

    def read(addr: int, length: int) -> bytes:
        found = bytearray()
        at = max(bisect_right(starts, addr) - 1, 0)
        while len(found) < length:
            start, data = memory[at] if at < len(memory) else (addr + length, b"")
            offset = addr + len(found) - start
            if not 0 <= offset < len(data):
                raise MemoryFaultError("addr", hex(addr), None, f"{length} bytes are not in the saved memory")
            found += data[offset : offset + length - len(found)]
            at += 1
        return bytes(found)

    return read


def table_ranges(saved: SavedIts, read: Read) -> list[tuple[int, int]]:
    """The guest memory that the ITS with these registers needs to go on elsewhere: ``(address, length)`` by rising
    address, without overlap. ``saved.memory`` is not looked at; ``read`` reads the memory of the guest.

    Device and collection table with their second levels, the ITTs of mapped devices, the command queue, configuration
    and pending tables of LPIs. What ``read`` faults on is left out; every range that is returned reads in one piece.
    """
    found: list[tuple[int, int]] = []
    for baser in (saved.its[f"GITS_BASER{n}"] for n in range(GITS_BASERS)):
        table, kind = shape(baser), BASER_TYPE.get(baser)
        if table is not None and kind in (TYPE_DEVICES, TYPE_COLLECTIONS):
            found.append(level1(table)[1:])
            for piece in pieces(table, read, lambda _addr: None):
                found.append(piece[1:])
                if kind == TYPE_DEVICES:
                    found += _itts(LAYOUTS[saved.profile], piece, read)
    cbaser = saved.its["GITS_CBASER"]
    if cbaser & CBASER_VALID:
        found.append((CBASER_ADDR.get(cbaser), (CBASER_PAGES.get(cbaser) + 1) * CBASER_PAGE))
    for redist in saved.redists:
        found += lpi_tables(redist)
    return [part for addr, length in _joined(found) for part in _readable(addr, length, read)]


def lpi_tables(redist: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Address and length of the configuration table and of the pending table of a redistributor with these registers;
    none where it was given none, or where PROPBASER.IDbits leaves no room for LPIs."""
    prop, pend = redist["GICR_PROPBASER"], redist["GICR_PENDBASER"]
    bits = min(PROPBASER_ID_BITS.get(prop) + 1, LPI_ID_BITS)
    given = redist["GICR_CTLR"] & GICR_CTLR_ENABLE_LPIS or (PROPBASER_ADDR.get(prop) and PENDBASER_ADDR.get(pend))
    if not given or not config_table_size(bits):
        return ()
    config = PROPBASER_ADDR.get(prop), config_table_size(bits)
    return config, (PENDBASER_ADDR.get(pend), pending_table_size(bits))


def _itts(layout: Layout, piece: Piece, read: Read) -> Iterator[tuple[int, int]]:
    """The ITTs of the valid entries of a piece of the device table."""
    try:
        data = read(piece.addr, piece.length)
    except MemoryFaultError:
        return
    for _at, each in used(data, ENTRY_SIZE):
        entry = layout.dte(each)
        if entry.valid and entry.bits <= EVENT_BITS:
            yield entry.itt, layout.itt_entry << entry.bits


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """``ranges`` by rising address; those that overlap are one."""
    start = end = 0
    for addr, length in sorted(ranges):
        if addr >= end:
            if end > start:
                yield start, end - start
            start = addr
        end = max(end, addr + length)
    if end > start:
        yield start, end - start


def _readable(addr: int, length: int, read: Read) -> Iterator[tuple[int, int]]:
    """The range, or those of its 4 KiB pages that are there."""
    try:
        read(addr, length)
    except MemoryFaultError:
        for at in range(addr, addr + length, CBASER_PAGE):
            left = min(CBASER_PAGE, addr + length - at)
            with suppress(MemoryFaultError):
                read(at, left)
                yield at, left
    else:
        yield addr, length
