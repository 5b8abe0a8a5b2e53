"""``msi-during-batch``: a device raises MSIs while a batch of commands changes where they lead.

Two answers came up in the thread: one lock for everything, held over a batch, and a lock that is dropped between
commands. Here commands change things under a spinlock, one command at a time, and an MSI holds it from its look on.
Where the tables are in guest memory, a mutex stands for that: an MSI's three looks are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.gic.commands import COMMAND_SIZE, DISCARD, MAPC, MAPTI, MOVI, Command, encode
from common.gic.lpi import LPI_BASE
from common.gic.registers import GITS_CWRITER
from services.gic_its.core import Its
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.queue import CommandQueue, Words
from services.lab.reach import WorldMade
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.its_rig import CPUS, DEVICE, THREAD, Rig, name_things, run_now
from services.lab.sync import Mutex, Spinlock
from services.lab.world import LabWorld

_TO_1: Final = encode(Command(MOVI, device=DEVICE, event=0, icid=1))
_TO_0: Final = encode(Command(MOVI, device=DEVICE, event=0, icid=0))
_UNMAP_0: Final = encode(Command(MAPC, icid=0))
_AWAY: Final = encode(Command(DISCARD, device=DEVICE, event=0))
_AGAIN: Final = encode(Command(MAPTI, device=DEVICE, event=0, intid=LPI_BASE, icid=1))
_0_TO_VCPU_1: Final = encode(Command(MAPC, icid=0, rdbase=1, valid=1))


@dataclass(slots=True, frozen=True)
class Input:
    """``batch`` runs while the device raises event 0, ``msis`` times. ``held``: vCPU 0 has taken an MSI before and not
    ended it, so that what comes next stays pending. ``mapped``: the event is, at any time: no MSI may be dropped."""

    name: str
    batch: tuple[bytes, ...]
    held: bool = False
    mapped: bool = True
    msis: int = 1
    profile: Profile = KVM


_BATCHES: Final = (
    Input("moved", (_TO_1, _UNMAP_0)),
    Input("moved while held", (_TO_1,), held=True, msis=2),
    Input("there and back", (_TO_1, _TO_0), held=True),
    Input("discarded", (_AWAY, _AGAIN), mapped=False),
    Input("the collection moves", (_0_TO_VCPU_1,), held=True),
)
#: In QEMU's layout nothing is held and MAPC takes nothing along: what is pending stays where it is.
_LOOKED_UP: Final = (
    Input("moved, looked up", (_TO_1, _UNMAP_0), profile=QEMU),
    Input("moved while held, looked up", (_TO_1,), held=True, profile=QEMU),
)
INPUTS: Final = (*_BATCHES, *_LOOKED_UP)


class Timed(Spinlock):
    """The lock that MSIs wait for: how many commands run in its longest hold."""

    __slots__ = ("rig", "start")

    def __init__(self, rig: Msis) -> None:
        super().__init__(rig.world.run, "spinlock")
        self.rig = rig
        self.start = 0

    def take(self) -> None:
        super().take()
        self.start = self.rig.ran

    def drop(self) -> None:
        self.rig.note_hold(self.rig.ran - self.start)
        super().drop()


class Whole(Mutex):
    """A mutex in the place of the spinlock; who has it already just goes on."""

    __slots__ = ("depth", "rig", "start")

    def __init__(self, rig: Msis) -> None:
        super().__init__(rig.world.run, "mutex")
        self.rig = rig
        self.depth = 0
        self.start = 0

    def take(self) -> None:
        if self.owner is None or self.owner is not self.run.current:
            super().take()
            self.start = self.rig.ran
        self.depth += 1

    def drop(self) -> None:
        self.depth -= 1
        if not self.depth:
            self.rig.note_hold(self.rig.ran - self.start)
            super().drop()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *error: object) -> None:
        self.drop()


class Msis(Rig):
    """The rig with a vCPU that hands over a batch, and a device."""

    __slots__ = ("given",)

    given: Final[Input]

    def __init__(self, world: LabWorld, given: Input) -> None:
        self.given = given
        super().__init__(world, given.profile)
        self.program()
        self.put(*given.batch)
        if given.held:
            assert run_now(self.its.msi(DEVICE, 0, 1)) == ""

    def spinlock(self) -> Any:
        return Timed(self)

    def note_hold(self, commands: int) -> None:
        """The lock was held while so many commands were run."""
        self.notes.holds = max(self.notes.holds, commands)

    async def vcpu(self) -> None:
        """Hands the batch over."""
        await self.write("vcpu", GITS_CWRITER, 8, len(self.given.batch) * COMMAND_SIZE)

    async def device(self) -> None:
        """Raises the event. What is dropped is not raised again."""
        first = 2 if self.given.held else 1
        for number in range(first, first + self.given.msis):
            why = await self.its.msi(DEVICE, 0, number)
            if not why:
                self.notes.taken = number
            elif self.given.mapped:
                self.notes.wrong(f"an MSI is dropped ({why}), though its event is mapped at any time")


class _Nothing(WorldMade):
    """A lock that locks nothing."""

    __slots__ = ("lab_name",)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None: ...


class NoLock(Msis):
    """MSIs look and act while a command changes things."""

    __slots__ = ()

    def spinlock(self) -> Any:
        return _Nothing()


class NoMutex(Msis):
    """An MSI's looks at guest memory may lie around a command."""

    __slots__ = ()

    def mutex(self) -> Any:
        return _Nothing()


class WholeQueue(CommandQueue):
    """The lock is held from the first command of a batch to the last."""

    __slots__ = ()

    async def _execute(self, words: list[Words | None]) -> int:
        with self._lock:
            return await super()._execute(words)


class WholeIts(Its):
    """The ITS with it."""

    __slots__ = ()

    queue_class = WholeQueue


class WholeBatch(Msis):
    """As the review's mutex, if MSIs took it, too."""

    __slots__ = ()

    its_class = WholeIts

    def spinlock(self) -> Any:
        return Whole(self)


def pending_there(rig: Msis) -> str | None:
    """What is pending has gone where the event leads now."""
    event = run_now(rig.its.tables.event(DEVICE, 0))
    assert event is not None
    leads = run_now(rig.its.tables.vcpu(event.icid))
    left = [intid for vcpu in range(CPUS) if vcpu != leads for intid in rig.its.pending(vcpu)]
    return f"the event leads to vCPU {leads}, pending elsewhere: {left}" if left else None


def none_lost(rig: Msis) -> str | None:
    """When the vCPUs have ended what they were given, again and again, every MSI that was taken is confirmed."""
    its, notes = rig.its, rig.notes
    ended = 0
    while ended < len(notes.lpis):
        its.eoi(*notes.lpis[ended])
        ended += 1
    if its.stats.stray_eois:
        return f"{its.stats.stray_eois} LPIs were delivered of which the ITS knows nothing: {notes.lpis}"
    if notes.taken and notes.confirmed.get(0) != notes.taken:
        return f"MSI {notes.taken} was taken, {notes.confirmed.get(0, 0)} is confirmed; delivered: {notes.lpis}"
    left = [its.pending(vcpu) for vcpu in range(CPUS)]
    raised = rig.given.msis + rig.given.held
    if any(left) or ended > raised:
        return f"{raised} MSIs, {ended} deliveries, pending: {left}"
    if rig.ran != len(rig.given.batch):
        return f"{rig.ran} of {len(rig.given.batch)} commands ran"
    return None


def short_holds(rig: Msis) -> str | None:
    """No MSI waits for more than a command."""
    return f"MSIs wait while {rig.notes.holds} commands run" if rig.notes.holds > 1 else None


def build(rig_class: type[Msis], inputs: Sequence[Input]) -> Build:
    """Every one of ``inputs``."""

    def setup(world: LabWorld) -> Checks:
        rig = rig_class(world, inputs[world.choice(len(inputs), "input")])
        name_things(world, rig)
        world.spawn("vcpu", rig.vcpu())
        world.spawn("device", rig.device())
        return Checks(final=lambda: pending_there(rig) or none_lost(rig) or short_holds(rig))

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1, limit=4000)

SCENARIO: Final = register(
    Scenario(
        name="msi-during-batch",
        thread=THREAD,
        about="MSIs come while commands change where they lead",
        variants=(
            Variant("no-lock", "fails", build(NoLock, _BATCHES), "no lock around a translation", BUDGET),
            Variant("no-mutex", "fails", build(NoMutex, _LOOKED_UP), "tables in memory, looks one by one", BUDGET),
            Variant("lock-over-batch", "fails", build(WholeBatch, INPUTS), "MSIs wait for all of a batch", BUDGET),
            Variant("shipped", "holds", build(Msis, INPUTS), "the lock around each change", BUDGET),
        ),
    )
)
