"""A patch under review, as a scenario: the driver's poll loop re-enables its callback and goes to sleep.

The patch drops the second look ("enable_cb() cannot return false here, we have just emptied the ring").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.world import Event
from services.lab.labels import label_split_ring
from services.lab.scenario import Checks, Scenario, Settings, Variant, register
from services.lab.world import LabWorld

BASE: Final = 0x1000
SIZE: Final = 4
FRAMES: Final = 2


class Rx:
    """A receive queue as a network driver runs it: ``irq`` is set by the device, the poll loop sleeps on it."""

    # what actors share is made by the world: classes with __slots__, through world.new()
    __slots__ = ("device", "got", "irq", "vq", "world")

    world: Final[LabWorld]
    vq: Final[SplitDriver]
    device: Final[SplitDevice]
    irq: Final[Event]

    def __init__(self, world: LabWorld) -> None:
        self.world = world
        memory = world.memory(0x1000, BASE)
        layout = SplitLayout.packed_at(BASE, SIZE)
        label_split_ring(world, memory, layout)
        # the ring halves that ship: their reads and writes of the ring are what the lab preempts at
        self.vq = world.new(SplitDriver, world, memory, layout, event_idx=True)
        self.device = world.new(SplitDevice, world, memory, layout, event_idx=True, check=False)
        self.irq = world.event()
        self.got = 0

    # --- the driver ---------------------------------------------------------------------------------------------------

    async def poll_loop(self) -> None:
        """Runs until all frames have come. It awaits only what the world handed in."""
        while self.got < FRAMES:
            self.vq.disable_cb()
            while self.vq.get_buf() is not None:
                self.got += 1
            if self.got < FRAMES and self.rearm():
                await self.irq.wait()
                self.irq.clear()

    def rearm(self) -> bool:
        """As it stands upstream: enable the callback, then look once more. True: sleep."""
        return self.vq.enable_cb()

    # --- the device ---------------------------------------------------------------------------------------------------

    async def receive(self) -> None:
        """Frames arrive one by one; an interrupt where the driver wants one."""
        for _ in range(FRAMES):
            chain = self.device.pop()
            assert chain is not None
            self.device.push(chain[0], 64)
            if self.device.need_interrupt():
                self.irq.set()


class AsPosted(Rx):
    """The patch: only the method that it changes."""

    __slots__ = ()

    def rearm(self) -> bool:
        self.vq.enable_cb_prepare()
        return True


def build(cls: type[Rx]) -> Callable[[LabWorld], Checks]:
    """Set-up: what happens before the actors start is no step."""

    def setup(world: LabWorld) -> Checks:
        rx = world.new(cls, world)
        world.called(rx.vq, "vq")
        world.called(rx.device, "dev")
        world.called(rx.irq, "irq")
        for frame in range(FRAMES):
            rx.vq.add((), ((0x1800 + 64 * frame, 64),), f"frame{frame}")
        world.spawn("napi", rx.poll_loop())
        world.spawn("device", rx.receive())
        return Checks(final=lambda: None if rx.got == FRAMES else f"{rx.got} of {FRAMES} frames")

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=2)

register(
    Scenario(
        name="napi-rearm",
        thread="PATCH net: drop the second look at the used ring (an example)",
        about="the poll loop enables its callback and sleeps: can a frame fall between?",
        variants=(
            Variant("as-posted", "fails", build(AsPosted), "no look after enable_cb()", BUDGET),
            Variant("shipped", "holds", build(Rx), "enable_cb() looks again", BUDGET),
        ),
    )
)
