"""How a schedule can end badly, and how a run can end without a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import LocalError, WatchError


class ForeignAwaitError(WatchError):
    """An actor awaited something that its world did not hand in (rule 1 of :mod:`common.world`)."""


class ReplayError(LocalError):
    """A recorded schedule does not fit: the code, the scenario or the recording has changed."""


@dataclass(slots=True, frozen=True)
class Failure:
    """What went wrong in one schedule.

    ``kind`` is ``deadlock`` (nobody can go on: also the lost wake-up), ``livelock`` (the step bound), ``exception``
    (an actor raised), ``invariant`` (the scenario's check after a step), ``final`` (its check at the end) or
    ``atomic`` (an actor sleeps with a spinlock held). ``actor`` is the actor whose step showed it, or "".
    """

    kind: str
    actor: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.actor}: {self.detail}" if self.actor else f"{self.kind}: {self.detail}"
