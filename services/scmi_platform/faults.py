"""Faults on purpose: a platform that answers late, out of order, twice or never, for who writes the agent's side.

Commands are executed when they arrive, in the order of the ring; only what is *said* of them suffers. A reply that is
held keeps its chain in the device's hand, so a lost connection loses nothing and a reset takes it along.

Time and chance come in: ``clock()`` is monotonic seconds, ``dice()`` a number in [0, 1).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec

from common.errors import RemoteError

#: Largest size of a cmdq, entries; a command takes two.
MAX_NEVER: Final = 1024 // 2 - 1
#: Longest time that an answer can be held, seconds: what is held keeps its memory.
MAX_LATE_SECONDS: Final = 3600.0
#: A reply that is held back lets at most so many later ones pass …
BEHIND: Final = 8
#: … and waits at most so many seconds for them: there may be none.
BEHIND_SECONDS: Final = 0.05
#: The second copy of a delayed response comes at most so many seconds after the first. Nothing but its token says what
#: it belongs to, so it must be gone before an agent has used all 1024.
COPY_SECONDS: Final = 0.05
#: Delayed responses that are held at a time; beyond them nothing is late.
MAX_HELD: Final = 1024

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class FaultPlan(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """``[faults]`` of ``ringmesh serve scmi``: what goes wrong, for each guest on its own. By default nothing does."""

    #: equal seeds give a guest equal faults
    seed: int = 0
    #: commands that are answered as they should be before faults begin: those of the agent's bring-up
    after: Annotated[int, msgspec.Meta(ge=0)] = 256
    #: probability that a response or a delayed response is held …
    late: Probability = 0.0
    #: … for up to so many seconds
    late_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATE_SECONDS)] = 1.0
    #: probability that a response is held until some later ones have gone
    reorder: Probability = 0.0
    #: probability that a delayed response is sent twice
    delayed_twice: Probability = 0.0
    #: commands that are never answered, in all; fewer than the messages of the agent (half the entries of its cmdq)
    never: Annotated[int, msgspec.Meta(ge=0, le=MAX_NEVER)] = 0
    #: of so many commands, on average, one is never answered until ``never`` have not been
    never_every: Annotated[int, msgspec.Meta(ge=1)] = 1000
    #: the command, counted from 1, whose chain is used twice, which breaks the queue; 0 for none
    double_used: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def any(self) -> bool:
        """Is there a fault in it?"""
        return bool(self.late or self.reorder or self.delayed_twice or self.never or self.double_used)

    def check(self, size: int) -> None:
        """Raise RemoteError where a guest whose cmdq has ``size`` entries would be left without a message."""
        if self.never and self.never >= size // 2:
            raise RemoteError("faults.never", self.never, size // 2 - 1, f"commands of a cmdq of {size} entries")


@dataclass(slots=True)
class FaultStats:
    """What was done on purpose."""

    #: responses held for a time
    late: int = 0
    #: responses held for others to pass, and of these the ones that at least one other went out before meanwhile
    held_back: int = 0
    overtaken: int = 0
    #: commands that will never be answered
    never: int = 0
    #: delayed responses held for a time
    delayed_late: int = 0
    #: second copies of delayed responses
    delayed_twice: int = 0
    #: chains used twice
    double_used: int = 0


class Outlet(Protocol):
    """What goes to the agent in the end, and how."""

    def give(self, head: int, reply: bytes) -> None:
        """Use the chain at ``head`` of the cmdq."""
        ...

    def give_again(self, head: int, reply: bytes) -> None:
        """Use a chain that is used already."""
        ...

    def post(self, message: bytes) -> bool:
        """Send a delayed response by the eventq. False: no room, try again."""
        ...


@dataclass(slots=True)
class _Held:
    """A response that others overtake."""

    passing: int
    due: float
    head: int
    reply: bytes
    overtaken: bool = False


class Faults:
    """What ``plan`` does to one guest. The device hands in every answer by :meth:`answer` and :meth:`delayed`; it
    calls :meth:`tick` some hundred times a second."""

    def __init__(self, plan: FaultPlan, dice: Callable[[], float], clock: Callable[[], float], outlet: Outlet) -> None:
        self.plan: Final = plan
        self.stats: Final = FaultStats()
        self._dice: Final = dice
        self._clock: Final = clock
        self._outlet: Final = outlet
        #: commands since the driver last reset the device
        self._commands = 0
        self._never_left = plan.never
        #: (when due, serial number, head; None: a delayed response, second copy, bytes)
        self._late: list[tuple[float, int, int | None, bool, bytes]] = []
        self._serial = 0
        self._behind: list[_Held] = []

    @property
    def held(self) -> int:
        """Messages that are still to come."""
        return len(self._late) + len(self._behind)

    def reset(self) -> None:
        """The driver reset the device: what was held is not owed any more, and the agent begins anew."""
        self._late.clear()
        self._behind.clear()
        self._commands = 0
        self._never_left = self.plan.never

    # --- responses ----------------------------------------------------------------------------------------------------

    def answer(self, head: int, reply: bytes) -> None:
        """The chain at ``head`` has been carried out; ``reply`` is its answer."""
        plan, dice, stats = self.plan, self._dice, self.stats
        self._commands += 1
        if self._commands == plan.double_used:
            stats.double_used += 1
            self._give(head, reply)
            self._outlet.give_again(head, reply)
        elif self._commands <= plan.after:
            self._give(head, reply)
        elif self._never_left and dice() * plan.never_every < 1:
            self._never_left -= 1
            stats.never += 1
        elif dice() < plan.late:
            stats.late += 1
            self._hold(dice() * plan.late_seconds, head, False, reply)
        elif dice() < plan.reorder:
            stats.held_back += 1
            self._behind.append(_Held(1 + int(dice() * BEHIND), self._clock() + BEHIND_SECONDS, head, reply))
        else:
            self._give(head, reply)

    def _give(self, head: int, reply: bytes) -> None:
        """Answer, and let go what has waited for enough answers."""
        self._outlet.give(head, reply)
        if not self._behind:
            return
        for one in self._behind:
            one.passing -= 1
            self.stats.overtaken += not one.overtaken
            one.overtaken = True
            if not one.passing:
                self._outlet.give(one.head, one.reply)
        self._behind = [one for one in self._behind if one.passing]

    # --- delayed responses --------------------------------------------------------------------------------------------

    def delayed(self, message: bytes) -> bool:
        """A whole delayed response is there. False: no room, the platform keeps it."""
        if self._commands <= self.plan.after:
            return self._outlet.post(message)
        if self.held < MAX_HELD and self._dice() < self.plan.late:
            self.stats.delayed_late += 1
            self._hold(self._dice() * self.plan.late_seconds, None, False, message)
            return True
        return self._post(message)

    def _post(self, message: bytes) -> bool:
        """Send it; then perhaps once more, at once or soon."""
        if not self._outlet.post(message):
            return False
        if self._dice() < self.plan.delayed_twice:
            if self._dice() < 0.5:
                self.stats.delayed_twice += self._outlet.post(message)
            else:
                self._hold(self._dice() * COPY_SECONDS, None, True, message)
        return True

    # --- time ---------------------------------------------------------------------------------------------------------

    def _hold(self, seconds: float, head: int | None, copy: bool, data: bytes) -> None:
        self._serial += 1
        heapq.heappush(self._late, (self._clock() + seconds, self._serial, head, copy, data))

    def tick(self, now: float) -> bool:
        """Time is ``now``: let go what is due. True: responses went out, flush the cmdq."""
        overdue = [one for one in self._behind if one.due <= now]
        if overdue:
            self._behind = [one for one in self._behind if one.due > now]
            for one in overdue:
                self._give(one.head, one.reply)
        late = self._late
        went = bool(overdue)
        unsent = []
        while late and late[0][0] <= now:
            entry = heapq.heappop(late)
            _, _, head, copy, data = entry
            if head is not None:
                self._give(head, data)
                went = True
            elif copy:
                self.stats.delayed_twice += self._outlet.post(data)
            elif not self._post(data):
                unsent.append(entry)
        for entry in unsent:
            heapq.heappush(late, entry)
        return went
