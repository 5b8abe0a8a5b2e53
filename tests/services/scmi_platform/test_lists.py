"""Lists fill a message and never overflow it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.lists import packed_list


@given(st.integers(0, 40), st.integers(1, 5), st.integers(76, 200))
def test_packed_list(total: int, size: int, max_payload: int) -> None:
    raw = packed_list((bytes(4 * size) for _ in range(total)), total, max_payload, remaining_shift=16)
    flags = int.from_bytes(raw[:4], "little")
    count, remaining = flags & 0xFFF, flags >> 16
    assert (count + remaining, len(raw)) == (total, 4 + 4 * size * count)
    assert len(raw) + 4 <= max_payload
    assert remaining == 0 or len(raw) + 4 + 4 * size > max_payload
