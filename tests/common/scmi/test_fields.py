"""Words and names."""

from __future__ import annotations

import pytest

from common.errors import ScmiError
from common.scmi.fields import (
    U32,
    build_name,
    is_long,
    long_name,
    name_of,
    parse_name,
    short_name,
    signed,
    unpack,
    unpack_many,
)


def test_names() -> None:
    assert short_name("a" * 20) == b"a" * 15 + b"\0"
    assert long_name("a" * 80) == b"a" * 63 + b"\0"
    assert name_of(b"ab\xff\0cd") == "ab\N{REPLACEMENT CHARACTER}"
    assert (is_long("a" * 15), is_long("a" * 16)) == (False, True)


def test_extended_names() -> None:
    assert build_name("long" * 4) == bytes(4) + b"long" * 4 + bytes(48)
    assert parse_name(bytes(4) + b"long".ljust(64, b"\0"), "CLOCK_NAME_GET") == "long"
    with pytest.raises(ScmiError, match=r"CLOCK_NAME_GET .* 67 bytes of return values, 68 needed"):
        parse_name(bytes(67), "CLOCK_NAME_GET")


def test_signed() -> None:
    assert [signed(value, 5) for value in (0, 15, 16, 31)] == [0, 15, -16, -1]


def test_short_replies_say_what_was_needed() -> None:
    with pytest.raises(ScmiError, match="3 bytes of return values, 4 needed"):
        unpack(U32, b"abc", "X")
    with pytest.raises(ScmiError, match="7 bytes of return values, 8 needed"):
        unpack_many(U32, b"abcdefg", 2, "X")
    assert unpack_many(U32, bytes(8), 2, "X") == [(0,), (0,)]
