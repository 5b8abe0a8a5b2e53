"""The header word (DEN0056E §4.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.scmi import header


@given(st.integers(0, 255), st.integers(0, 3), st.integers(0, 255), st.integers(0, 1023))
def test_there_and_back(message: int, kind: int, protocol: int, token: int) -> None:
    word = header.pack(protocol, message, token, kind)
    assert header.unpack(word) == (message, kind, protocol, token, 0)
    assert word & header.KEY_MASK == header.key(protocol, message, kind)
    assert header.unpack(header.as_delayed(word)) == (message, header.DELAYED_RESPONSE, protocol, token, 0)


def test_bytes() -> None:
    # token 5 (27:18), protocol 0x14 (17:10), type 0 (9:8), message 6 (7:0)
    assert header.command(0x14, 6, 5, b"abcd") == b"\x06\x50\x14\x00abcd"
    assert header.notification(0x15, 1, b"") == b"\x01\x57\x00\x00"
    assert header.unpack(0xF000_0000).reserved == 0xF


@pytest.mark.parametrize("fields", [(0x100, 0, 0, 0), (0, 0x100, 0, 0), (0, 0, 1024, 0), (0, 0, 0, 4), (0, -1, 0, 0)])
def test_fields_that_do_not_fit(fields: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        header.pack(*fields)
