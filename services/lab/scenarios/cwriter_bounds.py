"""``cwriter-bounds``: a GITS_CWRITER that CREADR never meets.

The fourth version of KVM's ITS emulation drops a CWRITER beyond the queue ``if (reg > its_cmd_buffer_size())``. The
size itself passes, but CREADR goes from the last command to 0: it is never there, and old commands run for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.gic.commands import COMMAND_SIZE
from common.gic.lpi import LPI_BASE
from common.gic.registers import GITS_CWRITER
from services.gic_its.profile import KVM, QEMU, Profile
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.cwriter_two_writers import AsPosted, Input, Write, Writers, ran_once
from services.lab.scenarios.its_rig import OLD, QUEUE_SIZE, THREAD, name_things
from services.lab.world import LabWorld

#: Two commands before the end of the queue.
BEGIN: Final = QUEUE_SIZE - 2 * COMMAND_SIZE


@dataclass(slots=True, frozen=True)
class Bad(Input):
    """vCPU 0 stores ``bad``, and then what it should have: two commands fill the queue up to its end, CWRITER is 0."""

    bad: int = QUEUE_SIZE


def _bad(value: int, profile: Profile) -> Bad:
    return Bad(f"{value:#x}, {profile.name}", (Write(0, 2),), profile=profile, begin=BEGIN, bad=value)


#: The end, one command past it, and the largest offset that the register holds.
INPUTS: Final = tuple(
    _bad(value, profile) for profile in (KVM, QEMU) for value in (QUEUE_SIZE, QUEUE_SIZE + COMMAND_SIZE, 0xF_FFE0)
)


class Shipped(Writers):
    """One vCPU. A write that is past the queue must run nothing."""

    __slots__ = ()

    async def vcpu(self, number: int) -> None:
        given = self.given
        assert isinstance(given, Bad)
        await self.write("bad", GITS_CWRITER, 8, given.bad)
        reads = self.its.read("its", GITS_CWRITER, 8)
        wanted = given.begin if given.profile.drops_cwriter_past_queue else given.bad
        if reads != wanted:
            self.notes.wrong(f"CWRITER reads {reads:#x}, wanted {wanted:#x}")
        await self.write("right", GITS_CWRITER, 8, given.writes[0].value)

    def on_lpi(self, vcpu: int, intid: int, number: int) -> None:
        if intid == LPI_BASE + OLD:
            reads, writes = self.register("GITS_CREADR"), self.register("GITS_CWRITER")
            self.notes.wrong(f"a command of the lap before runs: CREADR {reads:#x} never meets CWRITER {writes:#x}")
        super().on_lpi(vcpu, intid, number)


class Posted(Shipped, AsPosted):
    """``>`` where ``>=`` is meant."""

    __slots__ = ()


def done_when_run(rig: Shipped) -> str | None:
    """The bad write is over when nothing has run, the right one when both commands have."""
    told = rig.notes.done
    return None if told == {"bad": 0, "right": 2} else f"LPIs that had come when the writes were done: {told}"


def build(rig_class: type[Shipped], inputs: Sequence[Bad]) -> Build:
    """Every one of ``inputs``."""

    def setup(world: LabWorld) -> Checks:
        rig = rig_class(world, inputs[world.choice(len(inputs), "input")])
        name_things(world, rig)
        world.spawn("vcpu0", rig.vcpu(0))
        return Checks(final=lambda: ran_once(rig) or done_when_run(rig))

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=2, limit=4000)

SCENARIO: Final = register(
    Scenario(
        name="cwriter-bounds",
        thread=THREAD,
        about="CWRITER at the end of the queue, and past it",
        variants=(
            Variant("as-posted", "fails", build(Posted, INPUTS[:1]), "the size of the queue passes the check", BUDGET),
            Variant("shipped", "holds", build(Shipped, INPUTS), "dropped, or stored and nothing runs", BUDGET),
        ),
    )
)
