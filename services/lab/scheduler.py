"""One schedule: actors as greenlets, steps, and who may go on.

An actor *publishes* what it is about to do (kind, location, gate) and asks who goes next; it executes its step when it
is chosen. Whoever asks switches straight to whoever was chosen, so that staying with one actor costs no switch. The
hub runs only to start actors, when one ends, and to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from common.errors import WatchError
from services.lab.actor import BLOCKED, READY, Actor, Chooser, Gate, Relax, Yield
from services.lab.failure import Failure, ForeignAwaitError, ReplayError
from services.lab.sharing import Location, Sharing


class Run:
    """One schedule being executed. Set-up comes first (no preemption points), then :meth:`execute`."""

    __slots__ = (
        "_back", "actors", "checking", "chooser", "current", "error", "failure", "hub", "invariant", "leaper", "limit",
        "mismatch", "name_of", "on_spawn", "preemptions", "schedule", "setup_names", "sharing", "started", "steps",
        "trace", "written",
    )  # fmt: skip

    def __init__(self, chooser: Chooser, limit: int, sharing: Sharing | None = None, trace: bool = False) -> None:
        self.chooser = chooser
        #: step bound: a schedule that reaches it counts as a livelock
        self.limit = limit
        #: None: every watched access is a preemption point
        self.sharing = sharing
        #: executed steps as (actor, kind, location or None, value as text), if wanted
        self.trace: list[tuple[str, str, Location | None, str]] | None = [] if trace else None
        #: who made each step, and the values of choices: enough to repeat the run
        self.schedule: list[str | int] = []
        self.actors: list[Actor] = []
        #: the running actor; None in set-up, in checks and after the end, when nothing is a preemption point
        self.current: Actor | None = None
        #: cells that a step or a leap has written: what a sleeping loop may hope for
        self.written: set[Location] = set()
        self.checking = False
        #: the actor that is in a leap
        self.leaper: Actor | None = None
        self.started = False
        self.steps = 0
        self.preemptions = 0
        self.failure: Failure | None = None
        #: why there is no verdict
        self.error: WatchError | None = None
        #: where a recorded schedule did not fit
        self.mismatch: ReplayError | None = None
        self.invariant: Callable[[], str | None] | None = None
        self.name_of: Callable[[Location], str] = lambda loc: f"{loc[0]}.{loc[1]}"
        self.on_spawn: Callable[[Actor], None] | None = None
        self.setup_names: dict[str, int] = {}
        self.hub: Any = None
        #: the greenlet that started the actor which has not come to its first step yet
        self._back: Any = None

    # --- steps, called by watched objects --------------------------------------------------------------------------

    def access(self, kind: str, loc: Location, write: bool) -> None:
        """A step that never blocks, about to touch ``loc``; returns when it may execute."""
        actor = self.current
        if actor is None:
            self.spy(loc, write)
            return
        if self.invariant is not None:
            self._check(actor)
        self.steps += 1
        sharing = self.sharing
        if sharing is None or loc in sharing.shared or sharing.touch(loc, actor.name, write, actor.held):
            actor.kind = kind
            actor.loc = loc
            actor.gate = None
            self._publish(actor)
        else:
            self._quiet(actor)
        if write:
            self.written.add(loc)
        else:
            actor.reads.add(loc)

    def gated(self, kind: str, loc: Location, write: bool, gate: Gate) -> None:
        """A step that executes only when ``gate`` lets it."""
        actor = self.current
        if actor is None:
            return
        if self.invariant is not None:
            self._check(actor)
        self.steps += 1
        sharing = self.sharing
        exposed = sharing is None or loc in sharing.shared or sharing.touch(loc, actor.name, write, actor.held)
        if exposed or gate.state() != READY:
            actor.kind = kind
            actor.loc = loc
            actor.gate = gate
            self._publish(actor)
        else:
            self._quiet(actor)

    def bulk(self, kind: str, memory: str, start: int, end: int, write: bool) -> None:
        """A copy of the bytes ``start`` to ``end`` in one step. Always a preemption point."""
        actor = self.current
        if actor is None:
            return
        if self.invariant is not None:
            self._check(actor)
        self.steps += 1
        if self.sharing is not None:
            self.sharing.touch_range(memory, start, end)
        actor.kind = kind
        actor.loc = (memory, start)
        actor.gate = None
        self._publish(actor)
        if not write:
            actor.ranges.append((memory, start, end))

    def relax(self) -> None:
        """Sleep until something read since the last call has been changed by another actor."""
        actor = self.current
        if actor is None:
            return
        if self.invariant is not None:
            self._check(actor)
        self.no_sleep_here(actor, "relax()")
        self.steps += 1
        actor.kind = "relax"
        actor.loc = None
        actor.gate = Relax(actor, self.written, self.name_of) if actor.reads or actor.ranges else Yield(self, actor)
        self._publish(actor)
        actor.reads.clear()
        actor.ranges.clear()
        actor.dirty = False
        self.note("relax", None, "")

    def choose(self, count: int, label: str) -> int:
        """A choice: a quiet step of its actor, and a branch of the strategy."""
        actor = self.current
        if actor is not None:
            self.steps += 1
            if self.sharing is None:
                actor.kind = "choose"
                actor.loc = None
                actor.gate = None
                self._publish(actor)
            else:
                self._quiet(actor)
        try:
            value = self.chooser.choose(count, label)
        except ReplayError as error:
            self.mismatch = error
            if actor is None:
                raise
            self.hub.switch()
            raise
        self.schedule.append(value)
        self.note("choose", None, f"{label} = {value}")
        return value

    def changed(self, loc: Location) -> None:
        """The running actor has changed the value at ``loc``."""
        current = self.current
        for actor in self.actors:
            if actor is not current:
                if loc in actor.reads:
                    actor.dirty = True
                elif actor.ranges and isinstance(loc[1], int):
                    for memory, start, end in actor.ranges:
                        if memory == loc[0] and start - 8 < loc[1] < end:
                            actor.dirty = True

    def changed_range(self, memory: str, start: int, end: int) -> None:
        """The running actor has written the bytes ``start`` to ``end``."""
        for actor in self.actors:
            if actor is not self.current and (
                any(m == memory and isinstance(a, int) and start - 8 < a < end for m, a in actor.reads)
                or any(m == memory and s < end and start < e for m, s, e in actor.ranges)
            ):
                actor.dirty = True

    def note(self, kind: str, loc: Location | None, text: str) -> None:
        """Trace the step that the running actor has just executed."""
        if self.trace is not None and self.current is not None:
            self.trace.append((self.current.name, kind, loc, text))

    def spy(self, loc: Location, write: bool) -> None:
        """``loc`` is touched outside of steps: by the scenario's check, by a leap, or in set-up."""
        if write and self.leaper is not None:
            self.written.add(loc)
        if self.sharing is not None:
            if self.checking:
                # every change of it must be visible between steps
                self.sharing.share(loc)
            elif self.leaper is not None and loc not in self.sharing.shared:
                self.sharing.touch(loc, self.leaper.name, write, self.leaper.held)

    def leap(self, what: str, action: Callable[[], None]) -> None:
        """One step that does all of ``action``; whoever sleeps in relax() looks again."""
        actor = self.current
        if actor is None:
            action()
            return
        if self.invariant is not None:
            self._check(actor)
        self.steps += 1
        actor.kind = "leap"
        actor.loc = None
        actor.gate = None
        self._publish(actor)
        self.current, self.leaper = None, actor
        try:
            action()
        finally:
            self.current, self.leaper = actor, None
        for other in self.actors:
            other.dirty = True
        self.note("leap", None, what)

    def no_sleep_here(self, actor: Actor, what: str) -> None:
        if actor.spins:
            self._stop(Failure("atomic", actor.name, f"{what} with a spinlock held"))

    def name(self, kind: str) -> str:
        """A name for a new object: the same in every run of the same schedule."""
        actor = self.current
        names = self.setup_names if actor is None else actor.names
        names[kind] = count = names.get(kind, 0) + 1
        plain = kind if count == 1 else f"{kind}{count}"
        return plain if actor is None else f"{actor.name}:{plain}"

    def refuse(self, message: str) -> WatchError:
        """No verdict from this run, even if an algorithm catches the error that the caller now raises."""
        error = WatchError(message)
        if self.error is None:
            self.error = error
        return error

    def fail(self, kind: str, detail: str) -> None:
        """The running actor shows a failure; does not return to it."""
        self._stop(Failure(kind, self.current.name if self.current is not None else "", detail))

    # --- the life of a run -------------------------------------------------------------------------------------------

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any], daemon: bool = False) -> None:
        """Add an actor. In mid-run it starts at once and stops before its first step."""
        taken = {a.name for a in self.actors}
        if name in taken:
            coro.close()
            raise self.refuse(f"two actors of the name {name!r}")
        actor = Actor(name, coro, daemon)
        self.actors.append(actor)
        if self.started:
            if self.on_spawn is not None:
                self.on_spawn(actor)
            spawner, here = self.current, getcurrent()
            self._prime(actor, here)
            self.current = spawner

    def execute(self) -> None:
        """Run to the end: :attr:`failure` and :attr:`error` tell how it went. Raises ReplayError."""
        self.hub = getcurrent()
        self.started = True
        if self.on_spawn is not None:
            for actor in self.actors:
                self.on_spawn(actor)
        for actor in tuple(self.actors):
            if self.failure is None and self.error is None:
                self._prime(actor, self.hub)
        last: Actor | None = None
        while True:
            chosen = self._next(last)
            if chosen is None:
                break
            self.current = last = chosen
            chosen.resume()
            last = self.current
        self.current = None
        self._kill()
        if self.mismatch is not None:
            raise self.mismatch

    def _prime(self, actor: Actor, back: Any) -> None:
        """Run an actor up to its first step, then come back to the greenlet ``back``."""
        outer, self._back = self._back, back
        actor.thread = thread = greenlet(self._body, back)
        actor.resume = thread.switch
        self.current = actor
        thread.switch(actor)
        self._back = outer
        thread.parent = self.hub

    def _body(self, actor: Actor) -> None:
        try:
            actor.coro.send(None)
        except StopIteration:
            if self.invariant is not None:
                self._check(actor)
        except GreenletExit:
            return
        except WatchError as error:
            self.error = self.error or error
        except Exception as error:
            if self.current is None:
                return  # clean-up code of an actor that is being stopped
            # a watched view has no buffer; Python says so in its own words
            if isinstance(error, TypeError) and "WatchedView" in str(error):
                self.refuse(f"{actor.name}: buffer access to a watched view: {error}")
            elif self.failure is None:
                self.failure = Failure("exception", actor.name, f"{type(error).__name__}: {error}")
        else:
            self.error = self.error or ForeignAwaitError(f"{actor.name} awaited something that no world handed in")
            actor.coro.close()
        actor.alive = False
        self.actors.remove(actor)

    def _publish(self, actor: Actor) -> None:
        """Ask who goes next; return when it is this actor's turn."""
        if self.trace is not None and actor.gate is not None and actor.gate.state() == BLOCKED:
            self.note("blocked", actor.loc, actor.gate.brief())
        back = self._back
        if back is not None:
            self._back = None
            back.switch()
            return
        chosen = self._next(actor)
        if chosen is None:
            self.hub.switch()
        elif chosen is not actor:
            self.current = chosen
            chosen.resume()

    def _quiet(self, actor: Actor) -> None:
        self.schedule.append(actor.name)
        if self.steps > self.limit:
            self._stop(Failure("livelock", actor.name, f"step bound of {self.limit} reached"))

    def _next(self, last: Actor | None) -> Actor | None:
        """Choose among those who may go on; None when the run is over, one way or the other."""
        if self.failure is not None or self.error is not None or self.mismatch is not None:
            return None
        if self.steps > self.limit:
            self.failure = Failure("livelock", last.name if last else "", f"step bound of {self.limit} reached")
            return None
        ready = []
        working = False
        for actor in self.actors:
            gate = actor.gate
            if gate is None:
                actor.state = READY
                ready.append(actor)
            else:
                actor.state = state = gate.state()
                if state != BLOCKED:
                    ready.append(actor)
            if not actor.daemon:
                working = True
        if not working:
            return None
        if not ready:
            ready = [a for a in self.actors if isinstance(a.gate, Yield)]
            if not ready:
                self.failure = self._deadlock()
                return None
        current = last if last is not None and last.alive and last.state == READY else None
        try:
            chosen = self.chooser.pick(current, ready)
        except ReplayError as error:
            self.mismatch = error
            return None
        if current is not None and chosen is not current:
            self.preemptions += 1
        self.schedule.append(chosen.name)
        return chosen

    def _deadlock(self) -> Failure:
        waits = [f"{a.name} waits in {a.gate.describe()}" for a in self.actors if not a.daemon and a.gate is not None]
        return Failure("deadlock", "", "; ".join(waits))

    def _check(self, actor: Actor) -> None:
        """The scenario's invariant, after each step and what its actor did with the result."""
        invariant = self.invariant
        assert invariant is not None
        self.current, self.checking = None, True
        try:
            broken = invariant()
        finally:
            self.current, self.checking = actor, False
        if broken is not None:
            self._stop(Failure("invariant", actor.name, broken))

    def _stop(self, failure: Failure) -> None:
        """End the run from inside an actor: never comes back to it."""
        if self.failure is None:
            self.failure = failure
        self.hub.switch()

    def _kill(self) -> None:
        """Unwind the actors that are not done: nothing that they still do is a step."""
        for actor in self.actors:
            if actor.thread is None:
                actor.coro.close()
            else:
                actor.thread.parent = self.hub
                actor.thread.throw(GreenletExit)
        self.actors.clear()
