"""Random accesses to the registers of the ITS and the redistributors: in any order and size, QEMU agrees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from tests.qemu.machines import OTHERS, on
from tests.qemu.qemu_its import Board
from tests.services.gic_its import streams
from tests.services.gic_its.case_steps import Adapter
from tests.services.gic_its.streams import COLLECTIONS, CONFIG, DEVICES, PENDING, PENDING_STEP, QUEUE

pytestmark = [pytest.mark.qemu_its]

ACCESSES: Final = 60
VALID, INDIRECT, PTZ = 1 << 63, 1 << 62, 1 << 62
CTLR, CBASER, CWRITER, CREADR, BASER0, BASER1 = 0x0, 0x80, 0x88, 0x90, 0x100, 0x108
PROPBASER, PENDBASER = 0x70, 0x78
#: Drawn twice as often as all that there is.
ITS_BUSY: Final = (CTLR, CBASER, CWRITER, CWRITER, CWRITER, CREADR, BASER0, BASER1)
ITS_ALL: Final = (
    *range(0, 0x30, 4), 0x40, *range(0x80, 0xA0, 4), *range(0x100, 0x144, 4), 0x1000, *range(0xFFC0, 0x10000, 4),
)  # fmt: skip
RD_BUSY: Final = (CTLR, PROPBASER, PENDBASER)
RD_ALL: Final = (0x0, 0x4, 0x8, 0xC, 0x10, 0x14, 0x70, 0x74, 0x78, 0x7C, *range(0xFFE0, 0x10000, 4))
#: Second levels of both tables.
LEVEL2: Final = 0x8_0000
#: Two-level tables of 64 pages of 64 KiB or more: their number of entries is past 32 bits, and QEMU loses it.
TOO_MANY_PAGES: Final = 0xE0


class Access(NamedTuple):
    """``value`` None: a read."""

    frame: str
    off: int
    size: int
    value: int | None

    def __str__(self) -> str:
        what = "read" if self.value is None else f"= {self.value:#x}"
        return f"{self.frame}+{self.off:#x}/{self.size} {what}"


def accesses(rng: random.Random, redistributors: bool) -> Iterator[Access]:
    on = [True] * 4
    for _ in range(ACCESSES):
        cpu = rng.randrange(4)
        frame = f"gicr{cpu}" if redistributors and rng.random() < 0.5 else "its"
        busy, everything = (ITS_BUSY, ITS_ALL) if frame == "its" else (RD_BUSY, RD_ALL)
        off = rng.choice(busy if rng.random() < 2 / 3 else everything)
        size = 4 if off == CTLR and rng.random() < 0.8 else rng.choice((8, 8, 8, 4, 4, 4, 2, 1))
        size = size if off % size == 0 else 4
        value = None
        # QEMU moves to another pending table at once: no software does that to a redistributor that is on
        if rng.random() < 0.6 and not (frame != "its" and off & ~7 == PENDBASER and on[cpu]):
            value = _value(rng, frame, off) & (1 << size * 8) - 1
            if frame != "its" and (off, size) == (CTLR, 4):
                on[cpu] = bool(value & 1)
        yield Access(frame, off, size, value)


def _value(rng: random.Random, frame: str, off: int) -> int:
    likely = rng.random() < 0.7
    plain = rng.choice((0, 1, (1 << 64) - 1, rng.getrandbits(64), rng.getrandbits(32)))
    if off == CTLR:
        return rng.choice((0, 1, 1, 1, 3, 0xFFFFFFFF))
    if frame != "its":
        if off == PENDBASER and likely:
            return PENDING + rng.randrange(4) * PENDING_STEP | rng.choice((0, PTZ))
        return CONFIG | rng.choice((11, 13, 14, 15, 15, 16, 31)) if off == PROPBASER and likely else plain
    if off & ~7 in (BASER0, BASER1):
        table = DEVICES if off & ~7 == BASER0 else COLLECTIONS
        likelier = rng.choice((VALID, VALID, 0)) | rng.choice((0, INDIRECT)) | table | rng.randrange(4) << 8
        return (likelier | rng.choice((0, 0, 7)) if likely else plain) & ~TOO_MANY_PAGES
    if off == CBASER and likely:
        return rng.choice((VALID, VALID, 0)) | QUEUE | rng.choice((0, 1, 15))
    if off in (CWRITER, CREADR) and likely:
        return rng.randrange(0, 0x3000, 32) | rng.choice((0, 0, 0, 1, 2))
    return plain


def prepare(adapter: Adapter, commands: bytes, indirect: bool) -> None:
    """Redistributors on, a queue of commands that no CWRITER covers, maybe first levels of tables."""
    adapter.mmio_write("gicd", 0x0, 4, 0x13)
    adapter.mem_fill(CONFIG, 0x1_0000, 0xA1)
    for cpu in range(4):
        adapter.mmio_write(f"gicr{cpu}", PROPBASER, 8, CONFIG | 15)
        adapter.mmio_write(f"gicr{cpu}", PENDBASER, 8, PENDING + cpu * PENDING_STEP)
        adapter.mmio_write(f"gicr{cpu}", CTLR, 4, 1)
    adapter.mem_write(QUEUE, commands)
    if indirect:
        for table in (DEVICES, COLLECTIONS):
            adapter.mem_write(table, (VALID | table + LEVEL2).to_bytes(8, "little") * 2)


def shown(adapter: Adapter) -> dict[str, object]:
    seen: dict[str, object] = {f"pending {cpu}": adapter.pending_all(cpu) for cpu in range(4)}
    for off in (CBASER, CWRITER, CREADR, BASER0, BASER1):
        seen[f"{off:#x}"] = hex(adapter.mmio_read("its", off, 8))
    for table in (DEVICES, DEVICES + LEVEL2, COLLECTIONS, COLLECTIONS + LEVEL2):
        seen[f"table at {table:#x}"] = adapter.mem_read(table, 0x300).hex()
    for device in streams.DEVICE_IDS:
        seen[f"ITT of {device:#x}"] = adapter.mem_read(streams.itt_of(device, 0), 12 * 33).hex()
    return seen


def agree(seed: int, board: Board, other: str, redistributors: bool) -> None:
    rng = random.Random(seed)
    commands = b"".join(streams.hostile_stream(rng, 512))
    indirect = rng.random() < 0.5
    machines = [on(board), OTHERS[other]()]
    try:
        for machine in machines:
            prepare(machine, commands, indirect)
        log: list[str] = []
        for access in accesses(rng, redistributors):
            log.append(str(access))
            where = "\n".join([f"seed {seed}, QEMU and {other} after:", *log])
            if access.value is None:
                read = [hex(machine.mmio_read(access.frame, access.off, access.size)) for machine in machines]
                assert read[0] == read[1], where
            else:
                for machine in machines:
                    machine.mmio_write(access.frame, access.off, access.size, access.value)
                    machine.drain()
                seen = [shown(machine) for machine in machines]
                assert seen[0] == seen[1], where
    finally:
        for machine in machines:
            machine.close()


@pytest.fixture(scope="module")
def board(qemu: None) -> Iterator[Board]:
    with Board(devices=(0x10, 0x30)) as board:
        yield board


@pytest.mark.parametrize("other", list(OTHERS))
@pytest.mark.parametrize("seed", range(12))
def test_registers_of_the_its(seed: int, other: str, board: Board) -> None:
    agree(seed, board, other, redistributors=False)


@pytest.mark.parametrize("seed", range(100, 112))
def test_registers_of_the_redistributors_among_them(seed: int, board: Board) -> None:
    agree(seed, board, "core", redistributors=True)
