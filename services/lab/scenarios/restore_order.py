"""``restore-order``: an ITS is made again from guest memory and saved registers, in another order than KVM's.

The guest had two INTs in its queue. One has run, and its LPI was taken; the other one is to run after the restore, and
a device waits with an MSI. KVM's documentation gives the order: redistributors, CBASER, the other registers but CTLR,
tables, CTLR. And what is in no table, as the *collections in hardware* of the posted ITS, is in no saved ITS either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from common.errors import CallError
from common.gic import vmm_ops as ops
from common.gic.commands import COMMAND_SIZE
from common.gic.lpi import LPI_BASE
from common.gic.registers import IIDR_REVISION
from common.gic.saved import DIST_REGISTERS, ITS_REGISTERS, REDIST_REGISTERS, SavedIts
from services.gic_its import snapshot
from services.gic_its.core import Its
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.uaccess import Uaccess
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.its_rig import (
    COLLECTIONS,
    CPUS,
    DEVICE,
    THREAD,
    Rig,
    interrupt,
    name_things,
    run_now,
)
from services.lab.world import LabWorld

#: What has run before the ITS was saved, what is queued, and what the device raises afterwards.
RAN, QUEUED, RAISED = 0, 1, 2


@dataclass(slots=True, frozen=True)
class Input:
    """``revision``: of the tables, as GITS_IIDR said when they were saved; only 0 is known."""

    name: str
    profile: Profile = KVM
    revision: int = 0


KVM_ITS: Final = Input("kvm")
QEMU_ITS: Final = Input("qemu", QEMU)
UNKNOWN: Final = Input("tables of another revision", revision=1)
#: KVM's order.
ORDER: Final = (
    "redistributors",
    "distributor",
    "GITS_IIDR",
    "GITS_CBASER",
    "GITS_CWRITER",
    "GITS_CREADR",
    *(f"GITS_BASER{n}" for n in range(8)),
    "tables",
    "GITS_CTLR",
)


def moved(step: str, before: str = "") -> tuple[str, ...]:
    """KVM's order with ``step`` put before another one, or at the end."""
    rest = [other for other in ORDER if other != step]
    rest.insert(rest.index(before) if before else len(rest), step)
    return tuple(rest)


class Restore(Rig):
    """An ITS that was saved, another one over its memory, a VMM that restores it and a device that raises an MSI."""

    __slots__ = ("given", "over", "restored", "saved")

    given: Final[Input]
    over: Final[Any]
    restored: Final[Its]
    saved: Final[tuple[Any, ...]]

    def __init__(self, world: LabWorld, given: Input) -> None:
        super().__init__(world, given.profile)
        self.given = given
        self.over = world.event()
        world.called(self.over, "restored")
        self.program()
        self.carry_out(interrupt(RAN))
        vcpu, intid, number = self.notes.lpis.pop()
        self.its.eoi(vcpu, intid, number)
        self.put(interrupt(RAN), interrupt(QUEUED))
        self.its.registers.set("GITS_CREADR", COMMAND_SIZE)
        self.its.registers.set("GITS_CWRITER", 2 * COMMAND_SIZE)
        saved = run_now(snapshot.save(self.its))
        iidr = saved.its["GITS_IIDR"] & ~IIDR_REVISION.mask | IIDR_REVISION.put(given.revision)
        self.saved = freeze(saved, iidr)
        self.restored = self.make_its()

    # --- actors -------------------------------------------------------------------------------------------------------

    async def vmm(self) -> None:
        """Restores the ITS and lets the vCPUs run."""
        try:
            await self.restore()
        except CallError as error:
            if not self.given.revision:
                self.notes.wrong(f"the restore is refused: {error}")
        else:
            self.restored.resume()
        self.over.set()

    async def restore(self) -> None:
        """As it ships."""
        await snapshot.restore(self.restored, thaw(self.saved))

    async def device(self) -> None:
        """One MSI, which is raised again when the restore is over if the ITS has not taken it."""
        if await self.restored.msi(DEVICE, RAISED, 1):
            await self.over.wait()
            await self.restored.msi(DEVICE, RAISED, 1)

    # --- what an onlooker sees ----------------------------------------------------------------------------------------

    def maps(self, its: Its) -> list[tuple[int, int, int]]:
        """(event, INTID, vCPU) of all that is mapped."""
        found = []
        for event in range(16):
            known = run_now(its.tables.event(DEVICE, event))
            if known is not None:
                found.append((event, known.intid, run_now(its.tables.vcpu(known.icid))))
        return found


def freeze(saved: SavedIts, iidr: int) -> tuple[Any, ...]:
    """What actors may share of a saved ITS."""
    its = {**saved.its, "GITS_IIDR": iidr}
    return saved.profile, tuple(saved.dist.items()), tuple(tuple(r.items()) for r in saved.redists), tuple(its.items())


def thaw(frozen: tuple[Any, ...]) -> SavedIts:
    """The saved ITS of :func:`freeze`."""
    profile, dist, redists, its = frozen
    return SavedIts(
        profile=profile, cpus=CPUS, dist=dict(dist), redists=[dict(r) for r in redists], its=dict(its), memory=[]
    )


class Ordered(Restore):
    """The steps of a restore in an order of one's own."""

    __slots__ = ()

    order: ClassVar[tuple[str, ...]] = ORDER

    async def restore(self) -> None:
        user = Uaccess(self.restored)
        await user.call(ops.STOP_VCPUS, ())
        await user.call(ops.CTRL_RESET, ())
        saved = thaw(self.saved)
        for step in self.order:
            if step == "redistributors":
                for vcpu, registers in enumerate(saved.redists):
                    for name in ("GICR_PROPBASER", "GICR_PENDBASER", "GICR_CTLR"):
                        await user.call(ops.SET_REDIST_REG, (vcpu, REDIST_REGISTERS[name], registers[name]))
            elif step == "distributor":
                await user.call(ops.SET_DIST_REG, (DIST_REGISTERS["GICD_CTLR"], saved.dist["GICD_CTLR"]))
            elif step == "tables":
                await user.call(ops.RESTORE_TABLES, ())
            else:
                await user.call(ops.SET_ITS_REG, (ITS_REGISTERS[step], saved.its[step]))


class CreadrTooEarly(Ordered):
    """Before CBASER, which resets it."""

    __slots__ = ()

    order = moved("GITS_CREADR", "GITS_CBASER")


class CreadrTooLate(Ordered):
    """After CTLR: the queue runs from its start meanwhile."""

    __slots__ = ()

    order = moved("GITS_CREADR")


class CtlrBeforeTables(Ordered):
    """The ITS runs, and nothing is mapped yet."""

    __slots__ = ()

    order = moved("GITS_CTLR", "tables")


class RedistributorsLast(Ordered):
    """The ITS runs, and no redistributor takes LPIs."""

    __slots__ = ()

    order = moved("redistributors")


class IidrLast(Ordered):
    """The tables are read before anybody asks for their revision."""

    __slots__ = ()

    order = moved("GITS_IIDR")


class InHardware(Restore):
    """HCC = 0xff: collections are in the ITS, no table has them."""

    __slots__ = ()

    def __init__(self, world: LabWorld, given: Input) -> None:
        super().__init__(world, given)
        self.memory.write(COLLECTIONS, bytes(0x100))


def as_before(rig: Restore) -> str | None:
    """What was mapped is mapped, what was queued ran once, the MSI came once, and nothing else did."""
    its = rig.restored
    if rig.given.revision:
        return f"mapped from tables that nobody can read: {found}" if (found := rig.maps(its)) else None
    wanted = [LPI_BASE + QUEUED, LPI_BASE + RAISED]
    if sorted(rig.notes.intids) != wanted:
        return f"delivered after the restore: {sorted(rig.notes.intids)}, wanted {wanted}"
    if rig.maps(its) != rig.maps(rig.its):
        return f"mapped: {rig.maps(its)}, before: {rig.maps(rig.its)}"
    left = [its.pending(vcpu) for vcpu in range(CPUS)]
    stands = its.registers.get("GITS_CREADR"), its.registers.get("GITS_CWRITER")
    at_rest = stands == (2 * COMMAND_SIZE, 2 * COMMAND_SIZE) and not any(left)
    return None if at_rest else f"CREADR, CWRITER are {stands}, pending {left}"


def build(rig_class: type[Restore], inputs: Sequence[Input] = (KVM_ITS,)) -> Build:
    """Every one of ``inputs``."""

    def setup(world: LabWorld) -> Checks:
        rig = rig_class(world, inputs[world.choice(len(inputs), "input")])
        name_things(world, rig, rig.restored)
        world.spawn("vmm", rig.vmm())
        world.spawn("device", rig.device())
        control = rig.restored.control

        def unread() -> str | None:
            return "tables are read whose revision is not known" if control.events else None

        return Checks(final=lambda: as_before(rig), step=unread if rig.given.revision else None)

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1, limit=6000)


def _fails(name: str, rig: type[Restore], about: str, given: Input = KVM_ITS, alias: str = "") -> Variant:
    return Variant(name, "fails", build(rig, (given,)), about, BUDGET, alias)


SCENARIO: Final = register(
    Scenario(
        name="restore-order",
        thread=THREAD,
        about="an ITS is restored: in which order, and from what?",
        variants=(
            _fails(
                "creadr-before-cbaser", CreadrTooEarly, "CBASER resets it: commands run twice", alias="creadr-too-early"
            ),
            _fails("creadr-after-ctlr", CreadrTooLate, "the queue runs from its start", alias="creadr-too-late"),
            _fails("ctlr-before-tables", CtlrBeforeTables, "commands find nothing mapped"),
            _fails("redistributors-last", RedistributorsLast, "commands find LPIs disabled"),
            _fails("iidr-after-tables", IidrLast, "tables of an unknown revision are read", UNKNOWN),
            _fails("collections-in-hardware", InHardware, "HCC = 0xff: no table holds them"),
            _fails("collections-not-checked", InHardware, "the same, nobody checks: events lead nowhere", QEMU_ITS),
            Variant("shipped", "holds", build(Restore, (KVM_ITS, QEMU_ITS, UNKNOWN)), "KVM's order", BUDGET),
        ),
    )
)
