"""The control queue's driver under the explorer: whenever the answer, the interrupt or the abort comes, nobody sleeps
through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from common.errors import RingError
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.world import Event, Memory
from services.guest_driver.net_ctrl import CTRL_AREA_BYTES, NetCtrl
from services.lab.explore import explore
from services.lab.scenario import Build, Checks, Settings
from services.lab.world import LabWorld

SIZE: Final = 4
AREA: Final = 0x1000


class Rig:
    """One driver, and a device that answers each doorbell."""

    __slots__ = ("aborted", "bell", "ctrl", "device", "done", "memory", "ring")

    memory: Final[Memory]
    ring: Final[SplitDriver]
    device: Final[SplitDevice]
    bell: Final[Event]
    ctrl: Final[NetCtrl]

    def __init__(self, world: LabWorld, poll: bool, event_idx: bool) -> None:
        self.memory = world.memory(AREA + CTRL_AREA_BYTES)
        layout = SplitLayout.packed_at(0, SIZE)
        self.ring = world.new(SplitDriver, world, self.memory, layout, event_idx=event_idx)
        self.device = world.new(SplitDevice, world, self.memory, layout, event_idx=event_idx)
        self.bell = world.event()
        self.ctrl = world.new(NetCtrl, world, self.memory, self.ring, AREA, 0, self.bell.set, poll=poll)
        self.done = world.atomic()
        self.aborted = world.atomic()

    async def command(self, vlan: int) -> None:
        try:
            await self.ctrl.vlan_add(vlan)
        except RingError:
            self.aborted.add(1)
        else:
            self.done.add(1)

    async def serve(self, commands: int) -> None:
        """The device: it looks once more after it asked for doorbells, as any device does that is told to by hints."""
        while commands:
            for head, segments, _ in self.device.pop_batch(SIZE):
                self.memory.write(segments[-1][0], b"\0")
                self.device.push(head, 1)
                commands -= 1
            if self.device.need_interrupt():
                self.ctrl.ctrl_callback()
            if commands and not self.device.enable_notify():
                await self.bell.wait()
                self.bell.clear()

    async def abort(self) -> None:
        self.ctrl.abort()


def answered(poll: bool, event_idx: bool) -> Build:
    def build(world: LabWorld) -> Checks:
        rig = world.new(Rig, world, poll, event_idx)
        for vlan in range(2):
            world.spawn(f"command{vlan}", rig.command(vlan))
        world.spawn("device", rig.serve(2))
        return Checks(lambda: None if rig.done.load() == 2 else f"{rig.done.load()} of 2 commands answered")

    return build


def aborted(poll: bool, event_idx: bool) -> Build:
    def build(world: LabWorld) -> Checks:
        rig = world.new(Rig, world, poll, event_idx)
        world.spawn("command", rig.command(1))
        world.spawn("abort", rig.abort())
        return Checks(lambda: None if rig.aborted.load() == 1 else "nobody was told")

    return build


@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("poll", [False, True])
@pytest.mark.parametrize("make", [answered, aborted])
def test_nobody_sleeps_on(make: Callable[[bool, bool], Build], poll: bool, event_idx: bool) -> None:
    result = explore(make(poll, event_idx), Settings(preemptions=1))
    assert result.verdict == "holds", result
    assert result.exhaustive
