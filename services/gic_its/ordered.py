"""Sorted sets of ints as immutable tuples of tuples.

The ITS needs "the entry before this one" (KVM's tables are chained) and a stable order for walks. A tuple in one
watched field is all that another actor can ever see of it: the old set or the new one. Members that differ in their
low :data:`BITS` bits only share an inner tuple, so a change copies 2^BITS members and the list of inner tuples, not
the whole set: a guest that maps 65,536 events one by one costs linear time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

Ids = tuple[tuple[int, ...], ...]

#: 16-bit numbers make at most 256 groups of at most 256 members.
BITS: Final = 8


def _group(members: tuple[int, ...]) -> int:
    return members[0] >> BITS


def _place(ids: Ids, value: int) -> tuple[int, tuple[int, ...]]:
    """Where the group of ``value`` is or belongs, and its members."""
    group = value >> BITS
    if ids and ids[-1][0] >> BITS == group:  # ascending numbers are the usual case
        return len(ids) - 1, ids[-1]
    at = bisect_left(ids, group, key=_group)
    return at, ids[at] if at < len(ids) and _group(ids[at]) == group else ()


def added(ids: Ids, value: int) -> Ids:
    """``ids`` with ``value``."""
    at, old = _place(ids, value)
    i = bisect_left(old, value)
    if i < len(old) and old[i] == value:
        return ids
    return (*ids[:at], (*old[:i], value, *old[i:]), *ids[at + bool(old) :])


def removed(ids: Ids, value: int) -> Ids:
    """``ids`` without ``value``."""
    at, old = _place(ids, value)
    i = bisect_left(old, value)
    if i == len(old) or old[i] != value:
        return ids
    rest = old[:i] + old[i + 1 :]
    return ids[:at] + ((rest,) if rest else ()) + ids[at + 1 :]


def without(ids: Ids, run: Sequence[int]) -> Ids:
    """``ids`` without ``run``: members of one group that stand one after the other."""
    at, old = _place(ids, run[0])
    i = bisect_left(old, run[0])
    rest = old[:i] + old[i + len(run) :]
    return ids[:at] + ((rest,) if rest else ()) + ids[at + bool(old) :]


def members(ids: Ids) -> Iterator[int]:
    """All members, ascending."""
    return chain.from_iterable(ids)


def neighbours(ids: Ids, value: int) -> tuple[int | None, int]:
    """The largest member below ``value``; the distance from ``value`` to the next one above it, 0 if there is none."""
    at, group = _place(ids, value)
    i = bisect_left(group, value)
    if i:
        previous: int | None = group[i - 1]
    else:
        previous = ids[at - 1][-1] if at else None
    i += i < len(group) and group[i] == value
    if i < len(group):
        return previous, group[i] - value
    at += bool(group)
    return previous, ids[at][0] - value if at < len(ids) else 0
