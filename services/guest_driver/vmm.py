"""The VMM's part: which I/O virtual addresses a device may use, and the keys that its port translates by.

The VMM talks to the device over a link of its own: nothing orders its map changes with the driver's kicks.
"""

from __future__ import annotations

from typing import Final

from common.memory import ACCESS_RW, Mapping, MemoryKey, MemoryMap

#: Keys that are kept from before the one in force: commands that name them may still be on their way to the port.
KEPT_KEYS: Final = 2


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
        #: the highest generation that the device is known to have put in force
        self.in_force = 0

    def next_key(self) -> MemoryKey:
        """The key to put in force next; it can be looked up from now on.

        One that the device has not confirmed is given again: the device holds it or the one before, whatever became
        of the calls, and both must be known to the port.
        """
        pending = self._keys.get(self.generation)
        if self.generation > self.in_force and pending is not None:
            return pending
        self.generation += 1
        base, size = self._ram
        maps = [Mapping(base + self._iova, size, base, ACCESS_RW)]
        if self.generation % 2:
            start, length = self._window
            above = base + self._iova + size
            maps.append(Mapping(above + (self.generation % 8) * length, length, start, ACCESS_RW))
        key = MemoryKey(MemoryMap(maps), self.generation)
        self._keys[self.generation] = key
        return key

    def confirm(self, generation: int) -> None:
        """The device has put ``generation`` in force: keys long before it are forgotten."""
        self.in_force = max(self.in_force, generation)
        for old in [g for g in self._keys if g < self.in_force - KEPT_KEYS]:
            del self._keys[old]

    def key_of(self, generation: int) -> MemoryKey | None:
        """The key of ``generation``, or None if there is none (any more)."""
        return self._keys.get(generation)

    @staticmethod
    def set_map_args(key: MemoryKey) -> list[object]:
        """What the call ``set_map`` takes."""
        return [key.generation, [[m.iova, m.size, m.addr, m.perm] for m in key.map.mappings]]
