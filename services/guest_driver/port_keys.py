"""The memory keys of one device, as its port translates by them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

from common.errors import MemoryFaultError
from common.memory import MappedMemory, Mapping, MemoryKey, MemoryMap
from common.wire.messages import CreateMkey, MkeyCreated
from common.world import Memory, Table, World

#: Memory keys that one device may have at a time.
MAX_KEYS: Final = 64


class PortKeys:
    """``world.new(PortKeys, world, memory, standing)``. ``standing(generation)`` gives keys that the device did not
    make: those of a device without an IOMMU."""

    __slots__ = ("_keys", "_memory", "_others", "_standing")

    _keys: Final[Table[MappedMemory]]
    _others: Final[Table[MappedMemory]]
    _memory: Final[Memory]
    _standing: Final[Callable[[int], MemoryKey | None]]

    def __init__(self, world: World, memory: Memory, standing: Callable[[int], MemoryKey | None]) -> None:
        #: generation → guest memory through the key: one for all queue objects that hold it
        self._keys = world.table()
        self._others = world.table()
        self._memory = memory
        self._standing = standing

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, generation: int) -> MappedMemory | None:
        """Guest memory through the key of ``generation``, or None if there is none (any more). The same object as long
        as the key stands."""
        memory = self._keys.get(generation) or self._others.get(generation)
        if memory is None:
            key = self._standing(generation)
            if key is None:
                return None
            self._others[generation] = memory = MappedMemory(self._memory, key)
        return memory

    def create(self, message: CreateMkey) -> MkeyCreated:
        """Make a key; refused (EFAULT) where a range is no part of guest memory or the map is none, (ENOSPC) where
        there are too many."""
        try:
            key = MemoryKey(MemoryMap(Mapping(*r) for r in message.ranges), message.generation)
            for mapping in key.map.mappings:
                self._memory.check(mapping.addr, mapping.size)
        except MemoryFaultError as fault:
            return MkeyCreated(message.generation, errno.EFAULT, str(fault))
        old = self._keys.get(message.generation)
        if old is None and len(self._keys) >= MAX_KEYS:
            return MkeyCreated(message.generation, errno.ENOSPC, f"{MAX_KEYS} memory keys stand")
        if old is None or old.key.map != key.map:  # queue objects tell keys apart by identity
            self._keys[message.generation] = MappedMemory(self._memory, key)
        return MkeyCreated(message.generation, 0)

    def keep(self, held: Sequence[MappedMemory]) -> None:
        """A new link: the device makes the keys anew that are in force. Those that no queue object holds go: the
        DestroyMkey of one may have been lost, and a device that restarted knows of none."""
        for generation in list(self._keys):
            if not any(self._keys[generation] is memory for memory in held):
                self._keys.pop(generation)

    def destroy(self, generation: int) -> None:
        """No queue object holds the key any more."""
        self._keys.pop(generation, None)
