"""The rig of the ITS scenarios: it runs the classes that ship, its notes say what came."""

from __future__ import annotations

from typing import Any

import pytest

from common.gic.lpi import LPI_BASE
from common.registers import RegisterFile
from services.gic_its.commands import Commands
from services.gic_its.core import Its
from services.gic_its.delivery import Delivery
from services.gic_its.guest_tables import GuestTables
from services.gic_its.held_tables import HeldTables
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.queue import CommandQueue
from services.gic_its.redistributor import Redistributor
from services.lab.scenarios.its_rig import OLD, QUEUE, Rig, interrupt, name_things, run_now
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld


def made(profile: Profile = KVM) -> Rig:
    """A rig that is programmed; no actor has run."""
    world = LabWorld(Run(Replay([]), 100))
    rig = Rig(world, profile)
    rig.program()
    name_things(world, rig)
    return rig


@pytest.mark.parametrize(
    "cls", [Its, CommandQueue, Commands, Delivery, Redistributor, RegisterFile, HeldTables, GuestTables]
)
def test_the_lab_runs_the_classes_that_services_run(cls: type[Any]) -> None:
    its: Any = made(QEMU if cls is GuestTables else KVM).its
    things = [its, its.queue, its.runs, its._delivery, its.redistributors[0], its.registers, its.tables]
    thing = next(thing for thing in things if isinstance(thing, cls))
    functions = [n for n, f in vars(cls).items() if callable(f) and n not in ("__class__", "queue_class")]
    assert functions
    for name in functions:
        assert getattr(type(thing), name) is getattr(cls, name), name


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda p: p.name)
def test_what_is_mapped_before_a_run(profile: Profile) -> None:
    rig = made(profile)
    assert rig.memory.read(QUEUE, 32) == interrupt(OLD)
    for event in (0, 5, OLD):
        rig.carry_out(interrupt(event))
    assert rig.notes.lpis == [(0, LPI_BASE + event, 0) for event in (0, 5, OLD)]
    assert run_now(rig.its.msi(1, 1, 1)) == ""
    assert rig.notes.lpis[-1] == (0, LPI_BASE + 1, 1)
    rig.its.eoi(*rig.notes.lpis[-1])
    assert rig.notes.confirmed == {1: 1}
    assert (rig.ran, rig.notes.done) == (0, {})


def test_a_coroutine_that_waits_does_not_run_now() -> None:
    class Waits:
        def __await__(self) -> Any:
            yield None

    async def wait() -> None:
        await Waits()

    with pytest.raises(AssertionError, match="it waits"):
        run_now(wait())
