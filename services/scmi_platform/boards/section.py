"""What all sections of a board file share: bounded types, the root class, and checks that several need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
S64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
#: Names must leave room for the NUL of a 64-byte field.
Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[ -~]+$")]
#: Names that have no extended form: vendors and agents.
ShortName = Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[ -~]+$")]
#: Exponents are five bits, two's complement.
MAX_EXPONENT = 15
Exponent = Annotated[int, Meta(ge=-16, le=MAX_EXPONENT)]

#: Counts are 16 bits in the attributes messages.
MAX_DOMAINS = 0xFFFF


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Root of all sections: a key that nobody knows is refused."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Child(Named, Protocol):
    """``parent`` is the name of what it is a part of, of its own kind; "" for nothing."""

    @property
    def parent(self) -> str: ...


class Range(Protocol):
    """From ``min`` to ``max`` in steps; with ``step`` 0 anything between."""

    @property
    def min(self) -> int: ...

    @property
    def max(self) -> int: ...

    @property
    def step(self) -> int: ...


#: The sections of a board by the key of their list: what a check may look at besides its own section.
Parts = Mapping[str, Sequence[Any]]

#: ``refuse(key, reason)`` raises ConfigError for the file that is being read.
Refuse = Callable[[str, str], None]


def numbers(items: Iterable[Named], first: int = 0) -> dict[str, int]:
    """The number of each by its name: its position in the file, from ``first`` on."""
    return {item.name: number for number, item in enumerate(items, first)}


def check_names(kind: str, items: Sequence[Named], refuse: Refuse) -> None:
    if len(items) > MAX_DOMAINS:
        refuse(kind, f"{len(items)} of them, at most {MAX_DOMAINS}")
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.name in seen:
            refuse(f"{kind}[{index}].name", f"{item.name!r} is there twice")
        seen.add(item.name)


def check_known(key: str, names: Iterable[str], items: Sequence[Named], refuse: Refuse) -> None:
    known = {item.name for item in items}
    for name in names:
        if name not in known:
            refuse(key, f"{name!r} is not on the board")


def check_listed(key: str, names: Sequence[str], items: Sequence[Named], refuse: Refuse) -> None:
    """As :func:`check_known`, and none is there twice."""
    check_known(key, names, items, refuse)
    for name in names:
        if names.count(name) > 1:
            refuse(key, f"{name!r} is there twice")


def check_parent(key: str, child: Child, items: Sequence[Child], refuse: Refuse) -> None:
    """The parent is on the board, and walking up ends."""
    if child.parent:
        check_known(f"{key}.parent", [child.parent], items, refuse)
    parents = {item.name: item.parent for item in items}
    seen, name = {child.name}, child.parent
    while name:
        if name in seen:
            refuse(f"{key}.parent", f"{name!r} is its own ancestor")
        seen.add(name)
        name = parents.get(name, "")


def offers(values: Sequence[int] | Range, value: int) -> bool:
    """Is ``value`` one of a list, or of a range?"""
    if isinstance(values, Sequence):
        return value in values
    return values.min <= value <= values.max and not (values.step and (value - values.min) % values.step)


def check_range(key: str, span: Range, refuse: Refuse) -> None:
    if span.min > span.max:
        refuse(key, f"min {span.min} is above max {span.max}")


def check_within(key: str, value: int, span: Range, refuse: Refuse) -> None:
    if not offers(span, value):
        refuse(key, f"{value} is not in {span.min}, {span.min + span.step} … {span.max}")


def check_offered(key: str, name: str, value: int, values: Sequence[int] | Range, refuse: Refuse) -> None:
    """``values``, which the key ``{name}s`` says, ascend or are a range, and ``value``, which ``name`` says, is one."""
    if not isinstance(values, Sequence):
        check_range(f"{key}.{name}s", values, refuse)
        check_within(f"{key}.{name}", value, values, refuse)
        return
    check_ascending(f"{key}.{name}s", values, refuse)
    if value not in values:
        refuse(f"{key}.{name}", f"{value} is not one of the {name}s")


def check_ascending(key: str, values: Sequence[int], refuse: Refuse) -> None:
    if not values:
        refuse(key, "must not be empty")
    for index, (low, high) in enumerate(itertools.pairwise(values), start=1):
        if low >= high:
            refuse(f"{key}[{index}]", f"{high} after {low}: must be ascending")
