"""What takes effect in guest memory together: whole commands, with CREADR, so that memory is a state to start from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, COMMANDS, Command
from common.gic.lpi import config_byte
from common.memory import GuestMemory
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import COLLECTIONS, CONFIG, DEVICES, ITT, PENDING, Rig
from tests.services.gic_its.dma_kinds import Journal, until

BOTH = pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)

#: What is compared: the tables' first entries, the ends of the collection table, ITTs, the pending bits of some LPIs.
PARTS = (
    (DEVICES, 0x80),
    (COLLECTIONS, 0x80),
    (COLLECTIONS + 0xFF80, 0x80),
    *((ITT + n * 0x10000, 0x4000) for n in range(3)),
    *((PENDING + vcpu * 0x20000 + 0x400, 0x200) for vcpu in range(2)),
)


class Recorded:
    """A rig whose memory is looked at with every commit; its vCPUs take what is delivered and do not end it."""

    def __init__(self, profile: Profile, start: list[Command], taken: bool = True) -> None:
        journals: list[Journal] = []

        def dma(memory: GuestMemory) -> Journal:
            journals.append(Journal(memory))
            return journals[0]

        self.rig = Rig(cpus=2, profile=profile, dma=dma)
        self.journal = journals[0]
        self.journal.image = self.image
        self.journal.creadr = lambda: self.rig.its.registers.get("GITS_CREADR")
        self._taken = taken
        self._start = start

    async def start(self) -> None:
        await self.rig.start()
        if not self._taken:
            self.rig.its.hold()
        await self.rig.run(*self._start)
        self.journal.commits.clear()
        self.journal.log.clear()

    def image(self) -> tuple[bytes, ...]:
        return tuple(self.rig.memory.read(addr, length) for addr, length in PARTS)


async def serial(profile: Profile, start: list[Command], commands: list[Command], taken: bool) -> dict[int, object]:
    """CREADR → memory, where every command is waited for before the next is queued."""
    recorded = Recorded(profile, start, taken)
    await recorded.start()
    images: dict[int, object] = {recorded.rig.at: recorded.image()}
    for command in commands:
        recorded.rig.queue(command)
        await recorded.rig.write(0x88, recorded.rig.at)
        images[recorded.rig.at] = recorded.image()
    return images


START = [
    Command(op.MAPD, device=1, size=10, itt=ITT, valid=1),
    Command(op.MAPD, device=2, size=4, itt=ITT + 0x10000, valid=1),
    Command(op.MAPC, icid=0, rdbase=0, valid=1),
    Command(op.MAPC, icid=1, rdbase=1, valid=1),
]

SMALL = {"device": 3, "event": 3, "icid": 3, "rdbase": 2, "rdbase2": 2, "size": 4, "valid": 1}


@st.composite
def plausible(draw: st.DrawFn) -> Command:
    spec = draw(st.sampled_from([*COMMANDS, *(spec for spec in COMMANDS if spec.name in ("MAPTI", "INT", "MAPC"))]))
    values = {}
    for name, _, _ in spec.fields:
        if name == "itt":
            values[name] = ITT + draw(st.integers(0, 2)) * 0x10000
        elif name == "intid":
            values[name] = 8192 + draw(st.integers(0, 9))
        else:
            values[name] = draw(st.integers(0, SMALL[name]))
    return Command(spec.op, **values)


@settings(max_examples=60, deadline=None)
@given(st.lists(plausible(), min_size=1, max_size=80), st.booleans())
@BOTH
async def test_memory_is_that_of_a_serial_run_at_every_commit(
    profile: Profile, commands: list[Command], taken: bool
) -> None:
    expected = await serial(profile, START, commands, taken)
    recorded = Recorded(profile, START, taken)
    await recorded.start()
    recorded.rig.queue(*commands)
    await recorded.rig.write(0x88, recorded.rig.at)
    commits = recorded.journal.commits
    assert commits[-1][0] == recorded.rig.at
    for creadr, image in commits:
        assert image == expected[creadr]
    assert recorded.journal.posted == []


def many(icid: int, count: int = 700) -> Iterator[Command]:
    for event in range(count):
        yield Command(op.MAPTI, device=1, event=event, intid=8192 + event, icid=icid)


LONG = {
    "MAPC V=0": (KVM, [*START, *many(0)], Command(op.MAPC, icid=0, valid=0)),
    "MAPC to another PE": (KVM, [*START, *many(0)], Command(op.MAPC, icid=0, rdbase=1, valid=1)),
    "MAPC of what nothing is known of": (KVM, [*START, *many(3)], Command(op.MAPC, icid=3, rdbase=1, valid=1)),
    "MAPD V=0": (KVM, [*START, *many(0)], Command(op.MAPD, device=1, size=10, valid=0)),
    "MAPD again": (KVM, [*START, *many(0)], Command(op.MAPD, device=1, size=10, itt=ITT + 0x20000, valid=1)),
    "MOVALL": (
        KVM,
        [*START, *many(0), *(Command(op.INT, device=1, event=event) for event in range(700))],
        Command(op.MOVALL, rdbase=0, rdbase2=1),
    ),
    "MOVALL, qemu": (
        QEMU,
        [*START, *many(0), *(Command(op.INT, device=1, event=event) for event in range(700))],
        Command(op.MOVALL, rdbase=0, rdbase2=1),
    ),
    "INVALL": (KVM, [*START, *many(0)], Command(op.INVALL, icid=0)),
    "INVALL, qemu": (QEMU, [*START, *many(0)], Command(op.INVALL, icid=0)),
}


@pytest.mark.parametrize("name", LONG)
async def test_no_half_of_a_long_command_takes_effect(name: str) -> None:
    """Not even where vCPUs end LPIs, and switch them off and on, while it walks."""
    profile, start, command = LONG[name]
    itt = Command(op.MAPTI, device=2, event=0, intid=8999, icid=1)
    commands = [itt, Command(op.INT, device=2, event=0), command, Command(op.SYNC)]
    expected = await serial(profile, start, commands, False)
    recorded = Recorded(profile, start, False)
    await recorded.start()
    rig = recorded.rig
    its = rig.its
    rig.queue(*commands)
    write = asyncio.create_task(rig.write(0x88, rig.at))
    beside: list[asyncio.Task[None]] = []
    while not write.done():
        if len(beside) < 12:
            redistributor = its.redistributors[0]
            first = next(iter(its.pending(0)), None)
            if first is not None:
                lpi = redistributor.find(first)
                assert lpi is not None
            beside.append(asyncio.create_task(rig.write(0, 1, 4, "gicr1")))  # it is on
        await asyncio.sleep(0)
    await asyncio.gather(*beside)
    for creadr, image in recorded.journal.commits:
        assert image == expected[creadr]


async def test_an_eoi_within_a_long_command_stores_no_half_of_it() -> None:
    """The LPI was raised by INT and rested, so its bit of the pending table is cleared when it is delivered."""
    start = [*START, *many(0), *(Command(op.INT, device=1, event=event) for event in range(700))]
    recorded = Recorded(KVM, start, False)
    await recorded.start()
    rig, its = recorded.rig, recorded.rig.its
    intid, number = its.acknowledge(0)
    await rig.run(Command(op.SYNC))
    before = recorded.image()
    recorded.journal.commits.clear()
    rig.queue(Command(op.MOVALL, rdbase=0, rdbase2=1))
    write = asyncio.create_task(rig.write(0x88, rig.at))
    await until(lambda: bool(its.pending(1)))
    assert len(its.pending(0)) > 0
    its.eoi(0, intid, number)
    assert all(image == before for _, image in recorded.journal.commits)
    await write
    creadr, _ = recorded.journal.commits[-1]
    assert creadr == rig.at
    bits = int.from_bytes(rig.memory.read(PENDING + 0x20400, 0x200), "little")
    assert bits == sum(1 << lpi - 8192 for lpi in its.pending(1)) == (1 << 700) - 2
    assert not any(rig.memory.read(PENDING + 0x400, 0x200))


async def test_what_int_raises_is_stored_before_creadr_passes_it() -> None:
    """A command that reads makes what was written before it take effect: with the pending bits, too."""
    recorded = Recorded(KVM, [*START, Command(op.MAPTI, device=2, event=1, intid=8193, icid=1)], taken=False)
    await recorded.start()
    rig = recorded.rig
    start = rig.at
    rig.queue(
        Command(op.MAPTI, device=2, event=2, intid=8194, icid=1),
        Command(op.INT, device=2, event=1),
        Command(op.MAPD, device=3, size=3, itt=ITT + 0x20000, valid=1),
    )
    await rig.write(0x88, rig.at)
    for creadr, image in recorded.journal.commits:
        assert isinstance(image, tuple)
        assert bool(image[-1][0] & 2) == (creadr - start >= 2 * COMMAND_SIZE)


# --- a command reads all that it needs before it changes anything --------------------------------------------------

SETUP = [
    *START,
    Command(op.MAPC, icid=2, rdbase=1, valid=1),
    Command(op.MAPTI, device=1, event=1, intid=8201, icid=0),
    Command(op.MAPTI, device=1, event=2, intid=8202, icid=0),
    Command(op.MAPTI, device=1, event=3, intid=8203, icid=3),
    Command(op.MAPTI, device=1, event=4, intid=8204, icid=3),
    Command(op.INT, device=1, event=1),
]
EVERY = [
    Command(op.MAPD, device=3, size=7, itt=ITT + 0x20000, valid=1),
    Command(op.MAPD, device=1, size=7, itt=ITT + 0x20000, valid=1),
    Command(op.MAPD, device=1, size=7, valid=0),
    Command(op.MAPC, icid=3, rdbase=1, valid=1),
    Command(op.MAPC, icid=0, rdbase=1, valid=1),
    Command(op.MAPC, icid=0, valid=0),
    Command(op.MAPTI, device=1, event=9, intid=8209, icid=1),
    Command(op.MAPTI, device=1, event=9, intid=8209, icid=7),
    Command(op.MAPTI, device=1, event=1, intid=8209, icid=1),
    Command(op.MAPI, device=1, event=1, icid=1),
    Command(op.MOVI, device=1, event=1, icid=1),
    Command(op.DISCARD, device=1, event=1),
    Command(op.INT, device=1, event=1),
    Command(op.INT, device=1, event=2),
    Command(op.CLEAR, device=1, event=1),
    Command(op.INV, device=1, event=1),
    Command(op.INVALL, icid=0),
    Command(op.MOVALL, rdbase=0, rdbase2=1),
    Command(op.SYNC),
]


@BOTH
@pytest.mark.parametrize("command", EVERY, ids=str)
async def test_a_command_reads_before_it_changes_anything(profile: Profile, command: Command) -> None:
    recorded = Recorded(profile, SETUP, taken=False)
    await recorded.start()
    rig = recorded.rig
    rig.config(8201, config_byte(True, 0x20))
    rig.queue(command)
    await rig.write(0x88, rig.at)
    kinds = [kind for kind, _ in recorded.journal.log if kind != "commit"]
    assert kinds == sorted(kinds), recorded.journal.log  # "read" before "write"
    config = [addr for kind, addr in recorded.journal.log if kind == "read" and CONFIG <= addr < CONFIG + 0xE000]
    assert len(config) <= 2
