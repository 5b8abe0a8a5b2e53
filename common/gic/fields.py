"""Bit fields of registers, commands and table entries: ``Field(msb, lsb)``, as the manuals write ``[msb:lsb]``."""

from __future__ import annotations

from typing import Final


class Field:
    """Bits ``msb`` to ``lsb`` of a word.

    ``scale`` is for address fields, which hold the upper bits of an address: a field [51:8] with scale 8 gives and
    takes whole byte addresses.
    """

    __slots__ = ("limit", "lsb", "mask", "scale")

    def __init__(self, msb: int, lsb: int, scale: int = 0) -> None:
        self.lsb: Final = lsb
        self.scale: Final = scale
        #: Largest value of the field before scaling.
        self.limit: Final = (1 << msb - lsb + 1) - 1
        #: The field's bits in place.
        self.mask: Final = self.limit << lsb

    def get(self, word: int) -> int:
        return (word >> self.lsb & self.limit) << self.scale

    def put(self, value: int) -> int:
        """``value`` in place; bits that do not fit are cut off, as a bus does."""
        return (value >> self.scale & self.limit) << self.lsb
