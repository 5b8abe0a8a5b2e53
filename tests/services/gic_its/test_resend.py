"""Nothing is lost or doubled: devices that number their MSIs and send them again until they are confirmed, whatever
the guest does to its interrupts meanwhile."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import config_byte
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import ITT, PENDING, Rig

#: Events of device 1 and their LPIs: two share one.
LPIS = (8192, 8193, 8193)
EVENTS = len(LPIS)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["msi", "msi", "msi", "msi", "again", "again", "eoi", "eoi", "eoi", "int", "clear", "discard", "remap",
             "movi", "movall", "mapc", "unmapc", "unmapd", "off", "on", "hold", "run", "group", "lpis_off", "lpis_on",
             "disable", "enable"]
        ),
        st.integers(0, EVENTS - 1),
        st.integers(0, 1),
    ),
    max_size=60,
)  # fmt: skip


class World:
    def __init__(self, profile: Profile) -> None:
        self.rig = Rig(cpus=2, profile=profile)
        self.raised = [0] * EVENTS
        self.msis = 0
        self.others = 0

    async def start(self) -> None:
        await self.rig.start()
        await self.map_all()

    async def map_all(self) -> None:
        await self.rig.run(
            Command(op.MAPD, device=1, size=3, itt=ITT, valid=1),
            *(Command(op.MAPC, icid=icid, rdbase=icid, valid=1) for icid in range(2)),
            *(Command(op.MAPTI, device=1, event=n, intid=intid, icid=0) for n, intid in enumerate(LPIS)),
        )

    async def run(self, *commands: Command) -> None:
        """They wait in the queue where the ITS is off."""
        self.rig.queue(*commands)
        await self.rig.write(0x88, self.rig.at)

    async def msi(self, event: int) -> None:
        if self.raised[event]:
            self.msis += 1
            await self.rig.its.msi(1, event, self.raised[event])

    def confirmed(self, event: int) -> int:
        return max((number for _, which, number in self.rig.done if which == event), default=0)

    def held(self) -> list[tuple[int, int, int]]:
        """What vCPUs hold: deliveries whose EOI is to come."""
        return [(lpi.port.vcpu, lpi.intid, lpi.out) for rd in self.rig.its.redistributors for lpi in rd if lpi.out >= 0]

    async def step(self, kind: str, event: int, cpu: int) -> None:
        rig, its = self.rig, self.rig.its
        match kind:
            case "msi":
                self.raised[event] += 1
                await self.msi(event)
            case "again":
                await self.msi(event)
            case "eoi":
                for vcpu, intid, number in self.held():
                    if vcpu == cpu:
                        its.eoi(vcpu, intid, number)
            case "int":
                self.others += 1
                await self.run(Command(op.INT, device=1, event=event))
            case "clear" | "discard":
                await self.run(Command(op.CLEAR if kind == "clear" else op.DISCARD, device=1, event=event))
            case "remap":
                await self.run(Command(op.MAPTI, device=1, event=event, intid=LPIS[event], icid=cpu))
            case "movi":
                await self.run(Command(op.MOVI, device=1, event=event, icid=cpu))
            case "movall":
                await self.run(Command(op.MOVALL, rdbase=cpu, rdbase2=1 - cpu))
            case "mapc" | "unmapc":
                await self.run(Command(op.MAPC, icid=cpu, rdbase=event % 2, valid=int(kind == "mapc")))
            case "unmapd":
                await self.run(Command(op.MAPD, device=1, valid=0))
            case "off" | "on":
                rig.config(LPIS[event], config_byte(kind == "on", 0x40 * cpu))
                await self.run(*(Command(op.INVALL, icid=icid) for icid in range(2)))
            case "hold":
                its.hold()
            case "run":
                its.resume()
            case "group":
                await rig.write(0, 0x13 if cpu else 0x11, 4, "gicd")
            case "lpis_off" | "lpis_on":
                self.others += 2
                await rig.write(0x78, PENDING + cpu * 0x20000, frame=f"gicr{cpu}")
                await rig.write(0, int(kind == "lpis_on"), 4, f"gicr{cpu}")
            case _:
                await rig.write(0, int(kind == "enable"), 4)

    async def settle(self, remap: bool = True) -> None:
        """All is on and, with ``remap``, mapped anew; devices send what was not confirmed, vCPUs end what they hold."""
        rig, its = self.rig, self.rig.its
        its.resume()
        await rig.write(0, 0x13, 4, "gicd")
        await rig.write(0, 1, 4)
        for cpu in range(2):
            await rig.write(0, 1, 4, f"gicr{cpu}")
            self.others += 2
        for intid in LPIS:
            rig.config(intid, config_byte(True))
        if remap:
            await self.map_all()
        await self.run(*(Command(op.INVALL, icid=icid) for icid in range(2)))
        for cpu in range(2):
            await rig.its.redistributors[cpu].refresh_all()
        for _ in range(4):
            for event in range(EVENTS):
                if self.confirmed(event) < self.raised[event]:
                    await self.msi(event)
            for held in self.held():
                its.eoi(*held)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([KVM, QEMU]))
async def test_whatever_happens_all_that_was_raised_is_confirmed(
    steps: list[tuple[str, int, int]], profile: Profile
) -> None:
    world = World(profile)
    await world.start()
    for kind, event, cpu in steps:
        await world.step(kind, event, cpu)
        assert world.rig.its.control.outstanding == len(world.held())
        for number in range(EVENTS):
            assert world.confirmed(number) <= world.raised[number]
    await world.settle()
    assert [world.confirmed(event) for event in range(EVENTS)] == world.raised
    assert world.held() == []
    assert world.rig.its.control.outstanding == 0
    assert world.rig.its.pending(0) == world.rig.its.pending(1) == []
    # each delivery had a cause of its own
    assert len(world.rig.taken) <= world.msis + world.others
    for event in range(EVENTS):
        numbers = [number for _, which, number in world.rig.done if which == event]
        assert numbers == sorted(numbers)


CALM = st.lists(
    st.tuples(
        st.sampled_from(["msi", "msi", "again", "eoi", "movi", "off", "on", "hold", "run", "group"]),
        st.integers(0, EVENTS - 1),
        st.integers(0, 1),
    ),
    max_size=50,
)


@settings(max_examples=100, deadline=None)
@given(CALM, st.sampled_from([KVM, QEMU]))
async def test_where_nothing_is_taken_away_no_number_is_delivered_twice(
    steps: list[tuple[str, int, int]], profile: Profile
) -> None:
    world = World(profile)
    await world.start()
    for kind, event, cpu in steps:
        await world.step(kind, event, cpu)
    await world.settle(remap=False)
    assert [world.confirmed(event) for event in range(EVENTS)] == world.raised
    counted = [number for _, intid, number in world.rig.taken if intid == LPIS[0]]  # of one event only
    assert counted == sorted(set(counted))
    shared = [number for _, intid, number in world.rig.taken if intid == LPIS[1]]
    assert len(shared) <= world.raised[1] + world.raised[2]
