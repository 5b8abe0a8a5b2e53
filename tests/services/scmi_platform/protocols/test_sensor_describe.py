"""Update intervals fill a message and never overflow it; those of version 0x10000 are the shortest that fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.protocols.sensor_describe import interval_v1, intervals


@given(st.integers(1, 60))
def test_intervals(total: int) -> None:
    raw = intervals([7] * total, False, 128)
    assert len(raw) + 4 <= 128
    assert int.from_bytes(raw[:2], "little") + int.from_bytes(raw[2:4], "little") == total


@given(st.integers(0, 0xFFFF), st.integers(-16, 15))
def test_interval_of_version_one(mantissa: int, exponent: int) -> None:
    found, shift = interval_v1(mantissa, exponent)
    whole = mantissa * 10 ** (exponent + 16)
    fitting = [m * 10 ** (e + 16) for e in range(-16, 16) for m in range(32) if m * 10 ** (e + 16) >= whole]
    assert 0 <= found < 32
    assert -16 <= shift <= 15 or not found
    assert found * 10 ** (shift + 16) == (min(fitting) if fitting else 0)
