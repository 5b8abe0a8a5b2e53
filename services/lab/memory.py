"""Guest memory whose cells are watched: each access of a ring field is a step on a byte range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from common.memory import ACCESS_RO, CELL, GuestMemory, Region
from common.world import View
from services.lab.reach import WorldMade
from services.lab.scheduler import Run
from services.lab.watched import show


class LabMemory(WorldMade):
    """:class:`common.memory.GuestMemory` with watched views. Copies (``read``, ``write``) are one step each."""

    __slots__ = ("_claimed", "_plain", "cells", "lab_name", "run")

    def __init__(self, run: Run, size: int, base: int) -> None:
        self.run = run
        self.lab_name = run.name("mem")
        self._plain: Final = GuestMemory(size, base)
        #: first byte of each cell that a running actor has touched -> its width
        self.cells: dict[int, int] = {}
        self._claimed: dict[int, int] = {}

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._plain.regions

    def add_region(self, base: int, size: int) -> Region:
        """Set-up only: see GuestMemory."""
        return self._plain.add_region(base, size)

    def check(self, addr: int, length: int) -> None:
        self._plain.check(addr, length)

    def view(self, addr: int, count: int, fmt: str, perm: int = ACCESS_RO) -> WatchedView:
        """Watched cells. Raises as GuestMemory does; ``perm`` restricts nothing here either."""
        return WatchedView(self, self._plain.view(addr, count, fmt), addr, CELL[fmt])

    def buffer(self, addr: int, length: int) -> memoryview | None:
        """None: every access is watched."""
        return None

    def read(self, addr: int, length: int) -> bytes:
        """copy_out: one step on ``length`` bytes."""
        self._plain.check(addr, length)
        self.run.bulk("copy_out", self.lab_name, addr, addr + length, False)
        self.run.note("copy_out", (self.lab_name, addr), f"{length} bytes")
        return self._plain.read(addr, length)

    def write(self, addr: int, data: bytes) -> None:
        """copy_in: one step on ``len(data)`` bytes."""
        length = len(data)
        self._plain.check(addr, length)
        run = self.run
        run.bulk("copy_in", self.lab_name, addr, addr + length, True)
        if run.current is not None:
            if self._plain.read(addr, length) != data:
                run.changed_range(self.lab_name, addr, addr + length)
            run.note("copy_in", (self.lab_name, addr), f"{length} bytes")
        self._plain.write(addr, data)

    def fill(self, addr: int, length: int, byte: int) -> None:
        self.write(addr, bytes([byte]) * length)

    def claim(self, addr: int, width: int) -> None:
        """The first access to the cell at ``addr``: refused if a byte of it belongs to a cell of another width."""
        for byte in range(addr, addr + width):
            owner = self._claimed.setdefault(byte, addr)
            if owner != addr or self.cells.get(addr, width) != width:
                raise self.run.refuse(
                    f"{self.lab_name}: {width}-byte access at {addr:#x} overlaps the {self.cells[owner]}-byte cell "
                    f"at {owner:#x}: mixed widths on one byte"
                )
        self.cells[addr] = width


class WatchedView(WorldMade):
    """Fixed-width cells of a :class:`LabMemory`, indexed one at a time."""

    __slots__ = ("_addr", "_cells", "_known", "_memory", "_name", "_run", "_width")

    def __init__(self, memory: LabMemory, cells: View, addr: int, width: int) -> None:
        self._memory = memory
        self._known = memory.cells
        self._name = memory.lab_name
        self._run = memory.run
        self._cells = cells
        self._addr = addr
        self._width = width

    def __len__(self) -> int:
        return len(self._cells)

    def _locate(self, index: Any) -> int:
        """Checks for the slow path: a strange index, or a cell's first access."""
        if type(index) is not int:
            raise self._run.refuse(f"{self._name}: view[{index!r}]: one cell at a time; payload by read() and write()")
        if index < 0:
            index += len(self._cells)
        if not 0 <= index < len(self._cells):
            raise IndexError(f"cell {index} of {len(self._cells)}")
        addr: int = self._addr + index * self._width
        if self._run.current is not None:
            self._memory.claim(addr, self._width)
        return addr

    def __getitem__(self, index: int, /) -> int:
        run = self._run
        width = self._width
        addr = self._addr + index * width if type(index) is int else -1
        if self._known.get(addr) != width:
            addr = self._locate(index)
        loc = (self._name, addr)
        run.access("read", loc, False)
        value: int = self._cells[index]
        if run.trace is not None:
            run.note("read", loc, show(value))
        return value

    def __setitem__(self, index: int, value: int, /) -> None:
        run = self._run
        width = self._width
        addr = self._addr + index * width if type(index) is int else -1
        if self._known.get(addr) != width:
            addr = self._locate(index)
        loc = (self._name, addr)
        run.access("write", loc, True)
        cells = self._cells
        if run.current is None:
            cells[index] = value
            return
        old = cells[index]
        cells[index] = value
        if old != value:
            run.changed(loc)
        if run.trace is not None:
            run.note("write", loc, show(value))

    def _refuse(self, *_: Any) -> Any:
        raise self._run.refuse(f"{self._name}: buffer access to a watched view: payload goes by read() and write()")

    tobytes = tolist = cast = hex = release = __bytes__ = __buffer__ = _refuse

    def __iter__(self) -> Iterator[int]:
        return (self[i] for i in range(len(self._cells)))
