"""A short round of the ring and frame fuzzers, always the same; long ones run as scripts with a count and a seed."""

from __future__ import annotations

from tests.fuzz import fuzz_frames, fuzz_ring


def test_fuzz_ring() -> None:
    fuzz_ring.fuzz(1500, 1)


def test_fuzz_frames() -> None:
    fuzz_frames.fuzz(400, 1)
