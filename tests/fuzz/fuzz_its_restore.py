"""Whatever tables and registers an ITS is restored from, it refuses them with one of KVM's errors and is as after a
reset, or it becomes something that holds together: what it maps, it saves and restores again as the same.

A good machine is made by a stream of commands; then bytes of its tables, ITTs, level-1 tables and registers are
changed. Restores are bounded in what they read.

``python -m tests.fuzz.fuzz_its_restore COUNT SEED FIRST``: so many restores, in episodes from number FIRST on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Final

from common.errors import CallError
from common.gic import vmm_ops as ops
from common.gic.saved import ITS_REGISTERS, REDIST_REGISTERS, SavedIts
from common.gic.vmm_ops import EBUSY, EEXIST, EFAULT, EINVAL, ENOMEM, ENXIO
from services.gic_its.direct import DirectDma
from services.gic_its.held_tables import HeldTables
from tests.fuzz import rounds
from tests.services.gic_its.machine import COLLECTIONS, DEVICES, ITT, LEVEL2, NOWHERE, PENDING, Machine, standard
from tests.services.gic_its.streams import valid_stream

#: Restores an episode: of one machine.
EPISODE: Final = 40
ERRNOS: Final = {ENXIO: "ENXIO", EINVAL: "EINVAL", EBUSY: "EBUSY", EFAULT: "EFAULT", EEXIST: "EEXIST", ENOMEM: "ENOMEM"}
#: Bytes that a restore may read: every table there is, once, and a block at each end of each device's ITT.
READ_LIMIT: Final = 1 << 28
#: Where there are entries worth changing, and how many.
AREAS: Final = ((DEVICES, 0x2010), (COLLECTIONS, 16), (ITT, 300), (ITT + 0x1_0000, 300), (ITT + 0x2_0000, 40),
                (LEVEL2, 16), (PENDING + 1024, 8))  # fmt: skip


class BoundedDma(DirectDma):
    """DMA that counts what is read."""

    total = 0

    async def read(self, addr: int, length: int) -> bytes:
        self.total += length
        assert self.total < READ_LIMIT, "a restore reads on and on"
        return await super().read(addr, length)


class Episode:
    """One machine and what it was when it was whole."""

    def __init__(self, seed: int, number: int) -> None:
        self.dice: Final = random.Random(f"{seed} {number}")
        self.counts: Counter[str] = Counter()
        self.profile: Final = "qemu" if number % 4 == 3 else "kvm"
        self.machine: Final = Machine(self.profile)
        self.indirect: Final = self.dice.random() < 0.3
        self.machine.start(*standard(), indirect=self.indirect)
        self.machine.run(*valid_stream(self.dice, 300))
        self.saved: Final = self.machine.saved()
        self.whole: Final = [(addr, self.machine.mem_read(addr, 0x8_0000)) for addr in (DEVICES, COLLECTIONS, ITT)]

    # --- what is done to it -----------------------------------------------------------------------------------------

    def word(self) -> int:
        """An entry: a good one's neighbour, or noise."""
        dice = self.dice
        valid = dice.choice((0, 1, 1)) << 63
        return dice.choice(
            (
                valid | dice.randrange(1 << 14) << 49 | (ITT + dice.randrange(32) * 0x1_0000) >> 3 | dice.randrange(32),
                valid | dice.choice((0, 1, 2, 3, 4, 0xFFFFFFFF)) << 16 | dice.choice((0, 2, 3, 9, 8191, 8192, 65535)),
                dice.choice((0, 1, 5, 200, 65535)) << 48 | dice.choice((0, 8191, 8192, 8200, 65535, 65536)) << 16 | 3,
                valid | NOWHERE, valid | LEVEL2, dice.getrandbits(64), 0, (1 << 64) - 1,
            )
        )  # fmt: skip

    def spoil(self, saved: SavedIts) -> None:
        m, dice = self.machine, self.dice
        kind = dice.randrange(8)
        if kind == 0:  # a whole area of one word
            addr, count = dice.choice(AREAS)
            m.mem_write(
                addr, self.word().to_bytes(8, "little") * (count if count < 16 else dice.choice((8, 512, 0x2000)))
            )
        elif kind == 1:  # noise
            addr, count = dice.choice(AREAS)
            m.mem_write(addr, dice.randbytes(dice.choice((8, 64, 64 if count < 16 else 4096))))
        elif kind == 2:  # a register
            frame = dice.randrange(3)
            if frame == 0:
                name = dice.choice(tuple(ITS_REGISTERS))
                saved.its[name] = self.register(saved.its[name])
            elif frame == 1:
                name = dice.choice(tuple(REDIST_REGISTERS))
                redist = dice.choice(saved.redists)
                redist[name] = self.register(redist[name])
            else:
                saved.dist["GICD_CTLR"] = dice.getrandbits(32)
        else:  # one entry, or some of its bits
            addr, count = dice.choice(AREAS)
            at = addr + dice.randrange(count) * 8
            m.put_word(at, m.word(at) ^ 1 << dice.randrange(64) if dice.random() < 0.5 else self.word())

    def register(self, value: int) -> int:
        dice = self.dice
        return dice.choice((value ^ 1 << dice.randrange(64), dice.getrandbits(64), 0, value | 0xFF, value | 1 << 62))

    # --- and what must hold ------------------------------------------------------------------------------------------

    def move(self) -> str:
        m = self.machine
        saved = SavedIts(
            profile=self.saved.profile, cpus=4, dist=dict(self.saved.dist), its=dict(self.saved.its), memory=[],
            redists=[dict(redist) for redist in self.saved.redists],
        )  # fmt: skip
        for addr, data in self.whole:
            m.mem_write(addr, data)
        for _ in range(self.dice.choice((1, 1, 2, 5))):
            self.spoil(saved)
        dma = BoundedDma(m._memory)
        m.its.dma._dma = dma  # type: ignore[misc]
        try:
            m.restored(saved)
        except CallError as error:
            assert not m.its.control.devices
            assert not m.its.control.collections
            assert m.its.control.events == 0
            assert not m.its.control.enabled
            assert m.all_pending() == [[], [], [], []]
            return ERRNOS[error.errno]
        dma.total = 0
        self.consistent()
        self.serves()
        return "restored"

    def consistent(self) -> None:
        """What the ITS holds points at what it holds."""
        its = self.machine.its
        tables = its.tables
        if not isinstance(tables, HeldTables):
            return
        assert its.control.events == len(tables.events)
        assert {device for group in its.control.devices for device in group} == set(tables.devices)
        for key in tables.events:
            event = tables.events[key]
            assert event.event in {e for group in tables.devices[event.device].events for e in group}
            assert event.lpi is None or its.redistributors[event.lpi.port.vcpu].find(event.intid) is event.lpi

    def serves(self) -> None:
        """Commands and MSIs are taken; what it is now can be saved and restored, unless its memory is not there."""
        m, dice = self.machine, self.dice
        if m.its.control.enabled and m.mmio_read("its", 0x80, 8) == self.saved.its["GITS_CBASER"]:
            m.at = m.mmio_read("its", 0x88, 8) & 0xFFE0
            m.run(*valid_stream(dice, 40))
            for _ in range(8):
                m.msi(dice.choice((0, 1, 2, 7, 16)), dice.randrange(32))
        self.consistent()
        before = m.all_pending()
        try:
            m.restored(m.saved())
        except CallError as error:
            self.counts[f"not again: {ERRNOS[error.errno]}"] += 1
        else:
            self.consistent()
            if all(m.mmio_read(f"gicr{cpu}", 0x78, 8) == self.saved.redists[cpu]["GICR_PENDBASER"] & ~(1 << 62)
                   for cpu in range(4)):  # fmt: skip
                self.counts["the same again" if m.all_pending() == before else "other pending"] += 1

    def run(self, moves: int) -> None:
        with closing(self.machine) as m:
            for _ in range(moves):
                self.counts[f"{self.profile}: {self.move()}"] += 1
            m.vmm(ops.CTRL_RESET)
            for addr, data in self.whole:
                m.mem_fill(addr, len(data), 0)
            m.start(*standard()).interrupt(2, 20)
            assert 8195 in m.pending_all(3), "the ITS does not work after all that"


def fuzz(count: int, seed: int, first: int = 0, report: Callable[[int], None] = lambda _done: None) -> Counter[str]:
    """Episodes from number ``first`` on until ``count`` restores were tried. Returns what was counted."""
    return rounds.episodes(Episode, EPISODE, count, seed, first, report)


if __name__ == "__main__":
    rounds.run(fuzz, "each was refused as a whole, or held together")
