"""Sorted sets of ints as immutable tuples.

The ITS needs "the entry before this one" (KVM's tables are chained) and a stable order for walks. A tuple in one
watched field is all that another actor can ever see of it: the old set or the new one.
"""

from __future__ import annotations

from bisect import bisect_left

Ids = tuple[int, ...]


def added(ids: Ids, value: int) -> Ids:
    """``ids`` with ``value``."""
    at = bisect_left(ids, value)
    if at < len(ids) and ids[at] == value:
        return ids
    return (*ids[:at], value, *ids[at:])


def removed(ids: Ids, value: int) -> Ids:
    """``ids`` without ``value``."""
    at = bisect_left(ids, value)
    if at == len(ids) or ids[at] != value:
        return ids
    return ids[:at] + ids[at + 1 :]


def before(ids: Ids, value: int) -> int | None:
    """The largest member below ``value``."""
    at = bisect_left(ids, value)
    return ids[at - 1] if at else None


def distance(ids: Ids, value: int) -> int:
    """From ``value`` to the next member above it, 0 if there is none."""
    at = bisect_left(ids, value + 1)
    return ids[at] - value if at < len(ids) else 0
