"""The state file, byte for byte, cut off anywhere and damaged anywhere."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from services.scmi_platform import journal

ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 0xFF),
        st.one_of(st.integers(0, 0xFFFF), st.text(max_size=8)),
        st.one_of(st.none(), st.dictionaries(st.text(max_size=4), st.integers(0, 1 << 63), max_size=3)),
    ),
    max_size=6,
)


def last(entries: list[Any]) -> list[Any]:
    kept = {(protocol, key): state for protocol, key, state in entries}
    return sorted(([*key, state] for key, state in kept.items() if state is not None), key=repr)


def test_layout() -> None:
    body = msgpack.packb([0x14, "cpu", {"rate": 5}])
    head = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
    entry: Any = (0x14, "cpu", {"rate": 5})
    assert journal.records([entry]) == head + zlib.crc32(head).to_bytes(4, "little") + body
    assert msgpack.unpackb(journal.HEADER[12:]) == ["ringmesh scmi state", 1]


@given(ENTRIES)
def test_the_later_entry_wins(entries: list[Any]) -> None:
    found, torn = journal.read(journal.HEADER + journal.records(entries))
    assert torn == 0
    assert sorted(([*one] for one in found), key=repr) == last(entries)


@given(ENTRIES, st.data())
def test_cut_off_anywhere(entries: list[Any], data: st.DataObject) -> None:
    """A file that ends too early loses the record that it ends in and no other."""
    whole = journal.HEADER + journal.records(entries)
    at = data.draw(st.integers(len(journal.HEADER), len(whole)))
    ends = [len(journal.HEADER + journal.records(entries[:n])) for n in range(len(entries) + 1)]
    kept = max(n for n, end in enumerate(ends) if end <= at)
    found, torn = journal.read(whole[:at])
    assert torn == at - ends[kept]
    assert sorted(([*one] for one in found), key=repr) == last(entries[:kept])


@given(ENTRIES, st.data())
def test_damaged_anywhere(entries: list[Any], data: st.DataObject) -> None:
    """One wrong bit anywhere and the file is not believed."""
    whole = bytearray(journal.HEADER + journal.records(entries))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RemoteError) as error:
        journal.read(bytes(whole))
    assert error.value.field.startswith("state.")


def record(body: bytes) -> bytes:
    head = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
    return head + zlib.crc32(head).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"[platform]", "state.header"),
        (b"# a text that somebody else wrote", "state.head"),
        (record(msgpack.packb(["something else", 1])), "state.header"),
        (record(msgpack.packb(["ringmesh scmi state", 2])), "state.header"),
        (record(b"\xc1"), "state.record"),
        (journal.HEADER + record(msgpack.packb([1, 2])), "state.record"),
        (journal.HEADER + record(msgpack.packb(["x", 2, 3])), "state.record"),
        (journal.HEADER + record(b"\x93\x01\xa1\xff\xc0"), "state.record"),  # a key that is no UTF-8
        (journal.HEADER + record(b"\x93\x01\x02" + b"\x91" * 100_000 + b"\xc0"), "state.record"),  # too deep
        (journal.HEADER + record(bytes(journal.MAX_BODY + 1)), "state.length"),
        (journal.HEADER[:20], "state.header"),
    ],
)
def test_what_is_no_state_file(data: bytes, field: str) -> None:
    with pytest.raises(RemoteError) as error:
        journal.read(data)
    assert error.value.field == field


@pytest.mark.parametrize("zeros", [256, 5000])
def test_zeros_where_bytes_were_to_be(zeros: int) -> None:
    """At any byte of the last record, as a file system leaves them after a loss of power."""
    entries: list[Any] = [(0x14, "cpu", {"rate": 500}), (0x14, "gpu", {"rate": 0x0101_0101})]
    first, second = (journal.records([entry]) for entry in entries)
    for cut in range(len(second)):
        found, torn = journal.read(journal.HEADER + first + second[:cut] + bytes(zeros))
        assert (found, torn) == ([entries[0]], cut + zeros)
    found, torn = journal.read(journal.HEADER + first + second + bytes(zeros))
    assert (found, torn) == (entries, zeros)
    with pytest.raises(RemoteError):
        journal.read(journal.HEADER + first + b"\1" + second[1:] + bytes(zeros) + second)
    with pytest.raises(RemoteError):
        journal.read(bytes(zeros))


def test_nothing() -> None:
    assert journal.read(b"") == ([], 0)
    assert journal.read(journal.HEADER) == ([], 0)
