"""``aba-wrap``: exactly 2^16 completions between two looks of a polling loop (ABA on ``used->idx``).

Peter Hilber: the comparison of ``virtqueue_poll()`` is subject to ABA when exactly 2^16 buffers have been used since
the snapshot. Michael S. Tsirkin: so is any API on a 16-bit index; add a 32-bit counter that moves with every 2^16
buffers made available. Interrupts are off (atomic mode), so a reply that the polling loop misses is lost.

Actors: *poller* waits for the reply to its own command; *cpu1* does one command of its own, and its loop dequeues
whatever it finds; *device* completes both; *load* stands for further CPUs that do about 2^16
commands, compressed into one step by :func:`fast_forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.world import Fifo, World
from services.lab.labels import label_split_ring
from services.lab.scenario import Checks, Scenario, Settings, Variant, register
from services.lab.world import LabWorld

SIZE: Final = 4
_BASE: Final = 0x1000
_PAYLOAD: Final = 0x2000
_WRAP: Final = 1 << 16
#: ring indices at which a run starts, around the wrap
STARTS: Final = (_WRAP - 1, 0)
#: completions by the load, around one full turn of a 16-bit index
CYCLES: Final = (_WRAP - 2, _WRAP - 1, _WRAP, _WRAP + 1)


class Index16(SplitDriver):
    """As posted: the snapshot is the 16-bit ``last_used_idx`` (Linux ``virtqueue_poll``)."""

    __slots__ = ()

    def snapshot(self) -> int:
        return self.last_used_idx

    def poll(self, snapshot: int) -> bool:
        return self._used[1] != snapshot


class AvailCounter(SplitDriver):
    """The mail's proposal: a counter of 2^16 buffers made *available* beside the index."""

    __slots__ = ("avail_wraps",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.avail_wraps = 0

    def _publish(self, head: int) -> None:
        if self.avail_idx == 0xFFFF:
            self.avail_wraps += 1
        super()._publish(head)

    def snapshot(self) -> int:
        return self.avail_wraps << 16 | self.last_used_idx

    def poll(self, snapshot: int) -> bool:
        return self.avail_wraps != snapshot >> 16 or self._used[1] != snapshot & 0xFFFF


class UsedWraps(SplitDriver):
    """The series of February 2022: a 16-bit counter of the wraps of ``last_used_idx`` beside the index."""

    __slots__ = ("used_wraps",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.used_wraps = 0

    def get_buf(self) -> tuple[Any, int] | None:
        got = super().get_buf()
        if got is not None and self.last_used_idx == 0:
            self.used_wraps = (self.used_wraps + 1) & 0xFFFF
        return got

    def snapshot(self) -> int:
        return self.used_wraps << 16 | self.last_used_idx

    def poll(self, snapshot: int) -> bool:
        return self.used_wraps != snapshot >> 16 or self._used[1] != snapshot & 0xFFFF


class Message:
    """A command in flight; ``done`` once any CPU has dequeued its reply."""

    __slots__ = ("done", "tag")

    def __init__(self, tag: str) -> None:
        self.tag: Final = tag
        self.done = False


class Rig:
    """One virtqueue with both halves and their locks. ``held``: heads that the device fetched and still works on."""

    __slots__ = ("device", "device_lock", "driver", "held", "lock", "world")

    def __init__(self, world: World, cls: type[SplitDriver], start: int) -> None:
        memory = world.memory(0x1000, _BASE)
        layout = SplitLayout.packed_at(_BASE, SIZE)
        self.world: Final = world
        self.driver: Final = world.new(cls, world, memory, layout, start=start)
        self.device: Final = world.new(SplitDevice, world, memory, layout, check=False, avail=start, used=start)
        self.held: Final[Fifo[int]] = world.queue()
        self.lock: Final = world.spinlock()
        self.device_lock: Final = world.spinlock()

    # --- driver ----------------------------------------------------------------------------------------------------

    def send(self, token: object) -> int:
        """Under the lock: make a buffer available. Returns its head."""
        head = self.driver.add((), ((_PAYLOAD, 128),), token)
        self.driver.kick_prepare()
        return head

    def collect(self, mine: object) -> bool:
        """Under the lock: dequeue up to ``mine``, marking what belongs to others, as ``virtio_poll_done`` does."""
        while (got := self.driver.get_buf()) is not None:
            if isinstance(got[0], Message):
                got[0].done = True
            if got[0] is mine:
                return True
        return False

    async def wait(self, message: Message, snapshot: int) -> None:
        """The polling loop of a command in atomic mode."""
        while not message.done:
            if self.driver.poll(snapshot):
                with self.lock:
                    if self.collect(message):
                        return
                    snapshot = self.driver.enable_cb_prepare()
            await self.world.relax()

    async def poll_for(self, message: Message) -> None:
        """Snapshot and wait: the command is in flight already."""
        with self.lock:
            snapshot = self.driver.enable_cb_prepare()
        await self.wait(message, snapshot)

    async def transact(self, message: Message) -> None:
        """A whole command: send, snapshot, wait."""
        with self.lock:
            self.send(message)
            snapshot = self.driver.enable_cb_prepare()
        await self.wait(message, snapshot)

    # --- device ----------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Under the device lock: take every available chain."""
        while (chain := self.device.pop()) is not None:
            self.held.append(chain[0])

    def complete(self) -> bool:
        """Under the device lock: use the oldest chain; False if there is none."""
        self.fetch()
        if not len(self.held):
            return False
        self.device.push(self.held.popleft(), 4)
        return True

    async def serve(self, count: int) -> None:
        """Complete ``count`` chains, each when it is there."""
        for _ in range(count):
            while True:
                with self.device_lock:
                    done = self.complete()
                if done:
                    break
                await self.world.relax()

    # --- load --------------------------------------------------------------------------------------------------------

    def cycle(self) -> None:
        """One command of a further CPU, from send to reply, with nothing in between. Under both locks."""
        head = self.send("load")
        self.fetch()
        self.held.remove(head)
        self.device.push(head, 4)
        self.collect("load")


def fast_forward(rig: Rig, cycles: int) -> None:
    """The state after ``cycles`` times :meth:`Rig.cycle`, in constant time.

    The first cycle takes what others have left in the ring; from then on each cycle moves every index by one and
    leaves the rest alone, except for ring slots, which the last ``SIZE`` cycles write. So the cycles between are
    added to the indices, and the counters of wraps that the variants keep move by the wraps among them.
    """
    real = min(cycles, 1 + SIZE)
    jump = cycles - real
    driver, device = rig.driver, rig.device
    if real:
        rig.cycle()
    if jump:
        if isinstance(driver, AvailCounter):
            driver.avail_wraps += (driver.avail_idx + jump) >> 16
        if isinstance(driver, UsedWraps):
            driver.used_wraps = (driver.used_wraps + ((driver.last_used_idx + jump) >> 16)) & 0xFFFF
        driver.consumed += jump
        driver.last_used_idx = (driver.last_used_idx + jump) & 0xFFFF
        driver.avail_idx = driver._avail[1] = (driver.avail_idx + jump) & 0xFFFF
        device.last_avail_idx = (device.last_avail_idx + jump) & 0xFFFF
        device.used_idx = driver._used[1] = (device.used_idx + jump) & 0xFFFF
    for _ in range(real - 1):
        rig.cycle()


async def load(world: LabWorld, rig: Rig, cycles: int) -> None:
    """Further CPUs keep the queue busy: about 2^16 commands between two steps of the others."""
    with rig.lock, rig.device_lock:
        world.leap(f"{cycles} times add, use, get", lambda: fast_forward(rig, cycles))


def build(cls: type[SplitDriver]) -> Callable[[LabWorld], Checks]:
    """The scenario over one driver class."""

    def setup(world: LabWorld) -> Checks:
        start = STARTS[world.choice(len(STARTS), "start")]
        cycles = CYCLES[world.choice(len(CYCLES), "cycles")]
        rig = world.new(Rig, world, cls, start)
        world.called(rig.driver, "vq")
        world.called(rig.device, "dev")
        world.called(rig.held, "dev.held")
        world.called(rig.lock, "vq.lock")
        world.called(rig.device_lock, "dev.lock")
        memory: Any = rig.driver._memory
        label_split_ring(world, memory, SplitLayout.packed_at(_BASE, SIZE))
        own, other = world.new(Message, "own"), world.new(Message, "other")
        rig.send(own)
        rig.fetch()
        actors: tuple[tuple[str, Coroutine[Any, Any, None]], ...] = (
            ("poller", rig.poll_for(own)),
            ("cpu1", rig.transact(other)),
            ("device", rig.serve(2)),
            ("load", load(world, rig, cycles)),
        )
        for name, coro in actors:
            world.spawn(name, coro)

        def final() -> str | None:
            if rig.driver.in_flight or rig.device.available() or len(rig.held):
                return f"{rig.driver.in_flight} descriptors still in flight"
            return None

        return Checks(final=final)

    return setup


#: one preemption: enough to stop poll() between its two reads; the losing schedules need none
BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="aba-wrap",
        thread="PATCH v9 09/11 firmware: arm_scmi: atomic mode for virtio (P. Hilber, M. S. Tsirkin, January 2022)",
        about="2^16 completions between two looks at used->idx: a polling loop misses its reply",
        variants=(
            Variant("index16", "fails", build(Index16), "snapshot: 16-bit last_used_idx", BUDGET),
            Variant("avail-counter", "fails", build(AvailCounter), "plus a count of 2^16 made available", BUDGET),
            Variant("used-wraps", "fails", build(UsedWraps), "plus a count of wraps of last_used_idx", BUDGET),
            Variant(
                "shipped", "holds", build(SplitDriver), "snapshot: full count of consumed entries", BUDGET, "full-index"
            ),
        ),
    )
)
