"""Watched objects are the algorithm's own class; containers behave as the plain ones."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import pytest

from common.errors import WatchError
from services.lab.explore import explore, run_once
from services.lab.scenario import Checks, Settings
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.watched import differs, show, watched_class
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell


class Base:
    __slots__ = "only"

    def __init__(self) -> None:
        self.only = 1


class Derived(Base):
    __slots__ = ("more", "unset")

    def __init__(self, more: object = 0) -> None:
        super().__init__()
        self.more = more

    @property
    def twice(self) -> int:
        return 2 * self.only


class Loose:
    def __init__(self) -> None:
        self.a = 1


def world() -> LabWorld:
    return LabWorld(Run(Replay([]), 1000))


def steps(body: Any) -> list[tuple[str, str]]:
    """Run ``body(world)`` as the only actor; the kinds and places of its steps."""
    names = []

    def setup(w: LabWorld) -> Checks:
        w.spawn("cpu", body(w))
        names.append(w.name_of)
        return Checks()

    run = run_once(setup, Replay([]), 1000, trace=True).run
    assert run.failure is None, run.failure
    assert run.error is None, run.error
    return [(kind, names[0](loc) if loc else "") for _, kind, loc, _ in run.trace or ()]


class TestObjects:
    def test_subclass_with_the_very_same_functions(self) -> None:
        made = world().new(Derived, 5)
        assert isinstance(made, Derived)
        assert type(made).__name__ == "Derived"
        assert type(made).twice is Derived.twice
        assert type(made).__init__ is Derived.__init__
        assert watched_class(Cell).put is Cell.put
        assert watched_class(Derived) is type(made)
        assert (made.more, made.only, made.twice) == (5, 1, 2)

    def test_unset_field(self) -> None:
        with pytest.raises(AttributeError):
            _ = world().new(Derived).unset  # type: ignore[attr-defined]

    def test_each_access_is_a_step(self) -> None:
        async def body(w: LabWorld) -> None:
            made = w.new(Derived)  # its construction is nobody else's business
            made.more = made.only
            made.unset = 3  # type: ignore[attr-defined]

        assert steps(body) == [
            ("read", "cpu:Derived.only"),
            ("write", "cpu:Derived.more"),
            ("write", "cpu:Derived.unset"),
        ]

    def test_names_come_from_counters(self) -> None:
        w = world()
        assert [show(w.new(Cell)), show(w.new(Cell)), show(w.queue())] == ["Cell", "Cell2", "queue"]

    def test_refused(self) -> None:
        w = world()
        with pytest.raises(WatchError, match="no __slots__"):
            w.new(Loose)
        with pytest.raises(WatchError, match="a list is neither immutable nor world-made"):
            w.new(Derived, [])
        made = w.new(Derived)
        with pytest.raises(WatchError, match=r"Derived2?\.more: a dict"):
            made.more = {}
        with pytest.raises(TypeError, match="unexpected keyword"):
            w.new(Derived, colour=1)
        assert w.run.error is not None

    def test_refusal_stands_even_if_caught(self) -> None:
        def setup(w: LabWorld) -> Checks:
            cell = w.new(Cell)

            async def body() -> None:
                try:
                    cell.a = []  # type: ignore[assignment]
                except WatchError:
                    cell.a = 1

            w.spawn("cpu", body())
            return Checks()

        assert isinstance(run_once(setup, Replay([]), 100).run.error, WatchError)


class Fixed:
    """``kept`` is set in __init__ and never again; ``own`` is, too, but its class does not say so."""

    __slots__ = ("count", "kept", "own")

    kept: Final[Any]

    def __init__(self, kept: object = 7) -> None:
        self.kept = kept
        self.own: Final = self.kept
        self.count = 0

    def spoil(self) -> None:
        self.kept = 8  # type: ignore[misc]


class Further(Fixed):
    __slots__ = ("extra",)

    def __init__(self) -> None:
        super().__init__()
        self.extra = self.kept


class TestFinal:
    def test_reading_is_no_step(self) -> None:
        async def body(w: LabWorld) -> None:
            fixed = w.new(Further)
            fixed.count = fixed.kept + fixed.own

        assert steps(body) == [("read", "cpu:Further.own"), ("write", "cpu:Further.count")]

    @pytest.mark.parametrize("cls", [Fixed, Further])
    @pytest.mark.parametrize("leap", [False, True])
    @pytest.mark.parametrize("caught", [False, True])
    def test_a_later_store_is_refused_and_nothing_is_judged(self, cls: type[Any], leap: bool, caught: bool) -> None:
        def setup(w: LabWorld) -> Checks:
            fixed = w.new(cls)

            async def cpu() -> None:
                try:
                    w.leap("spoil", fixed.spoil) if leap else fixed.spoil()
                except WatchError:
                    if not caught:
                        raise
                assert fixed.kept == 7

            w.spawn("cpu", cpu())
            return Checks()

        run = run_once(setup, Replay([]), 100).run
        assert isinstance(run.error, WatchError)
        assert "Final" in str(run.error)
        result = explore(setup, Settings(preemptions=1))
        assert result.verdict == "not judged"

    def test_a_store_in_set_up_is_refused_too(self) -> None:
        w = world()
        fixed = w.new(Fixed)
        with pytest.raises(WatchError, match=r"Fixed\.kept is Final"):
            fixed.spoil()
        assert w.run.error is not None

    def test_what_it_holds_is_immutable_or_world_made(self) -> None:
        w = world()
        assert w.new(Fixed, w.queue()).kept is not None
        assert w.run.error is None
        with pytest.raises(WatchError, match=r"Fixed2\.kept: a list is neither immutable nor world-made"):
            w.new(Fixed, [])
        assert w.run.error is not None


class TestQueue:
    def test_like_a_deque(self) -> None:
        queue, plain = world().queue(), deque[int]()
        for q in (queue, plain):
            q.append(1)
            q.append(2)
            q.appendleft(0)
            q.remove(1)
        assert list(queue) == list(plain) == [0, 2]
        assert (len(queue), 2 in queue, 1 in queue, queue.popleft()) == (2, True, False, 0)
        with pytest.raises(ValueError, match="not in the queue"):
            queue.remove(9)
        queue.popleft()
        with pytest.raises(IndexError):
            queue.popleft()
        with pytest.raises(WatchError):
            queue.append([])

    def test_one_location(self) -> None:
        async def body(w: LabWorld) -> None:
            queue = w.queue()
            queue.append(1)
            assert len(queue)
            assert 1 in queue
            for _ in queue:
                queue.popleft()

        assert [kind for kind, _ in steps(body)] == ["append", "len", "in", "iter", "popleft"]
        assert {place for _, place in steps(body)} == {"cpu:queue"}


class TestArray:
    def test_cells(self) -> None:
        array = world().array(3, 7)
        array[1] = 8
        array[-1] = 9
        assert [array[i] for i in range(len(array))] == [7, 8, 9]
        with pytest.raises(IndexError):
            array[3] = 0
        with pytest.raises(WatchError, match="one element at a time"):
            _ = array[0:2]  # type: ignore[index]
        with pytest.raises(WatchError):
            array[0] = []
        with pytest.raises(WatchError):
            world().array(2, [])

    def test_one_location_an_element(self) -> None:
        async def body(w: LabWorld) -> None:
            array = w.array(2, 0)
            array[1] = array[-2]

        assert steps(body) == [("read", "cpu:array[0]"), ("write", "cpu:array[1]")]


class TestTable:
    def test_like_a_dict(self) -> None:
        table = world().table()
        table[5] = "x"
        assert (table[5], table.get(5), table.get(6), 5 in table, 6 in table, len(table)) == (
            "x",
            "x",
            None,
            True,
            False,
            1,
        )
        assert table.pop(5) == "x"
        assert table.pop(5, None) is None
        with pytest.raises(KeyError):
            _ = table[5]
        with pytest.raises(KeyError):
            table.pop(5)
        with pytest.raises(WatchError):
            table[1] = []

    def test_one_location_a_key(self) -> None:
        async def body(w: LabWorld) -> None:
            table = w.table()
            table[5] = 1
            table[5] = 2
            assert table.get(5)
            assert len(table)
            assert [key for key in table] == [5]  # noqa: C416  (list() would ask for the length too)
            table.pop(5)

        assert steps(body) == [
            ("write", "cpu:table[5]"),
            ("write", "cpu:table[5]"),
            ("read", "cpu:table[5]"),
            ("len", "cpu:table.keys"),
            ("iter", "cpu:table.keys"),
            ("pop", "cpu:table[5]"),
        ]

    def test_len_sees_other_keys_come_and_go(self) -> None:
        def setup(w: LabWorld) -> Checks:
            table = w.table()

            async def poller() -> None:
                while len(table) != 1:
                    await w.relax()

            async def other() -> None:
                table[3] = 1

            w.spawn("poller", poller())
            w.spawn("other", other())
            return Checks()

        for brute_force in (False, True):
            result = explore(setup, Settings(preemptions=2), brute_force=brute_force)
            assert (result.verdict, result.exhaustive) == ("holds", True)

    def test_counting_races_with_putting(self) -> None:
        """The count is exposed by a key that only one actor touches."""

        def setup(w: LabWorld) -> Checks:
            table = w.table()

            async def counter() -> None:
                first = len(table)
                table[100] = len(table) - first

            async def other() -> None:
                table[3] = 1

            w.spawn("counter", counter())
            w.spawn("other", other())
            return Checks(final=lambda: "moved" if table[100] else None)

        for brute_force in (False, True):
            assert explore(setup, Settings(preemptions=2), brute_force=brute_force).verdict == "fails"


def test_show_and_differs() -> None:
    assert [show(v) for v in (4095, 4096, -1, "x", (1, None), [1])] == [
        "4095",
        "0x1000",
        "-1",
        "'x'",
        "(1, None)",
        "list",
    ]
    cell = world().new(Cell)
    assert not differs(1, 1)
    assert not differs(cell, cell)
    assert differs(cell, 1)
    assert differs(1, 2)
