"""The books of a replay: each kind of trouble provoked once."""

from __future__ import annotations

import pytest

from common.histogram import Histogram
from services.guest_driver import replay_ledger
from services.guest_driver.replay_ledger import ReplayLedger

CAPTURE = [b"a", b"b", b"c", b"b", b"d"]


@pytest.fixture
def ledger() -> ReplayLedger:
    """One that knows where the capture stands: at its first frame."""
    made = ReplayLedger(CAPTURE, Histogram())
    made.came([b"d"], 0)
    assert made.skipped == 4
    return made


def troubles(ledger: ReplayLedger) -> tuple[int, int, int]:
    return ledger.duplicated, ledger.corrupted, ledger.close()


def test_round_and_round(ledger: ReplayLedger) -> None:
    ledger.came(CAPTURE * 3, 1)
    ledger.came(CAPTURE[:2], 2)
    assert troubles(ledger) == (0, 0, 0)
    assert (ledger.rx, ledger.skipped, ledger.outstanding, ledger.rtt.count) == (18, 4, 0, 0)


@pytest.mark.parametrize("first", range(len(CAPTURE)))
def test_it_may_begin_anywhere_once(first: int) -> None:
    ledger = ReplayLedger(CAPTURE, Histogram())
    ledger.came(CAPTURE[first:] + CAPTURE * 2, 1)
    assert troubles(ledger) == (0, 0, 0), "two equal frames leave it open for a while"
    ledger.came(CAPTURE[1:], 2)
    assert sum(troubles(ledger)) + (first == 0 and ledger.skipped) == 1


def test_lost(ledger: ReplayLedger) -> None:
    ledger.came([b"a", b"d", b"a"], 1)
    assert troubles(ledger) == (0, 0, 3)


def test_duplicated(ledger: ReplayLedger) -> None:
    ledger.came([b"a", b"a", b"b", b"c"], 1)
    assert troubles(ledger) == (1, 0, 0)


def test_corrupted(ledger: ReplayLedger) -> None:
    ledger.came([b"a", b"B", b"c"], 1)
    assert troubles(ledger) == (0, 1, 0)


def test_a_reset_begins_anew_behind_what_was_sent_before(ledger: ReplayLedger) -> None:
    ledger.came(CAPTURE[:2], 1)
    ledger.device_reset()
    ledger.came([b"c", *CAPTURE, *CAPTURE], 2)
    assert troubles(ledger) == (0, 0, 0)
    ledger.came([b"b"], 3)
    assert troubles(ledger) == (0, 0, 1), "what is left out later is not excused"


def test_what_is_sent(ledger: ReplayLedger) -> None:
    assert ledger.make(4, 1) + ledger.make(3, 2) == [*CAPTURE, b"a", b"b"]
    assert (ledger.tx, ledger.outstanding) == (7, 0)


def test_the_first_frames_may_be_another_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_ledger, "STRANGERS", 2)
    ledger = ReplayLedger([b"b", b"d"], Histogram(), CAPTURE)
    ledger.came([b"a", b"b", b"c", b"d", b"b"], 0)
    assert (ledger.skipped, *troubles(ledger)) == (2, 0, 0, 0)
    ledger.came([b"a"], 0)
    assert troubles(ledger)[1] == 1, "not for ever"
    ledger.came([b"no frame of the capture"], 0)
    assert troubles(ledger)[1] == 2


def test_a_pair_without_frames() -> None:
    ledger = ReplayLedger([], Histogram(), CAPTURE)
    assert ledger.empty
    assert ledger.make(3, 0) == []
    assert ledger.tx == 0
    ledger.came([b"x"], 0)
    assert troubles(ledger) == (0, 1, 0)
    assert not ReplayLedger(CAPTURE, Histogram()).empty
