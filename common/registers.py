"""Register maps as tables: one row a register.

A :class:`RegisterMap` is data: it checks itself when it is made (import time), and its rows drive the reference page
and the tests of reserved bits and read-only registers. A :class:`RegisterFile` holds the values of one instance and
calls the owner's hooks by name. Neither waits: an access is a plain function. Where taking effect needs waiting (a
command queue read by DMA), the row says ``waits`` and the owner wraps the access.

Access rules: an access is legal where it lies within one register, is aligned to its own size and has a size that the
row allows; halves of 64-bit registers merge into the whole. Every other access is RAZ/WI, as are offsets
without a row. All sizes and offsets are in bytes, widths in bits.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from common.errors import LocalError
from common.world import Array, World

#: Access sizes in bytes that a register takes unless its row says otherwise.
DEFAULT_SIZES: Final = {8: (1,), 16: (2,), 32: (4,), 64: (4, 8)}

ReadHook = Callable[[], int]
"""Gives the whole register's value for a read; may have side effects."""

WriteHook = Callable[[int, int], int | None]
"""``(old, new)`` whole values, read-only bits already kept; returns what to store, None to drop the write."""


class Access(enum.Enum):
    """What software may do with a register (the Arm ARM's terms)."""

    RO = "RO"
    RW = "RW"
    WO = "WO"
    W1C = "W1C"
    RAZ_WI = "RAZ/WI"


@dataclass(slots=True, frozen=True)
class Register:
    """One row.

    ``mask`` has a 1 for each bit that a write may change; by default all bits of RW, WO and W1C registers.
    ``read`` and ``write`` name methods of the owner (:data:`ReadHook`, :data:`WriteHook`). ``waits`` tells the owner
    that a write takes effect only after waiting. ``low_only``: an access narrower than the register reaches its lowest
    bytes only. ``section`` cites the specification.
    """

    offset: int
    name: str
    width: int
    access: Access
    reset: int = 0
    mask: int | None = None
    read: str = ""
    write: str = ""
    waits: bool = False
    sizes: tuple[int, ...] = ()
    low_only: bool = False
    section: str = ""
    doc: str = ""

    @property
    def bytes(self) -> int:
        return self.width // 8

    @property
    def allowed(self) -> tuple[int, ...]:
        """Access sizes in bytes."""
        return self.sizes or DEFAULT_SIZES[self.width]

    @property
    def writable(self) -> int:
        """The bits that a write may change."""
        if self.access in (Access.RO, Access.RAZ_WI):
            return 0
        return (1 << self.width) - 1 if self.mask is None else self.mask

    @property
    def readable(self) -> bool:
        return self.access not in (Access.WO, Access.RAZ_WI)


@dataclass(slots=True, frozen=True)
class Cell:
    """What one legal (offset, size) reaches: ``shift`` bits into the register at ``index`` of the map."""

    register: Register
    index: int
    shift: int
    mask: int


class RegisterMap:
    """The rows of one frame of ``size`` bytes.

    Raises LocalError if a row is misaligned, outside the frame, overlaps another, repeats a name or has a reset value
    or mask wider than itself: a second registration is refused at import.
    """

    __slots__ = ("_indices", "cells", "name", "rows", "size")

    name: Final[str]
    size: Final[int]
    rows: Final[tuple[Register, ...]]
    _indices: Final[Mapping[str, int]]
    #: ``offset << 4 | size`` of every legal access.
    cells: Final[Mapping[int, Cell]]

    def __init__(self, name: str, size: int, rows: Iterable[Register]) -> None:
        self.name = name
        self.size = size
        self.rows = tuple(sorted(rows, key=lambda r: r.offset))
        self._indices = MappingProxyType({row.name: index for index, row in enumerate(self.rows)})
        cells: dict[int, Cell] = {}
        self.cells = MappingProxyType(cells)
        end = 0
        names: set[str] = set()
        for index, row in enumerate(self.rows):
            self._check(row, end, names)
            end = row.offset + row.bytes
            names.add(row.name)
            for width in row.allowed:
                for at in range(0, width if row.low_only else row.bytes, width):
                    cell = Cell(row, index, at * 8, (1 << width * 8) - 1)
                    cells[row.offset + at << 4 | width] = cell

    def _check(self, row: Register, end: int, names: set[str]) -> None:
        where = f"{self.name}.{row.name} at {row.offset:#x}"
        if row.width not in DEFAULT_SIZES:
            raise LocalError(f"{where}: width {row.width} is none of 8, 16, 32, 64")
        if row.offset % row.bytes or row.offset < 0 or row.offset + row.bytes > self.size:
            raise LocalError(f"{where}: misaligned or outside the frame of {self.size:#x} bytes")
        if row.offset < end:
            raise LocalError(f"{where}: overlaps the register before it")
        if row.name in names:
            raise LocalError(f"{where}: the name is taken")
        if max(row.reset, row.mask or 0) >> row.width:
            raise LocalError(f"{where}: reset value or mask wider than {row.width} bits")
        if any(size not in (1, 2, 4, 8) or size > row.bytes for size in row.allowed):
            raise LocalError(f"{where}: access sizes {row.allowed} do not fit {row.bytes} bytes")

    def __iter__(self) -> Iterator[Register]:
        return iter(self.rows)

    def find(self, offset: int, size: int) -> Register | None:
        """The register that this access reaches, None where it is RAZ/WI."""
        cell = self.cells.get(offset << 4 | size)
        return None if cell is None else cell.register

    def row(self, name: str) -> Register:
        """The row called ``name``; raises LocalError if there is none."""
        return self.rows[self.index(name)]

    def index(self, name: str) -> int:
        """Position of the row called ``name``; raises LocalError if there is none."""
        index = self._indices.get(name)
        if index is None:
            raise LocalError(f"{self.name} has no register {name}")
        return index


class RegisterFile:
    """The values of one instance of a map.

    ``owner`` has the methods that the rows name. ``resets`` overrides reset values by name (identification registers
    of a profile). Raises LocalError if a hook or a name is missing.
    """

    __slots__ = ("_cells", "_read", "_resets", "_write", "map", "values")

    map: Final[RegisterMap]
    _cells: Final[Mapping[int, Cell]]
    _read: Final[tuple[ReadHook | None, ...]]
    _write: Final[tuple[WriteHook | None, ...]]
    _resets: Final[tuple[int, ...]]
    values: Final[Array[int]]

    def __init__(
        self, world: World, register_map: RegisterMap, owner: object, resets: Mapping[str, int] | None = None
    ) -> None:
        self.map = register_map
        self._cells = register_map.cells
        self._read = tuple(_bind(owner, r, r.read) for r in register_map)
        self._write = tuple(_bind(owner, r, r.write) for r in register_map)
        values = [r.reset for r in register_map]
        for name, value in (resets or {}).items():
            values[register_map.index(name)] = value
        self._resets = tuple(values)
        self.values = world.array(len(values), 0)
        self.reset()

    def reset(self) -> None:
        """Every register to its reset value; no hook runs."""
        for index, value in enumerate(self._resets):
            self.values[index] = value

    def get(self, name: str) -> int:
        """Stored value of a register by name; no hook runs."""
        value: int = self.values[self.map.index(name)]
        return value

    def set(self, name: str, value: int) -> None:
        """Store a value by name, past access kind, mask and hooks: what the owner itself changes."""
        self.values[self.map.index(name)] = value

    def read(self, offset: int, size: int) -> int:
        """A bus read of ``size`` bytes; 0 where the access is RAZ."""
        cell = self._cells.get(offset << 4 | size)
        if cell is None or not cell.register.readable:
            return 0
        hook = self._read[cell.index]
        value: int = self.values[cell.index] if hook is None else hook()
        return value >> cell.shift & cell.mask

    def write(self, offset: int, size: int, value: int) -> Register | None:
        """A bus write of ``size`` bytes. Returns the register that took it, None where the access is WI."""
        cell = self._cells.get(offset << 4 | size)
        if cell is None:
            return None
        register = cell.register
        writable = register.writable & cell.mask << cell.shift
        if not writable:
            return None
        old: int = self.values[cell.index]
        written = (value & cell.mask) << cell.shift
        new = old & ~(written & writable) if register.access is Access.W1C else old & ~writable | written & writable
        hook = self._write[cell.index]
        if hook is not None:
            stored = hook(old, new)
            if stored is None:
                return None
            new = stored
        self.values[cell.index] = new
        return register


def _bind(owner: object, row: Register, hook: str) -> Callable[..., int] | None:
    if not hook:
        return None
    method = getattr(owner, hook, None)
    if not callable(method):
        raise LocalError(f"{row.name}: {type(owner).__name__} has no hook {hook}")
    bound: Callable[..., int] = method
    return bound
