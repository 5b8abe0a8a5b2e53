"""What may be stored, and what two actors must not share unseen."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec
import pytest

from services.lab.reach import Audit, WorldMade, storable


@dataclass(frozen=True)
class Frozen:
    inner: object = 1


@dataclass
class Loose:
    inner: object = 1


class Packet(msgspec.Struct, frozen=True):
    payload: object = b""


class Declared:
    """Each field is declared to be set once."""

    __slots__ = ("inner",)

    inner: Final[object]

    def __init__(self, inner: object) -> None:
        self.inner = inner


class HalfDeclared(Declared):
    """One is not."""

    __slots__ = ("other",)


class Inherits(Declared):
    __slots__ = ()


class Colour(enum.IntEnum):
    RED = 1


class Made(WorldMade):
    __slots__ = ()

    def method(self) -> None: ...


class Kept:
    def method(self) -> None: ...


def closing_over(value: object) -> Callable[[], object]:
    return lambda: value


def recursive() -> Callable[[int], int]:
    def down(n: int) -> int:
        return n and down(n - 1)

    return down


def with_default(box: object = deque()) -> object:
    return box


GOOD = [1, "x", None, b"", 1.5, (1, ("a", frozenset({2}))), Frozen(), Packet(), Colour.RED, Made(), Made().method, int]
GOOD += [len, closing_over(3), closing_over(Made()), recursive(), Frozen(Made()), Packet((1, 2)), storable]
GOOD += [Declared(Made()), Inherits(1), MappingProxyType({1: "x"}), Declared(MappingProxyType({"a": Made()}))]
BAD = [[], {}, set(), bytearray(), deque(), ([],), Loose(), Frozen([]), Packet([]), Kept().method, closing_over([])]
BAD += [with_default, memoryview(b""), object()]
BAD += [Declared([]), HalfDeclared(1), MappingProxyType({1: []}), Declared(MappingProxyType({1: Kept()}))]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_storable(value: object) -> None:
    assert storable(value)


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_not_storable(value: object) -> None:
    assert not storable(value)


def two(first: Callable[[], Coroutine[Any, Any, Any]], second: Callable[[], Coroutine[Any, Any, Any]]) -> str | None:
    audit = Audit()
    coros = first(), second()
    try:
        assert audit.add("a", coros[0]) is None
        error = audit.add("b", coros[1])
        return None if error is None else str(error)
    finally:
        for coro in coros:
            coro.close()


class TestAudit:
    def test_plain_object_in_two_actors(self) -> None:
        loose = Loose()

        async def use(thing: Loose) -> object:
            return thing.inner

        assert two(lambda: use(loose), lambda: use(Loose())) is None
        assert "a and b share a Loose" in str(two(lambda: use(loose), lambda: use(loose)))

    def test_deep_inside_immutables(self) -> None:
        box: list[int] = []

        async def use(thing: object) -> object:
            return thing

        said = two(lambda: use((1, Frozen((box,)))), lambda: use(closing_over(box)))
        assert said is not None
        assert "a list of 0" in said

    def test_a_read_only_mapping_of_what_may_be_shared(self) -> None:
        async def use(thing: object) -> object:
            return thing

        fine, box = Declared(MappingProxyType({1: Made()})), MappingProxyType({1: [2]})
        assert two(lambda: use(fine), lambda: use(fine)) is None
        assert "a list of 1" in str(two(lambda: use(box), lambda: use(Declared(box))))

    def test_world_made_objects_hide_what_they_hold(self) -> None:
        made = Made()

        async def use() -> None:
            made.method()

        assert two(use, use) is None

    def test_closure_that_is_only_read(self) -> None:
        limit = 3

        async def use() -> int:
            return limit

        assert two(use, use) is None

    def test_closure_that_one_of_them_assigns(self) -> None:
        count = 0

        async def bump() -> None:
            nonlocal count
            count += 1

        async def look() -> int:
            return count

        for pair in ((bump, look), (look, bump)):
            assert "the variable 'count' of an enclosing function" in str(two(*pair))

    def test_default_argument(self) -> None:
        async def use(box: list[int] = []) -> list[int]:  # noqa: B006
            return box

        def call() -> Coroutine[Any, Any, list[int]]:
            async def outer() -> list[int]:
                return await use()

            return outer()

        assert "a list of 0" in str(two(call, call))

    def test_unfilled_cell(self) -> None:
        said = []

        async def use() -> object:
            return later

        said.append(two(use, use))
        later = 1
        assert said == [None]
        assert later
