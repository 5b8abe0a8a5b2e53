"""One fault each in the notification queue, its fifo and the work queue, for the scenarios on notifications to find.

Caught or not, each is a row of docs/races/mutants.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from common.workqueue import WorkQueue
from services.guest_driver.notify_fifo import EventFifo
from services.guest_driver.notify_queue import EventsQueue
from services.lab.scenario import Build
from services.lab.scenarios import notify_half_record, notify_pending
from services.lab.scenarios.notify_rig import Classes, build
from tests.services.lab.mutation import mutate_all


@dataclass(frozen=True)
class Mutant:
    """``edits`` of ``cls``: (method, old, new). ``scenario`` is run with it in the place of ``cls``."""

    name: str
    cls: type[Any]
    edits: tuple[tuple[str, str, str], ...]
    scenario: str
    caught: bool = True

    def make(self) -> type[Any]:
        return mutate_all(self.cls, self.edits)

    def build(self, made: type[Any]) -> Build:
        """A fifo's mutant has to be put into the module of EventsQueue besides."""
        inputs = {"notify-pending": notify_pending.INPUTS, "notify-half-record": notify_half_record.INPUTS}
        classes: dict[type[Any], Callable[[], Classes]] = {
            WorkQueue: lambda: Classes(wq=made),
            EventsQueue: lambda: Classes(queue=made),
            EventFifo: Classes,
        }
        return build(inputs[self.scenario], classes[self.cls]())


_PENDING: Final = "notify-pending"
_HALF: Final = "notify-half-record"

MUTANTS: Final = (
    # --- the work queue
    Mutant(
        "the bit is set without a look at it",
        WorkQueue,
        (("queue_work", "if work.pending.swap(1):", "if work.pending.store(1):"),),
        _PENDING,
    ),
    Mutant(
        "the bit is tested, then set",
        WorkQueue,
        (
            (
                "queue_work",
                "if work.pending.swap(1):\n        return False\n",
                "if work.pending.load():\n        return False\n    work.pending.store(1)\n",
            ),
        ),
        _PENDING,
    ),
    Mutant(
        "the bit is cleared after the function",
        WorkQueue,
        (
            (
                "run",
                "work.pending.store(0)\n            work.function()",
                "work.function()\n            work.pending.store(0)",
            ),
        ),
        _PENDING,
    ),
    Mutant(
        "wake is cleared outside the lock",
        WorkQueue,
        (
            ("run", "            self._wake.clear()\n", "            pass\n"),
            ("run", "await self._wake.wait()", "self._wake.clear()\n            await self._wake.wait()"),
        ),
        _PENDING,
    ),
    Mutant(
        "queue_work() without the lock", WorkQueue, (("queue_work", "with self._lock:", "if True:"),), _PENDING
    ),
    Mutant("queue_work() without wake", WorkQueue, (("queue_work", "self._wake.set()", "pass"),), _PENDING),
    Mutant("stop() without wake", WorkQueue, (("stop", "self._wake.set()", "pass"),), _PENDING),
    Mutant(
        "stop() drops what is queued",
        WorkQueue,
        (("run", "if self._items else", "if not self.stopping and self._items else"),),
        _PENDING,
    ),
    Mutant(
        "a refused item keeps its bit",
        WorkQueue,
        (("queue_work", "work.pending.store(0)", "pass"),),
        _PENDING,
        caught=False,
    ),
    # --- the notification queue
    Mutant("put() without the lock", EventsQueue, (("put", "with self._lock:", "if True:"),), _HALF),
    Mutant(
        "the work is queued between header and payload",
        EventsQueue,
        (
            ("put", "self._workqueue.queue_work(self.notify_work)", "pass"),
            (
                "put",
                "self.fifo.put(payload)",
                "self._workqueue.queue_work(self.notify_work)\n        self.fifo.put(payload)",
            ),
        ),
        _PENDING,
    ),
    Mutant(
        "the work is queued under the writers' lock",
        EventsQueue,
        (
            ("put", "self._workqueue.queue_work(self.notify_work)", "pass"),
            ("put", "stats.queued += 1", "stats.queued += 1\n        self._workqueue.queue_work(self.notify_work)"),
        ),
        _PENDING,
        caught=False,
    ),
    Mutant("one event a run", EventsQueue, (("dispatch", "while ", "if "),), _PENDING),
    Mutant(
        "the header in flight is forgotten",
        EventsQueue,
        (
            (
                "_payload",
                "if size and not payload:\n        return False",
                "if size and not payload:\n        self.in_flight = None\n        return False",
            ),
        ),
        _HALF,
    ),
    Mutant(
        "an empty payload is not there yet",
        EventsQueue,
        (("_payload", "if size and not payload:", "if not payload:"),),
        _HALF,
    ),
    Mutant("room for the header is enough", EventsQueue, (("put", " + len(payload):", ":"),), _HALF),
    # --- its fifo
    Mutant(
        "in_ moves before the bytes are there",
        EventFifo,
        (
            ("put", "self.in_ += len(data)", "pass"),
            ("put", "self._memory.write(at, head)", "self.in_ += len(data)\n    self._memory.write(at, head)"),
        ),
        _PENDING,
    ),
    Mutant(
        "out moves before the bytes are copied",
        EventFifo,
        (
            ("get", "self.out += count", "pass"),
            ("get", "at = self.out & (self.size - 1)", "at = self.out & (self.size - 1)\n    self.out += count"),
        ),
        _PENDING,
    ),
    Mutant("a write does not wrap", EventFifo, (("put", "if len(head) < len(data):", "if False:"),), _HALF),
    Mutant("a read does not wrap", EventFifo, (("get", "if len(data) < count:", "if False:"),), _HALF),
    Mutant(
        "what is not there is read", EventFifo, (("get", "count = min(count, self.in_ - self.out)", "pass"),), _PENDING
    ),
    Mutant(
        "the fifo itself does not look for room", EventFifo, (("put", "if len(data) > self.avail:", "if False:"),),
        _PENDING, caught=False,
    ),
)  # fmt: skip
