"""The books of frames: each kind of trouble provoked once."""

from __future__ import annotations

import pytest

from common.histogram import Histogram
from services.guest_driver.net_ledger import PAIR_SHIFT, TRAILER, TRAILER_BYTES, NetLedger


@pytest.fixture
def ledger() -> NetLedger:
    return NetLedger([b"a" * 60, b"b" * 90], Histogram())


def troubles(ledger: NetLedger) -> tuple[int, int, int, int]:
    return ledger.duplicated, ledger.corrupted, ledger.re_executed, ledger.close()


def test_frames_take_turns_and_carry_their_number(ledger: NetLedger) -> None:
    frames = ledger.make(3, 5) + ledger.make(1, 6)
    assert [frame[:1] for frame in frames] == [b"a", b"b", b"a", b"b"]
    assert [TRAILER.unpack(frame[-TRAILER_BYTES:]) for frame in frames] == [(0, 5), (1, 5), (2, 5), (3, 6)]
    assert (ledger.tx, ledger.outstanding) == (4, 4)


def test_a_good_day(ledger: NetLedger) -> None:
    frames = ledger.make(4, 1_000_000)
    ledger.came(frames[:1], 3_000_000)
    ledger.came(frames[1:], 3_000_000)
    assert troubles(ledger) == (0, 0, 0, 0)
    assert ledger.reordered == 0
    assert (ledger.rx, ledger.outstanding, ledger.reset_dropped) == (4, 0, 0)
    assert (ledger.rtt.count, round(ledger.rtt.max, 6)) == (4, 0.002)


def test_lost(ledger: NetLedger) -> None:
    frames = ledger.make(4, 1)
    ledger.came(frames[1:], 2)
    assert troubles(ledger) == (0, 0, 0, 1)


@pytest.mark.parametrize(("order", "reordered"), [("1023", 1), ("3012", 3), ("2031", 2), ("0312", 2), ("123", 0)])
def test_reordered(ledger: NetLedger, order: str, reordered: int) -> None:
    """Every frame that comes after a later one; in one batch or in several."""
    frames = ledger.make(4, 1)
    apart = NetLedger([b"a" * 60, b"b" * 90], Histogram())
    apart.make(4, 1)
    came = [frames[int(n)] for n in order]
    ledger.came(came, 2)
    for frame in came:
        apart.came([frame], 2)
    for book in (ledger, apart):
        assert troubles(book) == (0, 0, 0, 4 - len(order))
        assert (book.reordered, book.rtt.count) == (reordered, len(order))


def test_frames_of_another_pair_are_none_of_this_one() -> None:
    one, two = (NetLedger([b"a" * 60], Histogram(), pair) for pair in (1, 2))
    mine, other = one.make(2, 5), two.make(2, 5)
    assert [TRAILER.unpack(frame[-TRAILER_BYTES:])[0] for frame in mine + other] == [
        1 << PAIR_SHIFT, (1 << PAIR_SHIFT) + 1, 2 << PAIR_SHIFT, (2 << PAIR_SHIFT) + 1,
    ]  # fmt: skip
    one.came([mine[0], other[0], mine[1]], 6)
    two.came([mine[1], other[1]], 6)
    assert troubles(one) == (0, 1, 0, 0)
    assert troubles(two) == (0, 1, 0, 1)
    assert one.reordered == two.reordered == 0


def test_duplicated(ledger: NetLedger) -> None:
    frames = ledger.make(2, 1)
    ledger.came([*frames, frames[0]], 2)
    assert troubles(ledger) == (1, 0, 0, 0)


def test_corrupted(ledger: NetLedger) -> None:
    frame, longer, number, _ = ledger.make(4, 1)
    ledger.came([b"x" + frame[1:]], 2)
    ledger.came([b"y" + longer], 2)
    ledger.came([number[:-TRAILER_BYTES] + TRAILER.pack(99, 1)], 2)
    ledger.came([b"short"], 2)
    assert troubles(ledger) == (0, 4, 0, 2)


def test_a_damaged_time_is_a_damaged_frame(ledger: NetLedger) -> None:
    (frame,) = ledger.make(1, 77)
    ledger.came([frame[:-8] + (78).to_bytes(8, "little")], 99)
    assert troubles(ledger) == (0, 1, 0, 0)
    assert ledger.rtt.count == 0


def test_reset_dropped(ledger: NetLedger) -> None:
    ledger.make(3, 1)
    ledger.device_reset()
    assert ledger.outstanding == 0
    assert troubles(ledger) == (0, 0, 0, 0)
    assert ledger.reset_dropped == 3


def test_re_executed(ledger: NetLedger) -> None:
    frames = ledger.make(3, 1)
    ledger.device_reset()
    later = ledger.make(1, 2)
    ledger.came([frames[0], frames[1], later[0], frames[1]], 3)
    assert troubles(ledger) == (0, 0, 1, 0)
    assert ledger.reset_dropped == 1
    assert ledger.reordered == 0, "frames in doubt have no order"
    ledger.came([later[0]], 4)
    assert ledger.duplicated == 1, "what was sent after the reset is not excused"


def test_a_second_reset_does_not_put_settled_frames_in_doubt(ledger: NetLedger) -> None:
    frames = ledger.make(2, 1)
    ledger.device_reset()
    ledger.came(frames[:1], 2)
    ledger.device_reset()
    assert troubles(ledger) == (0, 0, 0, 0)
    assert ledger.reset_dropped == 1


def test_a_frame_in_doubt_that_comes_back_damaged_is_corrupted(ledger: NetLedger) -> None:
    (frame,) = ledger.make(1, 1)
    ledger.device_reset()
    ledger.came([b"x" + frame[1:]], 2)
    assert (ledger.corrupted, ledger.close(), ledger.reset_dropped) == (1, 0, 0)
