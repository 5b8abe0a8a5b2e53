"""Faults on purpose: a platform that answers late, out of order, twice, wrongly or never, for who writes the agent's
side.

Commands are executed when they arrive, in the order of the ring; only what is *said* of them suffers. A reply that is
held keeps its chain in the device's hand, so a lost connection loses nothing and a reset takes it along.

Time and chance come in: ``clock()`` is monotonic seconds, ``dice()`` a number in [0, 1).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from services.scmi_platform.faults_plan import MAX_NEVER, Delay, FaultPlan, Never, Reorder, Silent, Twice
from services.scmi_platform.faults_rules import Armed, Fate, Rules, messages_of, storms_of
from services.scmi_platform.faults_stats import FaultStats
from services.scmi_platform.faults_storm import Blowing, Target

__all__ = ["MAX_NEVER", "FaultPlan", "FaultStats", "Faults", "Outlet"]

#: A reply that is held back lets at most so many later ones pass …
BEHIND: Final = 8
#: … and waits at most so many seconds for them: there may be none.
BEHIND_SECONDS: Final = 0.05
#: The second copy of a delayed response comes at most so many seconds after the first. Nothing but its token says what
#: it belongs to, so it must be gone before an agent has used all 1024.
COPY_SECONDS: Final = 0.05
#: Delayed responses and notifications that are held at a time; beyond them nothing is late.
MAX_HELD: Final = 1024


class Outlet(Target, Protocol):
    """What goes to the agent in the end, and how."""

    def give(self, head: int, reply: bytes) -> None:
        """Use the chain at ``head`` of the cmdq."""
        ...

    def give_again(self, head: int, reply: bytes) -> None:
        """Use a chain that is used already."""
        ...

    def hush(self) -> None:
        """The agent is not to be interrupted for what was given last."""
        ...

    def post(self, message: bytes) -> bool:
        """Send a delayed response by the eventq. False: no room, try again."""
        ...


@dataclass(slots=True)
class _Behind:
    """A response that others overtake."""

    passing: int
    due: float
    head: int
    reply: bytes
    overtaken: bool = False


@dataclass(slots=True, order=True)
class _Late:
    """A message that is held until ``due``. Without a ``head`` it is a delayed response (``copy``: the second one, and
    nothing is owed) or a notification."""

    due: float
    serial: int
    head: int | None
    data: bytes
    copy: bool = False
    notification: bool = False


class Faults:
    """What ``plan`` does to one guest, whose agent goes by ``names``. The device hands in every answer by
    :meth:`answer`, :meth:`delayed` and :meth:`notification` while :attr:`active`; it calls :meth:`tick` some hundred
    times a second."""

    def __init__(
        self,
        plan: FaultPlan,
        dice: Callable[[], float],
        clock: Callable[[], float],
        outlet: Outlet,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self.stats: Final = FaultStats()
        self.names: Final = names
        self._dice: Final = dice
        self._clock: Final = clock
        self._outlet: Final = outlet
        #: commands since the driver last reset the device
        self._commands = 0
        #: of these, those that will never be answered
        self.kept = 0
        #: … and those of earlier plans
        self._kept_before = 0
        self._late: list[_Late] = []
        self._serial = 0
        self._behind: list[_Behind] = []
        self._set(plan)

    def _set(self, plan: FaultPlan) -> None:
        rules = plan.rules_for(self.names)
        self.plan = plan
        self._never_left = plan.never
        self._armed = [Armed(rule) for rule in messages_of(rules)]
        self._rules = Rules(self._armed, self._dice, self.stats)
        self._storms = [Blowing(rule, self.stats) for rule in storms_of(rules)]
        #: is there anything to be done on purpose? While it is not, the device may send everything itself
        self.active = plan.any

    @property
    def held(self) -> int:
        """Messages that are still to come."""
        return len(self._late) + len(self._behind)

    @property
    def done(self) -> list[int]:
        """How often each rule for this agent struck, in the order of the plan, since the guest reset its device."""
        done = {id(one.rule): one.done for one in self._armed}
        done |= {id(one.rule): one.done for one in self._storms}
        return [done[id(rule)] for rule in self.plan.rules_for(self.names)]

    def check(self, plan: FaultPlan, size: int) -> None:
        """Raise RemoteError where ``plan`` would leave a guest whose cmdq has ``size`` entries without a message."""
        plan.check(size, self.kept, self.names)

    def check_size(self, size: int) -> None:
        """Raise RemoteError where the plan in force would leave it without one in the end."""
        self.plan.check(size, self._kept_before, self.names)

    def replace(self, plan: FaultPlan, commands: int) -> None:
        """``plan`` holds from now on; the guest sent ``commands`` since it reset its device. What the plan before it
        holds goes out: responses now, other messages at the next tick."""
        self.release()
        for one in self._late:
            one.due = 0.0  # in the order of their numbers
        heapq.heapify(self._late)
        self._set(plan)
        self._commands = commands
        self._kept_before = self.kept
        self.active = plan.any or self.held > 0

    def reset(self) -> None:
        """The driver reset the device: what was held is not owed any more, and the agent begins anew."""
        self._late.clear()
        self._behind.clear()
        self._commands = self.kept = self._kept_before = 0
        self._never_left = self.plan.never
        self.active = self.plan.any
        for one in self._armed:
            one.reset()
        for storm in self._storms:
            storm.reset()

    def release(self) -> None:
        """The cmdq is about to stop: give every response that is held, in the order in which they were due. What is
        never answered stays so, delayed responses and notifications stay held."""
        held = [(one.due, n, one.head, one.reply) for n, one in enumerate(self._behind)]
        held += [(one.due, one.serial, one.head, one.data) for one in self._late if one.head is not None]
        self._behind.clear()
        self._late = [one for one in self._late if one.head is None]
        heapq.heapify(self._late)
        for _, _, head, reply in sorted(held):
            self._outlet.give(head, reply)

    # --- responses ----------------------------------------------------------------------------------------------------

    def answer(self, head: int, reply: bytes) -> None:
        """The chain at ``head`` has been carried out; ``reply`` is its answer."""
        plan, dice, stats = self.plan, self._dice, self.stats
        self._commands += 1
        if self._commands == plan.double_used:
            self._give_twice(head, reply)
            return
        if self._commands <= plan.after:
            self._give(head, reply)
            return
        reply, fate = self._rules.strike("response", reply)
        if fate is not None:
            self._answer_by(fate, head, reply)
        elif self._never_left and dice() * plan.never_every < 1:
            self._never_left -= 1
            self.kept += 1
            stats.never += 1
        elif dice() < plan.late:
            stats.late += 1
            self._hold(dice() * plan.late_seconds, reply, head)
        elif dice() < plan.reorder:
            self._hold_back(head, reply, 0)
        else:
            self._give(head, reply)

    def _answer_by(self, fate: Fate, head: int, reply: bytes) -> None:
        if isinstance(fate, Delay):
            self.stats.late += 1
            self._hold(fate.time.draw(self._dice()), reply, head)
        elif isinstance(fate, Reorder):
            self._hold_back(head, reply, fate.passing)
        elif isinstance(fate, Never):
            self.kept += 1
            self.stats.never += 1
        elif isinstance(fate, Silent):
            self.stats.silent += 1
            self._give(head, reply)
            self._outlet.hush()
        else:
            self._give_twice(head, reply)

    def _give_twice(self, head: int, reply: bytes) -> None:
        self.stats.double_used += 1
        self._give(head, reply)
        self._outlet.give_again(head, reply)

    def _hold_back(self, head: int, reply: bytes, passing: int) -> None:
        self.stats.held_back += 1
        passing = passing or 1 + int(self._dice() * BEHIND)
        self._behind.append(_Behind(passing, self._clock() + BEHIND_SECONDS, head, reply))

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
        if self._commands <= self.plan.after or self.held >= MAX_HELD:
            return self._outlet.post(message)
        sent, fate = self._rules.strike("delayed_response", message)
        if fate is not None:
            return self._delayed_by(fate, sent)
        if self._dice() < self.plan.late:
            self.stats.delayed_late += 1
            self._hold(self._dice() * self.plan.late_seconds, sent)
            return True
        if self._post(sent):
            return True
        if sent is not message:  # a rule struck it, and that is counted: it is not given back
            self._hold(0.0, sent)
            return True
        return False

    def _delayed_by(self, fate: Fate, message: bytes) -> bool:
        if isinstance(fate, Delay):
            self.stats.delayed_late += 1
            self._hold(fate.time.draw(self._dice()), message)
        elif isinstance(fate, Never):
            self.stats.delayed_never += 1
        elif self._outlet.post(message):
            self.stats.delayed_twice += self._outlet.post(message)
        else:
            self._hold(0.0, message)
            self._hold(0.0, message, copy=True)
        return True

    def _post(self, message: bytes) -> bool:
        """Send it; then perhaps once more, at once or soon."""
        if not self._outlet.post(message):
            return False
        if self._dice() < self.plan.delayed_twice:
            if self._dice() < 0.5:
                self.stats.delayed_twice += self._outlet.post(message)
            else:
                self._hold(self._dice() * COPY_SECONDS, message, copy=True)
        return True

    # --- notifications ------------------------------------------------------------------------------------------------

    def notification(self, message: bytes) -> bool:
        """A whole notification is there. False: no room, it is lost."""
        if self._commands <= self.plan.after or self.held >= MAX_HELD:
            return self._outlet.notify(message)
        message, fate = self._rules.strike("notification", message)
        if isinstance(fate, Delay):
            self.stats.notifications_late += 1
            self._hold(fate.time.draw(self._dice()), message, notification=True)
            return True
        if isinstance(fate, Never):
            self.stats.notifications_never += 1
            return True
        sent = self._outlet.notify(message)
        if sent and isinstance(fate, Twice):
            self.stats.notifications_twice += self._outlet.notify(message)
        return sent

    # --- time ---------------------------------------------------------------------------------------------------------

    def _hold(
        self, seconds: float, data: bytes, head: int | None = None, *, copy: bool = False, notification: bool = False
    ) -> None:
        self._serial += 1
        entry = _Late(self._clock() + seconds, self._serial, head, data, copy, notification)
        heapq.heappush(self._late, entry)

    def tick(self, now: float) -> bool:
        """Time is ``now``: let go what is due, and let storms blow. True: responses went out, flush the cmdq."""
        overdue = [one for one in self._behind if one.due <= now]
        if overdue:
            self._behind = [one for one in self._behind if one.due > now]
            for one in overdue:
                self._give(one.head, one.reply)
        late = self._late
        went = bool(overdue)
        unsent = []
        while late and late[0].due <= now:
            entry = heapq.heappop(late)
            if entry.head is not None:
                self._give(entry.head, entry.data)
                went = True
            elif entry.notification:
                self._outlet.notify(entry.data)
            elif entry.copy:
                self.stats.delayed_twice += self._outlet.post(entry.data)
            elif not self._post(entry.data):
                unsent.append(entry)
        for entry in unsent:
            heapq.heappush(late, entry)
        for storm in self._storms:
            storm.tick(now, self._outlet)
        self.active = self.plan.any or self.held > 0
        return went
