"""Which annotations make a field final."""

# The classes below are looked at, never made: mypy misses the stores of __init__.
# mypy: disable-error-code="misc"

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, Final

from services.lab.final import final_fields, slots_of


class FinalState:
    """Its name begins like the annotation."""


class Base:
    __slots__ = ("a", "b", "c", "d", "e", "state")

    a: Final[int]
    b: typing.Final[tuple[int, ...]]
    c: int
    d: Final
    state: FinalState

    def __init__(self) -> None:
        self.e: Final = 1  # leaves no trace


class Derived(Base):
    __slots__ = ("more",)

    a: int  # taken back
    c: Final[int]
    more: Final[int]


class Single:
    __slots__ = "only"

    only: Final[int]


class Open:
    only: Final[int]


@dataclass(slots=True)
class Data:
    key: Final[int]
    value: int = 0


def bare() -> type[Any]:
    """Annotations that are objects, as without the future import."""
    annotations = {"x": Final, "y": Final[int], "z": int}
    return type("Bare", (), {"__slots__": ("x", "y", "z"), "__annotations__": annotations})


def test_final_fields() -> None:
    assert final_fields(Base) == {"a", "b", "d"}
    assert final_fields(Derived) == {"b", "c", "d", "more"}
    assert final_fields(Single) == {"only"}
    assert final_fields(Open) == frozenset()
    assert final_fields(Data) == {"key"}
    assert final_fields(bare()) == {"x", "y"}


def test_slots_of_the_nearest_class() -> None:
    assert slots_of(Derived) == {"more": Derived, **dict.fromkeys(("a", "b", "c", "d", "e", "state"), Base)}
