"""common.wire.limits: the limits fit into each other."""

from __future__ import annotations

from common.wire import limits
from common.wire.codec import encode
from common.wire.messages import VERSION, DmaCommit, DmaData, Hello


def test_the_largest_dma_frames_fit_into_a_frame() -> None:
    encode(DmaData((1 << 64) - 1, bytes(limits.MAX_DMA)))
    encode(DmaCommit(0xFFFE0, [((1 << 64) - 1, bytes(limits.MAX_DMA))], []))


def test_a_hello_with_a_long_token_fits_into_the_first_frame() -> None:
    hello = Hello(VERSION, "guest", "t" * 1024, (1 << 53) - 1, "g" * limits.MAX_GUEST_NAME)
    assert len(encode(hello, limits.MAX_HELLO)) <= limits.MAX_HELLO + limits.PREFIX


def test_the_backlog_holds_many_frames() -> None:
    assert limits.MAX_BACKLOG >= 16 * limits.MAX_FRAME
