"""``notify-pending``: an event that comes while the worker, having found the fifo empty, is on its way out.

Lukasz Luba: the worker has handled the last item, the interrupt puts one more and cannot kick the work: does it stay
until the next interrupt? Cristian Marussi: if the item were pending until its function has returned, yes, and the last
event of all would be lost; he posts a patch that retries. Two months later: the pending bit is cleared *before* the
function runs, so there is no race.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from common.workqueue import Work, WorkQueue
from common.world import Atomic, World
from services.guest_driver.notify_queue import EVENT_HEADER, EventsQueue
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.notify_rig import Classes, Input, Notification, Rig, build, delivered_once, start
from services.lab.world import LabWorld

ONE: Final[Notification] = (1, b"\x11" * 4, 1000)
TWO: Final[Notification] = (2, b"\x22" * 4, 2000)
THREE: Final[Notification] = (3, b"\x33" * 4, 3000)

#: the mail's: one interrupt after the other
MAIL: Final = Input("two events", ((ONE, TWO),))
#: what the shipped queue is held to
INPUTS: Final = (
    Input("three events", ((ONE, TWO, THREE),)),
    Input("room for one event", ((ONE, TWO, THREE),), size=32),
    Input("two interrupts at once", ((ONE,), (TWO,))),
    Input("stopped after the last put", ((ONE, TWO),), drain=True),
)


class ClearedAfter(WorkQueue):
    """As feared: an item is pending until its function has returned."""

    __slots__ = ()

    async def run(self) -> None:
        while True:
            with self._lock:
                work = self._items.popleft() if self._items else None
                done = work is None and self.stopping
                if work is None and not done:
                    self._wake.clear()
            if work is not None:
                work.function()
                work.pending.store(0)
            elif done:
                self._stopped.set()
                return
            else:
                await self._wake.wait()


class LookThenSet(WorkQueue):
    """The pending bit is looked at, then set: two steps."""

    __slots__ = ()

    def queue_work(self, work: Work) -> bool:
        if work.pending.load():
            return False
        work.pending.store(1)
        with self._lock:
            self._items.append(work)
            self._wake.set()
        return True


class Retry(EventsQueue):
    """The mail's patch: a flag that the worker is on its way out, and retries while it is.

    Three things can be wrong with it; each can be taken away, to see what the others do.
    """

    __slots__ = ("_world", "cnt", "exiting")

    #: look at the flag (False: as if it were always set)
    FLAG: ClassVar = True
    #: the counter is set back for every event
    FRESH: ClassVar = False
    #: mdelay() lasts until the worker is through (False: it may end at any time)
    PATIENT: ClassVar = True

    _world: Final[World]
    exiting: Final[Atomic]

    def __init__(self, world: World, *args: Any) -> None:
        super().__init__(world, *args)
        self._world = world
        self.exiting = world.atomic(0)
        #: ``static u8``: shared by all calls, set once
        self.cnt = 3

    def dispatch(self) -> None:
        self.exiting.store(0)
        super().dispatch()
        self.exiting.store(1)

    async def notify(self, event: int, payload: bytes, when: int) -> None:
        """Put one event; the fifo has room."""
        self.fifo.put(EVENT_HEADER.pack(when, len(payload), event))
        self.fifo.put(payload)
        self.stats.queued += 1
        if self.FRESH:
            self.cnt = 3
        exiting = self._exiting()
        while True:
            if self._workqueue.queue_work(self.notify_work) or not exiting:
                return
            await self.mdelay()
            exiting = self._exiting()
            self.cnt = (self.cnt - 1) & 0xFF
            if not self.cnt:
                return

    def _exiting(self) -> int:
        return self.exiting.load() if self.FLAG else 1

    async def mdelay(self) -> None:
        """Between two steps of one actor the others may do nothing or anything, as in a delay of any length."""
        while self.PATIENT and self.notify_work.pending.load():
            await self._world.relax()


class RetryCounter(Retry):
    """Only the counter is at fault."""

    __slots__ = ()
    FLAG = False


class RetryDelay(Retry):
    """Only the delay is at fault: three times 5 ms may be less than the worker needs to get out."""

    __slots__ = ()
    FLAG = False
    FRESH = True
    PATIENT = False


class RetryRig(Rig):
    """The interrupt with the retries in it."""

    __slots__ = ()

    async def send(self, event: int, payload: bytes, when: int) -> bool:
        queue: Any = self.queue
        await queue.notify(event, payload, when)
        return True

    async def consume(self) -> None:
        """The patch knows no work queue that is being stopped: it would retry."""
        await self.all_put.wait()
        await super().consume()


#: what earlier calls may have left in the counter, the worst last
COUNTERS: Final = (3, 2, 0, 1)


def build_retry(
    queue: type[Retry], wq: type[WorkQueue] = ClearedAfter, counters: tuple[int, ...] = COUNTERS[:1]
) -> Build:
    """The mail's patch, the counter as earlier calls left it."""

    def setup(world: LabWorld) -> Checks:
        cnt = counters[world.choice(len(counters), "cnt")]
        rig: Any = start(world, MAIL, Classes(queue, wq, RetryRig))
        rig.queue.cnt = cnt
        world.called(rig.queue.exiting, "exiting")
        return Checks(final=lambda: delivered_once(rig, MAIL))

    return setup


_BOUND: Final = Settings(strategy="exhaustive", preemptions=2)

SCENARIO: Final = register(
    Scenario(
        name="notify-pending",
        thread="PATCH v4 07/13 firmware: arm_scmi: notification dispatch and delivery (L. Luba, C. Marussi, March to "
        "May 2020)",
        about="an event comes while the worker that found the fifo empty is on its way out: is it lost?",
        variants=(
            Variant(
                "cleared-after",
                "fails",
                build((MAIL,), Classes(wq=ClearedAfter)),
                "the item is pending until its function has returned, as feared",
                _BOUND,
            ),
            Variant("retry", "fails", build_retry(Retry), "cleared-after with the retries of the mail", _BOUND),
            Variant(
                "retry-counter",
                "fails",
                build_retry(RetryCounter, counters=COUNTERS[-1:]),
                "the same without the flag, after two retries: the static counter alone",
                _BOUND,
            ),
            Variant(
                "retry-delay",
                "fails",
                build_retry(RetryDelay),
                "the same without the flag, the counter set back for each event: the delay alone",
                _BOUND,
            ),
            Variant(
                "retry-on-real-wq",
                "holds",
                build_retry(Retry, WorkQueue, COUNTERS[-1:]),
                "the retries of the mail over real work queues: nothing to do",
                _BOUND,
            ),
            Variant(
                "pending-not-atomic",
                "fails",
                build(INPUTS, Classes(wq=LookThenSet)),
                "the pending bit is tested, then set: the item is queued twice",
                _BOUND,
            ),
            Variant(
                "shipped",
                "holds",
                build(INPUTS),
                "the bit is cleared before the function is called",
                _BOUND,
                "cleared-before",
            ),
        ),
    )
)
