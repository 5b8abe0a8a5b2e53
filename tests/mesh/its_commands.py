"""What eight vCPUs say to one ITS at once, and what must have come of it if every command ran once and in order.

All of them work on the same devices. A vCPU chooses its commands by what is mapped after all that was queued before,
and no command is sent that is without effect or wrong then: a command that is lost, run twice or run too early makes a
later one fail, leaves another table behind, or delivers an LPI too many, too few, or elsewhere.

Imported as ``tests.mesh.its_commands``.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from common.gic import commands as op
from common.gic.commands import SPEC, Command
from common.gic.table_layout import LAYOUTS
from services.mesh.scrape import Sample
from tests.mesh.its_guest import CPUS, ItsGuest
from tests.services.guest_driver.mesh_rig import until

FIRST_DEVICE: Final = 0x100
DEVICES: Final = 4
EVENTS: Final = 32
FIRST_LPI: Final = 9000
#: Batches of one vCPU that it does not wait for.
AHEAD: Final = 8
#: Commands of a batch at most.
BATCH: Final = 12


@dataclass(slots=True)
class ToldEvent:
    """One event: where it leads after all that is queued; INTs queued in all, and the vCPUs to which the last one may
    have gone, empty once it was taken."""

    intid: int
    icid: int | None = None
    ints: int = 0
    where: set[int] = field(default_factory=set)


class CommandLoad:
    """The load of one guest's vCPUs."""

    def __init__(self, guest: ItsGuest, seed: int, profile: str = "kvm") -> None:
        self.guest: Final = guest
        self.queue: Final = guest.driver._queue
        self.profile: Final = profile
        self.rng: Final = random.Random(seed)
        self.devices: Final[dict[int, list[ToldEvent]]] = {}
        self.queued: Final[Counter[str]] = Counter()
        self.running = False
        self._tasks: list[asyncio.Task[None]] = []
        #: held from the choice of a batch until it stands in the queue
        self._turn: Final = asyncio.Lock()

    async def start(self) -> None:
        vcpus = self.guest.vcpus
        for n in range(DEVICES):
            device = FIRST_DEVICE + n
            await self.guest.driver.map_device(device, EVENTS)
            self.queued["MAPD"] += 1
            self.devices[device] = [ToldEvent(FIRST_LPI + n * EVENTS + event) for event in range(EVENTS)]
            for event in self.devices[device]:
                vcpus.commanded[event.intid] = 0
                vcpus.at[event.intid] = []
        self.running = True
        self._tasks = [asyncio.get_running_loop().create_task(self._vcpu()) for _ in range(CPUS)]

    async def stop(self) -> None:
        """Queue no more, and wait until all that is queued has run."""
        self.running = False
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        self.running = False
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _vcpu(self) -> None:
        ends: list[int] = []
        while self.running:
            async with self._turn:
                device = self.rng.choice(list(self.devices))
                if self.rng.random() < 0.005:
                    await self._map_device_anew(device)
                batch: list[Command] = []
                for _ in range(self.rng.randint(1, BATCH)):
                    batch += self._command(device)
                self.queued.update(SPEC[command.op].name for command in batch)
                ends.append(await self.queue.post(batch))
            if len(ends) > self.rng.randint(0, AHEAD):
                await self.queue.wait(ends.pop(0))
        for end in ends:
            await self.queue.wait(end)

    def _command(self, device: int) -> list[Command]:
        event, told = self.rng.choice(list(enumerate(self.devices[device])))
        at = {"device": device, "event": event}
        if told.icid is None:
            told.icid = self.rng.randrange(CPUS)
            return [Command(op.MAPTI, **at, intid=told.intid, icid=told.icid)]
        taken = self.guest.vcpus.at[told.intid]
        if told.where and taken:
            assert len(taken) == 1, f"LPI {told.intid} of one INT came at vCPUs {taken}"
            assert taken[0] in told.where, f"LPI {told.intid} came at vCPU {taken[0]}, not {told.where}"
            told.where.clear()
        kind = self.rng.random()
        if kind < 0.45:
            if told.where:
                return []  # a second one might become one with the first
            told.ints += 1
            told.where = {told.icid}
            taken.clear()
            return [Command(op.INT, **at)]
        if kind < 0.7:
            told.icid = self.rng.randrange(CPUS)
            if told.where:
                told.where.add(told.icid)
            return [Command(op.MOVI, **at, icid=told.icid)]
        if kind < 0.85:
            if told.where:
                return []  # it would take the interrupt away
            told.icid = None
            return [Command(op.DISCARD, **at)]
        if kind < 0.93:
            return [Command(op.INV, **at)]
        if kind < 0.99:
            return [Command(op.SYNC, rdbase=told.icid)]
        return [Command(op.INVALL, icid=told.icid)]

    async def _map_device_anew(self, device: int) -> None:
        """MAPD with V = 0 forgets all of its events; then it has a zeroed table again."""
        events = self.devices[device]
        if any(told.where and not self.guest.vcpus.at[told.intid] for told in events):
            return
        mapped = self.guest.driver._devices[device]
        size = (1 << mapped.bits) * LAYOUTS[self.profile].itt_entry
        mapd = Command(op.MAPD, device=device, size=mapped.bits - 1, itt=mapped.itt, valid=0)
        await self.queue.run([mapd])
        self.guest.memory.write(mapped.itt, bytes(size))
        await self.queue.post([Command(op.MAPD, device=device, size=mapped.bits - 1, itt=mapped.itt, valid=1)])
        self.queued["MAPD"] += 2
        for told in events:
            told.icid = None

    # --- what came of it ----------------------------------------------------------------------------------------------

    @property
    def told(self) -> list[ToldEvent]:
        return [told for events in self.devices.values() for told in events]

    @property
    def untaken(self) -> list[int]:
        """LPIs of INTs that no vCPU has taken."""
        return [told.intid for told in self.told if told.where and not self.guest.vcpus.at[told.intid]]

    def doubled(self) -> int:
        """LPIs that vCPUs took more often than INT was queued. None may be taken less often."""
        surplus = [self.guest.vcpus.commanded[told.intid] - told.ints for told in self.told]
        assert min(surplus) >= 0, f"{surplus}"
        return sum(surplus)

    def check_tables(self) -> int:
        """Every ITT in guest memory says what the commands said. Returns how many events are mapped."""
        layout = LAYOUTS[self.profile]
        mapped = 0
        for device, events in self.devices.items():
            itt = self.guest.driver._devices[device].itt
            for event, told in enumerate(events):
                entry = layout.ite(self.guest.memory.read(itt + event * layout.itt_entry, layout.itt_entry))
                found = None if entry is None else (entry.intid, entry.icid)
                want = None if told.icid is None else (told.intid, told.icid)
                assert found == want, f"device {device:#x} event {event}"
                mapped += want is not None
        return mapped

    async def ring_all(self) -> None:
        """INT on every event that is mapped: each LPI comes once, where it was mapped last."""
        vcpus = self.guest.vcpus
        batch = []
        for device, events in self.devices.items():
            for event, told in enumerate(events):
                vcpus.at[told.intid].clear()
                if told.icid is not None:
                    batch.append(Command(op.INT, device=device, event=event))
                    told.ints += 1
        await self.queue.run(batch)
        self.queued["INT"] += len(batch)
        await until(lambda: all(told.icid is None or vcpus.at[told.intid] for told in self.told))
        for told in self.told:
            assert vcpus.at[told.intid] == ([] if told.icid is None else [told.icid]), told


def errors(sample: Sample, guest: str) -> dict[str, float]:
    """Commands that the ITS skipped, by kind."""
    return {
        name: value
        for (name, labels), value in sample.values.items()
        if name.startswith("ringmesh_its_error_") and dict(labels).get("guest") == guest and value
    }


def ran(sample: Sample, guest: str) -> Counter[str]:
    """Commands that the ITS ran, by name."""
    return Counter({
        spec.name: int(sample.total(f"ringmesh_its_command_{spec.name.lower()}_total", guest=guest))
        for spec in SPEC.values()
    })  # fmt: skip
