"""common.wire.codec against the ``msgpack`` package as an independent decoder and encoder."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FrameError
from common.wire import messages
from common.wire.codec import decode, encode, encode_body
from common.wire.limits import MAX_FRAME
from common.wire.messages import AnyMessage, Avail, Call, Message, Used

_ints = st.integers(-(1 << 63), (1 << 64) - 1)
_plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _ints | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if kind is Any:
        return _plain
    if kind is int:
        return _ints
    if typing.get_origin(kind) in (list, Sequence):
        inner = typing.get_args(kind)[0]
        return st.lists(_values(inner), max_size=3)
    if typing.get_origin(kind) is tuple:
        return st.tuples(*(_values(arg) for arg in typing.get_args(kind)))
    args = typing.get_args(kind)
    if args:
        return st.one_of(*(_values(arg) for arg in args))
    return {str: st.text(max_size=8), bytes: st.binary(max_size=32), bool: st.booleans(), type(None): st.none()}[kind]


def _messages(cls: type[Message]) -> st.SearchStrategy[Message]:
    kinds = typing.get_type_hints(cls, vars(messages))
    return st.builds(cls, **{name: _values(kinds[name]) for name in cls.__struct_fields__})


any_message: st.SearchStrategy[Message] = st.one_of(*(_messages(cls) for cls in AnyMessage.__args__))


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _decoded_or_refused(body: bytes) -> Message | FrameError:
    """Anything but a FrameError that decode() raises fails the test."""
    try:
        return decode(body)
    except FrameError as error:
        return error


@given(any_message)
def test_round_trip(message: Message) -> None:
    assert decode(encode_body(message)) == message


@given(any_message)
def test_msgpack_reads_the_same_values_and_writes_the_same_bytes(message: Message) -> None:
    body = encode_body(message)
    plain = msgpack.unpackb(body, strict_map_key=False)
    fields = [getattr(message, name) for name in message.__struct_fields__]
    assert plain == _as_lists([message.__struct_config__.tag, *fields])
    assert msgpack.packb(plain) == body
    assert encode(message) == len(body).to_bytes(4, "little") + body


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_but_frame_error(body: bytes) -> None:
    assert isinstance(_decoded_or_refused(body), (Message, FrameError))


@given(any_message, st.data())
def test_a_damaged_frame_raises_nothing_but_frame_error(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode_body(message))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(_decoded_or_refused(bytes(body)), (Message, FrameError))


@given(any_message, st.data())
def test_a_truncated_body_is_refused(message: Message, data: st.DataObject) -> None:
    body = encode_body(message)
    with pytest.raises(FrameError):
        decode(body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize(
    "plain",
    [
        ["nonsense", 1],
        ["kick"],
        ["kick", "0"],
        ["kick", 0, 0],
        ["avail", 0, 0, 0, [[1, b"", [[1, 2]]]], 0],
        ["used", 0, 0, [[1, "text"]]],
        {"kick": 0},
        7,
        None,
    ],
)
def test_ill_typed_messages_are_refused(plain: Any) -> None:
    with pytest.raises(FrameError):
        decode(msgpack.packb(plain))


def test_two_messages_in_one_body_are_refused() -> None:
    body = encode_body(Call(1, "op", []))
    with pytest.raises(FrameError):
        decode(body + body)


def test_deep_nesting_is_refused_not_crashed() -> None:
    with pytest.raises(FrameError):
        decode(b"\x94\xa4call\x01\xa1x" + b"\x91" * 100_000 + b"\xc0")


def test_a_defaulted_field_may_be_left_out() -> None:
    assert decode(msgpack.packb(["avail", 0, 1, 2, [], 3])) == Avail(0, 1, 2, [], 3, again=False)


def test_a_frame_over_the_limit_is_the_callers_to_split() -> None:
    message = Used(0, 0, [(0, bytes(MAX_FRAME))])
    with pytest.raises(FrameError) as caught:
        encode(message)
    assert (caught.value.field, caught.value.limit) == ("frame.length", MAX_FRAME)
    assert len(encode(message, 2 * MAX_FRAME)) == len(msgspec.msgpack.encode(message)) + 4
