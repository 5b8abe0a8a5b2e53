"""Guest memory of the model: 512 MiB of RAM as QEMU's virt board has it, in pages that are made when written."""

from __future__ import annotations

from typing import Final

RAM: Final = range(0x4000_0000, 0x6000_0000)
PAGE: Final = 4096


class FaultError(Exception):
    """Nothing answers at this address."""


class Memory:
    """Bytes by guest address. Every access that is not wholly RAM raises FaultError."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def read(self, addr: int, length: int) -> bytes:
        out = bytearray()
        for page, start, end in _pieces(addr, length):
            out += self._pages.get(page, bytes(PAGE))[start:end]
        return bytes(out)

    def write(self, addr: int, data: bytes) -> None:
        at = 0
        for page, start, end in _pieces(addr, len(data)):
            self._pages.setdefault(page, bytearray(PAGE))[start:end] = data[at : at + end - start]
            at += end - start

    def fill(self, addr: int, length: int, byte: int) -> None:
        self.write(addr, bytes([byte]) * length)

    def word(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little")

    def put_word(self, addr: int, value: int) -> None:
        self.write(addr, value.to_bytes(8, "little"))


def _pieces(addr: int, length: int) -> list[tuple[int, int, int]]:
    """(page, first byte, byte after the last) of each page that the access touches."""
    if addr < RAM.start or addr + length > RAM.stop:
        raise FaultError(f"{addr:#x}")
    pieces = []
    while length:
        start = addr % PAGE
        count = min(length, PAGE - start)
        pieces.append((addr // PAGE, start, start + count))
        addr += count
        length -= count
    return pieces
