"""The VMM's part: which I/O virtual addresses a device may use.

The VMM talks to the device over a link of its own: nothing orders its map changes with the driver's kicks. It knows
ranges only; the memory keys that a device makes of them are the device's.
"""

from __future__ import annotations

from typing import Final

from common.errors import LocalError
from common.memory import ACCESS_RW

Range = tuple[int, int, int, int]
"""``(iova, size, guest address, access)``"""


class AddressSpace:
    """What is mapped for one device: banks of guest memory, guest address ``a`` at I/O virtual address ``a + iova``."""

    __slots__ = ("_banks", "iova")

    def __init__(self, iova: int) -> None:
        self.iova: Final = iova
        #: base → bytes
        self._banks: dict[int, int] = {}

    def add(self, base: int, size: int) -> None:
        """Map ``size`` bytes of guest memory at ``base``. Raises LocalError for one that is mapped."""
        if base in self._banks:
            raise LocalError(f"bank {base:#x} is mapped")
        self._banks[base] = size

    def remove(self, base: int) -> None:
        """Unmap the bank at ``base``. Raises LocalError if there is none."""
        if self._banks.pop(base, None) is None:
            raise LocalError(f"no bank at {base:#x} is mapped")

    @property
    def banks(self) -> tuple[int, ...]:
        """The bases of what is mapped, in the order of their addresses."""
        return tuple(sorted(self._banks))

    def ranges(self) -> list[Range]:
        """What ``set_map`` takes."""
        return [(base + self.iova, self._banks[base], base, ACCESS_RW) for base in self.banks]
