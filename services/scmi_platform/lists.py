"""Lists that are too long for one message: as many items as fit, and how many remain (DEN0056E §4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from common.scmi.fields import U32

#: Bytes of status and flags word in front of the items of a list.
LIST_HEAD: Final = 8


def packed_list(items: Iterable[bytes], total: int, max_payload: int, remaining_shift: int) -> bytes:
    """As many items as fit behind the flags word: how many there are, and how many of ``total`` remain."""
    out: list[bytes] = []
    room = max_payload - LIST_HEAD
    for item in items:
        room -= len(item)
        if room < 0:
            break
        out.append(item)
    return U32.pack(len(out) | total - len(out) << remaining_shift) + b"".join(out)
