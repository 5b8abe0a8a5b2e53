"""The VMM's part: which I/O virtual addresses a device may use, and the keys that its port translates by.

The VMM talks to the device over a link of its own: nothing orders its map changes with the driver's kicks.
"""

from __future__ import annotations

from typing import Final

from common.memory import ACCESS_RW, Mapping, MemoryKey, MemoryMap

#: Keys that are kept: the one in force, the one being put in force, and one for good measure.
KEPT_KEYS: Final = 3


class AddressSpace:
    """The memory maps of one device, by generation.

    ``ram`` is always mapped at ``iova``; ``window`` (base, size) is a bank that comes and goes with the generation,
    as a hot-plugged DIMM does, each time at another address.
    """

    def __init__(self, ram: tuple[int, int], iova: int, window: tuple[int, int]) -> None:
        self._ram: Final = ram
        self._iova: Final = iova
        self._window: Final = window
        self._keys: dict[int, MemoryKey] = {}
        self.generation = 0

    def next_key(self) -> MemoryKey:
        """The key of the next generation; it can be looked up from now on."""
        self.generation += 1
        base, size = self._ram
        maps = [Mapping(base + self._iova, size, base, ACCESS_RW)]
        if self.generation % 2:
            start, length = self._window
            above = base + self._iova + size
            maps.append(Mapping(above + (self.generation % 8) * length, length, start, ACCESS_RW))
        key = MemoryKey(MemoryMap(maps), self.generation)
        self._keys[self.generation] = key
        for old in [g for g in self._keys if g <= self.generation - KEPT_KEYS]:
            del self._keys[old]
        return key

    def key_of(self, generation: int) -> MemoryKey | None:
        """The key of ``generation``, or None if there is none (any more)."""
        return self._keys.get(generation)

    @staticmethod
    def set_map_args(key: MemoryKey) -> list[object]:
        """What the call ``set_map`` takes."""
        return [key.generation, [[m.iova, m.size, m.addr, m.perm] for m in key.map.mappings]]
