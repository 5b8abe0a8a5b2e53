"""Small racy algorithms for the tests of the lab."""

from __future__ import annotations

from collections.abc import Callable

from services.lab.scenario import Build, Checks
from services.lab.world import LabWorld


class Cell:
    """Two fields and a count."""

    __slots__ = ("a", "b", "freed", "users")

    def __init__(self) -> None:
        self.a = 0
        self.b = 0
        self.users = 1
        self.freed = 0

    def put(self) -> None:
        """Not atomic: test, then free."""
        if self.users:
            self.users = 0
            self.freed += 1


def double_free(locked: bool) -> Build:
    """Two actors drop the last reference."""

    def setup(world: LabWorld) -> Checks:
        cell, lock = world.new(Cell), world.spinlock()

        async def drop() -> None:
            if locked:
                with lock:
                    cell.put()
            else:
                cell.put()

        world.spawn("cpu0", drop())
        world.spawn("cpu1", drop())
        return Checks(final=lambda: None if cell.freed == 1 else f"freed {cell.freed} times")

    return setup


def lost_wakeup(recheck: bool) -> Build:
    """A waiter clears the event before it waits; without a second look at the flag a wake-up gets lost."""

    def setup(world: LabWorld) -> Checks:
        cell, event = world.new(Cell), world.event()

        async def waiter() -> None:
            while not cell.a:
                event.clear()
                if not (recheck and cell.a):
                    await event.wait()

        async def waker() -> None:
            cell.a = 1
            event.set()

        world.spawn("waiter", waiter())
        world.spawn("waker", waker())
        return Checks()

    return setup


def peterson(announce: bool) -> Build:
    """Peterson's lock for two; ``announce`` False drops the store that says who yields."""

    def setup(world: LabWorld) -> Checks:
        flag, turn, inside = world.array(2, 0), world.atomic(0), world.new(Cell)

        async def cpu(me: int) -> None:
            other = 1 - me
            flag[me] = 1
            if announce:
                turn.store(other)
            while flag[other] and turn.load() == other:
                await world.relax()
            inside.a += 1
            if inside.a != 1:
                inside.b = 1
            inside.a -= 1
            flag[me] = 0

        world.spawn("cpu0", cpu(0))
        world.spawn("cpu1", cpu(1))
        return Checks(final=lambda: "both inside" if inside.b else None)

    return setup


def aba(modulus: int, turns: int) -> Build:
    """A poller waits until a counter modulo ``modulus`` is no longer 0; the producer moves it ``turns`` times."""

    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        async def poller() -> None:
            while cell.a == 0:
                await world.relax()

        async def producer() -> None:
            for _ in range(turns):
                cell.a = (cell.a + 1) % modulus

        world.spawn("poller", poller())
        world.spawn("producer", producer())
        return Checks()

    return setup


#: name, build, does it fail
TOYS: tuple[tuple[str, Callable[[], Build], bool], ...] = (
    ("double free", lambda: double_free(False), True),
    ("double free, locked", lambda: double_free(True), False),
    ("lost wake-up", lambda: lost_wakeup(False), True),
    ("lost wake-up, second look", lambda: lost_wakeup(True), False),
    ("peterson without the turn", lambda: peterson(False), True),
    ("peterson", lambda: peterson(True), False),
    ("counter wraps", lambda: aba(4, 4), True),
    ("counter does not wrap", lambda: aba(8, 4), False),
)
