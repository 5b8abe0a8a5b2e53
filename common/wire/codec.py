"""Messages ↔ frame bodies: msgpack by msgspec, validated against the structs of :mod:`common.wire.messages`."""

from __future__ import annotations

from typing import Final

import msgspec

from common.errors import FrameError
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import AnyMessage, Message

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(AnyMessage)

encode_body: Final = _encoder.encode


def encode(message: Message, limit: int = MAX_FRAME) -> bytes:
    """The whole frame, prefix included. Raises FrameError if the body would exceed ``limit``: the caller splits."""
    body = _encoder.encode(message)
    if len(body) > limit:
        raise FrameError("frame.length", len(body), limit, f"{type(message).__name__} must be split")
    return len(body).to_bytes(PREFIX, "little") + body


def decode(body: bytes) -> Message:
    """The message in ``body``. Raises FrameError for anything that is not exactly one known, well-typed message."""
    try:
        message: Message = _decoder.decode(body)
    except (ValueError, RecursionError) as error:  # every msgspec error is a ValueError, bad UTF-8 in a tag too
        raise FrameError("frame.body", body[:16].hex(), None, str(error)) from None
    return message
