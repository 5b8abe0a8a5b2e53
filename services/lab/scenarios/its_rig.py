"""What the scenarios on the ITS share: an ITS over guest memory, and notes of what came of it.

Event n of the only device is LPI 8192 + n. Commands whose running matters are INTs of an event each, so the order of
deliveries is the order in which commands ran; every other slot of the queue has an old INT, as a queue in use has,
and nobody asked for that one again. Before the run begins everything is programmed and mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, TypeVar

from common.gic.commands import COMMAND_SIZE, INT, MAPC, MAPD, MAPTI, WORDS, Command, encode
from common.gic.lpi import LPI_BASE, config_byte
from common.gic.registers import (
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_VALID,
    CBASER_VALID,
    CTLR_ENABLED,
    GICD_CTLR,
    GICD_CTLR_GRP1,
    GICR_CTLR,
    GICR_CTLR_ENABLE_LPIS,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GITS_BASER,
    GITS_CBASER,
    GITS_CTLR,
    PENDBASER_PTZ,
)
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, Profile
from services.gic_its.queue import CommandQueue
from services.lab.memory import LabMemory
from services.lab.reach import WorldMade
from services.lab.scheduler import Run
from services.lab.world import LabWorld

T = TypeVar("T")

#: Where all of it was argued.
THREAD: Final = "Re: PATCH v4 06/12 KVM: arm64: implement basic ITS register handlers (Zyngier, Przywara, June 2016)"
#: Guest memory: address and bytes of all of it, then where what lies in it.
MEMORY: Final = (0x1_0000, 0x5_8000)
QUEUE, DEVICES, COLLECTIONS, PENDING, CONFIG, ITT = 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000, 0x6_0000, 0x6_4000
#: One page: 128 commands.
QUEUE_SIZE: Final = 0x1000
DEVICE: Final = 1
EVENT_BITS: Final = 4
#: Bits of an INTID: LPIs are 8192 to 16383.
ID_BITS: Final = 14
CPUS: Final = 2
#: The event of the commands that ran long ago.
OLD: Final = 15

#: Collection n is vCPU n, and every event is in collection 0.
MAPPED: Final = (
    Command(MAPD, device=DEVICE, size=EVENT_BITS - 1, itt=ITT, valid=1),
    *(Command(MAPC, icid=vcpu, rdbase=vcpu, valid=1) for vcpu in range(CPUS)),
    *(Command(MAPTI, device=DEVICE, event=event, intid=LPI_BASE + event, icid=0) for event in (*range(6), OLD)),
)


def interrupt(event: int) -> bytes:
    """INT of ``event`` of the device."""
    return encode(Command(INT, device=DEVICE, event=event))


_OLD_QUEUE: Final = interrupt(OLD) * (QUEUE_SIZE // COMMAND_SIZE)
_ENABLED: Final = bytes([config_byte(True)]) * 64


def run_now(coro: Coroutine[Any, Any, T]) -> T:
    """Set-up and checks only, where nothing waits: run ``coro`` to its end."""
    try:
        coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


class Notes(WorldMade):
    """What an onlooker writes down. Nobody in the run reads it, so it is no step.

    ``lpis``: (vCPU, INTID, number) in the order of their deliveries; ``done``: who was told that a write is done, and
    how many LPIs there were then; ``confirmed``: EventID → the highest number; ``holds``: the most commands that were
    run in one hold of the lock that is looked at; ``taken``: the number of the last MSI that the ITS took.
    """

    __slots__ = ("confirmed", "done", "holds", "lpis", "run", "taken")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lpis: list[tuple[int, int, int]] = []
        self.done: dict[str, int] = {}
        self.confirmed: dict[int, int] = {}
        self.holds = 0
        self.taken = 0

    @property
    def intids(self) -> list[int]:
        return [intid for _, intid, _ in self.lpis]

    def wrong(self, what: str) -> None:
        """End the run: what happened must not."""
        self.run.fail("invariant", what)


class _Hands(WorldMade):
    """The world that the ITS gets: the lab's, with the rig's locks."""

    __slots__ = ("_rig", "_world")

    def __init__(self, world: LabWorld, rig: Rig) -> None:
        self._world = world
        self._rig = rig

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def spinlock(self) -> Any:
        return self._rig.spinlock()

    def mutex(self) -> Any:
        return self._rig.mutex()


class OneByOne(CommandQueue):
    """A slice is one command, so that there is something between slices in a batch of two."""

    __slots__ = ()

    slice = 1


class Bench(Its):
    """The ITS that ships, in short slices."""

    __slots__ = ()

    queue_class = OneByOne


class Rig:
    """Memory and ITS of one run. The queue is empty at ``begin``. What is in its fields stays there."""

    __slots__ = ("begin", "its", "memory", "notes", "profile", "world")

    its_class: ClassVar[type[Its]] = Bench

    begin: Final[int]
    its: Final[Its]
    memory: Final[LabMemory]
    notes: Final[Notes]
    profile: Final[Profile]
    world: Final[LabWorld]

    def __init__(self, world: LabWorld, profile: Profile = KVM, begin: int = 0) -> None:
        self.world = world
        self.profile = profile
        self.begin = begin
        self.notes = Notes(world.run)
        self.memory = world.memory(MEMORY[1], MEMORY[0])
        self.memory.write(QUEUE, _OLD_QUEUE)
        self.memory.write(CONFIG, _ENABLED)
        self.its = self.make_its()

    def spinlock(self) -> Any:
        """The lock of the ITS's translation structures."""
        return self.world.spinlock()

    def mutex(self) -> Any:
        """The ITS's mutexes: over its tables where they are looked up in guest memory, over EnableLPIs."""
        return self.world.mutex()

    def make_its(self) -> Its:
        """An ITS over the memory, out of reset."""
        hands: Any = _Hands(self.world, self)
        return self.its_class(
            hands, DirectDma(self.memory), cpus=CPUS, deliver=self.on_lpi, done=self.on_done, profile=self.profile
        )

    # --- what comes out of the ITS ------------------------------------------------------------------------------------

    def on_lpi(self, vcpu: int, intid: int, number: int) -> None:
        """An LPI is delivered."""
        self.notes.lpis.append((vcpu, intid, number))

    def on_done(self, _device: int, event: int, number: int) -> None:
        """The MSIs of ``event`` up to ``number`` are confirmed."""
        self.notes.confirmed[event] = number

    # --- set-up -------------------------------------------------------------------------------------------------------

    def program(self) -> None:
        """Registers and mappings, as a driver makes them."""
        its = self.its
        for vcpu, redistributor in enumerate(its.redistributors):
            frame = redistributor.registers
            frame.write(GICR_PROPBASER, 8, CONFIG | ID_BITS - 1)
            frame.write(GICR_PENDBASER, 8, PENDING + vcpu * 0x1_0000 | PENDBASER_PTZ)
            frame.write(GICR_CTLR, 4, GICR_CTLR_ENABLE_LPIS)
            run_now(redistributor.settle())
        its.distributor.registers.write(GICD_CTLR, 4, GICD_CTLR_GRP1)
        pages = BASER_VALID | BASER_PAGE_SIZE.put(BASER_PAGE_64K)
        its.registers.write(GITS_CBASER, 8, CBASER_VALID | QUEUE)
        its.registers.write(GITS_BASER, 8, pages | DEVICES)
        its.registers.write(GITS_BASER + 8, 8, pages | COLLECTIONS)
        its.registers.write(GITS_CTLR, 4, CTLR_ENABLED)
        for command in MAPPED:
            self.carry_out(encode(command))
        its.registers.set("GITS_CREADR", self.begin)
        its.registers.set("GITS_CWRITER", self.begin)

    def carry_out(self, command: bytes) -> None:
        """Run a command past the queue."""
        words = WORDS.unpack(command)
        wrong = run_now(self.its.runs.handlers[words[0] & 0xFF](*words))
        assert wrong is None, wrong

    def put(self, *commands: bytes) -> None:
        """Write encoded commands into the queue, from ``begin`` on; CWRITER stays."""
        for number, command in enumerate(commands):
            at = (self.begin + number * COMMAND_SIZE) % QUEUE_SIZE
            self.memory.write(QUEUE + at, command)

    # --- actors -------------------------------------------------------------------------------------------------------

    async def write(self, who: str, offset: int, size: int, value: int) -> None:
        """A vCPU's store to the ITS: its guest goes on when the write is done."""
        written = self.world.event()
        notes = self.notes

        def told() -> None:
            notes.done[who] = len(notes.lpis)
            written.set()

        await self.trap(offset, size, value, told)
        await written.wait()

    async def trap(self, offset: int, size: int, value: int, done: Callable[[], None]) -> None:
        """The store arrives at the ITS."""
        self.its.post("its", offset, size, value, done)

    # --- what an onlooker sees ----------------------------------------------------------------------------------------

    def register(self, name: str) -> int:
        """A register as it stands; no step."""
        values: Any = self.its.registers.values
        value: int = values.items[self.its.registers.map.index(name)]
        return value

    @property
    def ran(self) -> int:
        """Commands that CREADR has passed."""
        return (self.register("GITS_CREADR") - self.begin) % QUEUE_SIZE // COMMAND_SIZE


def name_things(world: LabWorld, rig: Rig, what: Its | None = None) -> None:
    """Readable names for ladders: of the rig's ITS, or another one."""
    its: Any = rig.its if what is None else what
    registers = its.registers
    for thing, name in (
        (its.control, "its"),
        (its._lock, "its_lock"),
        (its.tables_mutex, "tables mutex"),
        (its.queue._state, "queue"),
        (its.queue._waiters, "waiters"),
        (its.queue._writes, "writes"),
        (registers.values, "GITS"),
        (its._delivery.dirty, "dirty"),
    ):
        if isinstance(thing, WorldMade):
            world.called(thing, name)
    for name in ("GITS_CBASER", "GITS_CREADR", "GITS_CWRITER", "GITS_CTLR", "GITS_BASER0", "GITS_BASER1"):
        world.label(registers.values, registers.map.index(name), name)
    for vcpu, resting in enumerate(its._delivery.resting):
        world.called(resting, f"pending{vcpu}")
        world.called(its.redistributors[vcpu].port, f"gicr{vcpu}")
        world.called(its.redistributors[vcpu].registers.values, f"GICR{vcpu}")
    for at in range(0, QUEUE_SIZE, COMMAND_SIZE):
        world.label(rig.memory, QUEUE + at, f"queue[{at // COMMAND_SIZE}]")
