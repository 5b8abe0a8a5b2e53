"""Bit fields of registers, commands and table entries: ``Field(msb, lsb)``, as the manuals write ``[msb:lsb]``."""

from __future__ import annotations

from typing import Final


class Field:
    """Bits ``msb`` to ``lsb`` of a word.

    ``scale`` is for address fields, which hold the upper bits of an address: a field [51:8] with scale 8 gives and
    takes whole byte addresses.
    """

    __slots__ = ("limit", "lsb", "mask", "scale")

    lsb: Final[int]
    scale: Final[int]
    #: Largest value of the field before scaling.
    limit: Final[int]
    #: The field's bits in place.
    mask: Final[int]

    def __init__(self, msb: int, lsb: int, scale: int = 0) -> None:
        self.lsb = lsb
        self.scale = scale
        self.limit = (1 << msb - lsb + 1) - 1
        self.mask = self.limit << lsb

    def get(self, word: int) -> int:
        return (word >> self.lsb & self.limit) << self.scale

    def put(self, value: int) -> int:
        """``value`` in place; bits that do not fit are cut off, as a bus does."""
        return (value >> self.scale & self.limit) << self.lsb
