"""A short round of the hostile platform, always the same; a long one runs as a script with a count and a seed."""

from __future__ import annotations

from tests.fuzz import fuzz_scmi_replies
from tests.fuzz.fuzz_scmi_replies import EPISODE, OUTCOMES


def test_fuzz_scmi_replies() -> None:
    total = fuzz_scmi_replies.fuzz(30_000, 2)
    assert total["messages"] >= 30_000
    # every path was taken
    assert all(total[f"counter: {name}"] for name in OUTCOMES)
    assert all(total[f"end: {name}"] for name in ("answered", "parsed", "ScmiError", "XferTimeoutError", "RingError"))
    assert all(total[f"said: {name}"] for name in ("used_idx_jump", "used_id", "used_twice", "right, kept for long"))


def test_an_episode_that_once_failed() -> None:
    """The queue breaks, and somebody goes on waiting."""
    assert fuzz_scmi_replies.fuzz(EPISODE, 77, 65)["messages"] >= EPISODE
