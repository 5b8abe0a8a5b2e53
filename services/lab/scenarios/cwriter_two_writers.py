"""``cwriter-two-writers``: two vCPUs write GITS_CWRITER, and somebody has to run their commands.

KVM's ITS emulation as posted in its fourth version: the first writer runs the commands of all, a second one leaves
CWRITER to it. The review asked for a mutex over the whole batch instead. Here the ITS has a runner of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from common.gic.commands import COMMAND_SIZE, WORDS
from common.gic.lpi import LPI_BASE
from common.gic.registers import GITS_CWRITER, QUEUE_OFFSET
from services.gic_its.profile import KVM, Profile
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.its_rig import QUEUE, QUEUE_SIZE, THREAD, Rig, interrupt, name_things
from services.lab.world import LabWorld


@dataclass(slots=True, frozen=True)
class Write:
    """A store to CWRITER: ``at`` and ``size`` in bytes, the value of the whole register; ``commands`` that it adds."""

    value: int
    commands: int = 0
    at: int = 0
    size: int = 8


@dataclass(slots=True, frozen=True)
class Input:
    """vCPU n makes the store ``writes[n]``. ``ordered``: each reads CWRITER until the one before is there."""

    name: str
    writes: tuple[Write, ...]
    ordered: bool = False
    profile: Profile = KVM
    #: where the queue is empty at first
    begin: int = 0x40

    @property
    def commands(self) -> int:
        return sum(write.commands for write in self.writes)


def to(commands: int) -> int:
    """CWRITER behind so many commands."""
    return (0x40 + commands * COMMAND_SIZE) % QUEUE_SIZE


#: What the guest's lock gives: slots are taken and stores are made in one order; nobody waits with the lock held.
ORDERED: Final = Input("in order", (Write(to(2), 2), Write(to(3), 1)), ordered=True)
#: A guest of 32 bits, in which one vCPU stores the lower half and another one the upper half.
HALVES: Final = Input("halves", (Write(to(2), 2, size=4), Write(0, at=4, size=4)))
#: vCPU 1 stores what lies past the queue.
PAST: Final = Input("past the queue", (Write(to(2), 2), Write(QUEUE_SIZE + COMMAND_SIZE)))
INPUTS: Final = (ORDERED, HALVES, PAST)
#: Three, each with a command of its own: somebody comes while the runner counts.
THREE: Final = Input("three", tuple(Write(to(n), 1) for n in (1, 2, 3)), ordered=True)


class Writers(Rig):
    """The rig with two vCPUs. Whatever is delivered out of turn, or again, ends the run."""

    __slots__ = ("given",)

    given: Final[Input]

    def __init__(self, world: LabWorld, given: Input) -> None:
        self.given = given
        super().__init__(world, given.profile, given.begin)
        self.program()
        self.put(*map(interrupt, range(given.commands)))

    def actors(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [(f"vcpu{n}", self.vcpu(n)) for n in range(len(self.given.writes))]

    async def vcpu(self, number: int) -> None:
        writes = self.given.writes
        if self.given.ordered and number:
            while self.its.read("its", GITS_CWRITER, 8) != writes[number - 1].value:
                await self.world.relax()
        write = writes[number]
        await self.write(f"vcpu{number}", GITS_CWRITER + write.at, write.size, write.value >> write.at * 8)

    def on_lpi(self, vcpu: int, intid: int, number: int) -> None:
        wanted = LPI_BASE + len(self.notes.lpis)
        if intid != wanted or intid >= LPI_BASE + self.given.commands:
            self.notes.wrong(f"the INT of LPI {intid} runs where that of LPI {wanted} is next")
        super().on_lpi(vcpu, intid, number)

    # --- for variants in which writers run commands -------------------------------------------------------------------

    def store(self, offset: int, size: int, value: int) -> bool:
        """CWRITER takes its value, with the checks of the profile. False: the write is dropped."""
        return self.its.registers.write(offset, size, value) is not None

    async def run_one(self) -> None:
        """Fetch and run the command at CREADR."""
        words = WORDS.unpack(await self.its.dma.read(QUEUE + self.its.registers.get("GITS_CREADR"), COMMAND_SIZE))
        handler = self.its.runs.handlers.get(words[0] & 0xFF)
        if handler is not None:
            await handler(*words)

    def step(self) -> None:
        """CREADR moves on."""
        registers = self.its.registers
        registers.set("GITS_CREADR", (registers.get("GITS_CREADR") + COMMAND_SIZE) % QUEUE_SIZE)

    @property
    def empty(self) -> bool:
        return self.its.registers.get("GITS_CREADR") == self.its.registers.get("GITS_CWRITER")


class NoLock(Writers):
    """Every writer runs commands until CREADR is at CWRITER."""

    __slots__ = ()

    async def trap(self, offset: int, size: int, value: int, done: Callable[[], None]) -> None:
        if self.store(offset, size, value):
            while not self.empty:
                await self.run_one()
                self.step()
        done()


class AsPosted(Writers):
    """Version 4: CWRITER is merged outside the lock, and compared with ``>``; who finds the queue empty runs it."""

    __slots__ = ("lock",)

    lock: Final[Any]

    def __init__(self, world: LabWorld, given: Input) -> None:
        super().__init__(world, given)
        self.lock = world.spinlock()
        world.called(self.lock, "its->lock")

    async def trap(self, offset: int, size: int, value: int, done: Callable[[], None]) -> None:
        registers = self.its.registers
        shift, mask = (offset - GITS_CWRITER) * 8, (1 << size * 8) - 1
        old = registers.get("GITS_CWRITER") & QUEUE_OFFSET
        new = (old & ~(mask << shift) | (value & mask) << shift) & (QUEUE_OFFSET | QUEUE_SIZE)
        if new > QUEUE_SIZE:
            done()
            return
        with self.lock:
            finished = not self.empty or new == registers.get("GITS_CREADR")
            registers.set("GITS_CWRITER", new)
        while not finished:
            await self.run_one()
            with self.lock:
                self.step()
                finished = self.empty
        done()


class Mutex(Writers):
    """As merged: a mutex over merge, store and batch."""

    __slots__ = ("cmd_lock",)

    cmd_lock: Final[AbstractAsyncContextManager[Any]]

    def __init__(self, world: LabWorld, given: Input) -> None:
        super().__init__(world, given)
        self.cmd_lock = world.mutex()
        world.called(self.cmd_lock, "cmd_lock")

    async def trap(self, offset: int, size: int, value: int, done: Callable[[], None]) -> None:
        async with self.cmd_lock:
            before = self.ran
            if self.store(offset, size, value):
                while not self.empty:
                    await self.run_one()
                    self.step()
            self.notes.holds = max(self.notes.holds, self.ran - before)
            done()


def ran_once(rig: Writers) -> str | None:
    """Each command ran once, in order, and the queue is at rest behind them."""
    count = rig.given.commands
    if rig.notes.intids != [LPI_BASE + n for n in range(count)]:
        return f"{count} commands were queued, delivered: {rig.notes.intids}"
    again = [intid for vcpu in range(2) for intid in rig.its.pending(vcpu)]
    if again:
        return f"run again: the INTs of {again}"
    stands = rig.register("GITS_CREADR"), rig.register("GITS_CWRITER")
    wanted = (rig.begin + count * COMMAND_SIZE) % QUEUE_SIZE
    return None if stands == (wanted, wanted) else f"CREADR, CWRITER are {stands}, behind the commands is {wanted}"


def waited(rig: Writers) -> str | None:
    """Who wrote in order was told when its commands, and those before, had run: neither earlier nor later."""
    before = 0
    for number, write in enumerate(rig.given.writes):
        before += write.commands
        told = rig.notes.done[f"vcpu{number}"]
        if rig.given.ordered and told != before:
            return f"vcpu{number} waits for {before} commands; when its write was done {told} had run"
    return None


def no_batch_of_others(rig: Writers) -> str | None:
    """Nobody runs commands while another writer cannot get on."""
    return f"a writer waits while {rig.notes.holds} commands of another run" if rig.notes.holds > 1 else None


Check = Callable[[Any], str | None]
ALL: Final = (ran_once, waited, no_batch_of_others)


def build(rig_class: type[Writers], inputs: Sequence[Input], checks: Sequence[Check] = ALL) -> Build:
    """Every one of ``inputs``, in a rig of this class."""

    def setup(world: LabWorld) -> Checks:
        rig = rig_class(world, inputs[world.choice(len(inputs), "input")])
        name_things(world, rig)
        for name, actor in rig.actors():
            world.spawn(name, actor)
        return Checks(final=lambda: next((wrong for check in checks if (wrong := check(rig)) is not None), None))

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1, limit=4000)

SCENARIO: Final = register(
    Scenario(
        name="cwriter-two-writers",
        thread=THREAD,
        about="two vCPUs write CWRITER: who runs whose commands, and who waits for them?",
        variants=(
            Variant("no-lock", "fails", build(NoLock, (ORDERED,)), "every writer runs the queue", BUDGET),
            Variant("as-posted", "fails", build(AsPosted, (HALVES,)), "CWRITER is merged outside the lock", BUDGET),
            Variant(
                "first-runs-all", "fails", build(AsPosted, (ORDERED,)), "the first writer runs what others add", BUDGET
            ),
            Variant(
                "mutex", "holds", build(Mutex, INPUTS, (ran_once, waited)), "as merged: one mutex over a batch", BUDGET
            ),
            Variant("mutex-wait", "fails", build(Mutex, (PAST,)), "the same: who writes nonsense waits, too", BUDGET),
            Variant("shipped", "holds", build(Writers, INPUTS), "a runner; writers wait for what was queued", BUDGET),
        ),
    )
)
