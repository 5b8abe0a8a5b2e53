"""common.wire.framing: the splitter."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FrameError
from common.wire.framing import Splitter, frame
from common.wire.limits import MAX_FRAME


def _feed(pieces: list[bytes], limit: int = MAX_FRAME) -> tuple[list[bytes], str, int]:
    """Bodies, error text and pending bytes of feeding ``pieces`` until the first error."""
    splitter = Splitter(limit)
    bodies: list[bytes] = []
    try:
        for piece in pieces:
            splitter.feed(piece, bodies)
    except FrameError as error:
        return bodies, str(error), 0
    return bodies, "", splitter.pending


@given(st.binary(max_size=200), st.integers(1, 64))
def test_whole_and_byte_by_byte_agree_on_any_bytes(stream: bytes, limit: int) -> None:
    assert _feed([stream], limit) == _feed([stream[i : i + 1] for i in range(len(stream))], limit)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=12), st.data())
def test_bodies_come_out_as_they_went_in_however_the_stream_is_cut(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(body) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *cuts, len(stream)]
    assert _feed([stream[a:b] for a, b in pairwise(edges)]) == (bodies, "", 0)


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0xFFFFFFFF])
def test_a_bad_length_is_refused_before_the_body_arrives(length: int) -> None:
    splitter = Splitter()
    bodies: list[bytes] = []
    with pytest.raises(FrameError) as caught:
        splitter.feed(frame(b"ok") + length.to_bytes(4, "little"), bodies)
    assert (caught.value.field, caught.value.value, caught.value.limit) == ("frame.length", length, MAX_FRAME)
    assert bodies == [b"ok"]
    assert splitter.pending == 0


def test_the_largest_frame_passes_and_an_unfinished_one_is_kept() -> None:
    splitter = Splitter()
    bodies: list[bytes] = []
    body = bytes(MAX_FRAME)
    splitter.feed(frame(body)[:-1], bodies)
    assert (bodies, splitter.pending) == ([], MAX_FRAME + 3)
    splitter.feed(body[-1:], bodies)
    assert (bodies, splitter.pending) == ([body], 0)


def test_the_limit_may_be_raised_between_feeds() -> None:
    splitter = Splitter(4)
    bodies: list[bytes] = []
    splitter.feed(frame(b"1234"), bodies)
    splitter.limit = 5
    splitter.feed(frame(b"12345"), bodies)
    assert bodies == [b"1234", b"12345"]


@pytest.mark.parametrize("length", [0, 3])
def test_a_body_may_have_a_least_length(length: int) -> None:
    splitter, bodies = Splitter(limit=8, least=4), list[bytes]()
    splitter.feed(b"\4\0\0\0abcd", bodies)
    assert bodies == [b"abcd"]
    with pytest.raises(FrameError) as caught:
        splitter.feed(bytes([length, 0, 0, 0]), bodies)
    assert (caught.value.value, caught.value.limit) == (length, 8)
