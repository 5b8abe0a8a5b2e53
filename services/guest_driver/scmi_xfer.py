"""One SCMI transaction (Linux: ``struct scmi_xfer``), its states, and what the agent counts.

::

    SENT_OK ── response ──> RESP_OK ── delayed response ──> DRESP_OK
       ├────── delayed response that overtook its response ────^
       └─ time-out, channel closed ──> EXPIRED       (its token stays taken while the platform owes an answer)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.scmi.header import HEADER
from common.world import Event
from services.guest_driver.scmi_message import VioMsg

SENT_OK: Final = 0
RESP_OK: Final = 1
DRESP_OK: Final = 2
EXPIRED: Final = 3


class Xfer:
    """``world.new(Xfer, word, payload, expect, poll, done, async_done)``: used once, never recycled.

    ``word`` is the header, ``expect`` the bytes of return values behind the status, ``done`` the event of the
    response (None where it is polled for), ``async_done`` that of the delayed response (None where none is due).
    """

    __slots__ = ("async_done", "async_rx", "async_status", "done", "expect", "poll", "priv", "replied", "request",
                 "rx", "state", "status", "token", "word")  # fmt: skip

    word: Final[int]
    token: Final[int]
    request: Final[bytes]
    expect: Final[int]
    poll: Final[bool]
    done: Final[Event | None]
    async_done: Final[Event | None]

    def __init__(
        self,
        word: int,
        token: int,
        payload: bytes,
        expect: int,
        poll: bool,
        done: Event | None,
        async_done: Event | None,
    ) -> None:
        self.word = word
        self.token = token
        self.request = HEADER.pack(word) + payload
        self.expect = expect
        self.poll = poll
        self.done = done
        self.async_done = async_done
        self.state = SENT_OK
        #: the response itself has come (not only a delayed one that overtook it)
        self.replied = False
        self.status = 0
        self.rx = b""
        self.async_status = 0
        self.async_rx = b""
        #: the message that this xfer polls for; read by polling loops without a lock
        self.priv: VioMsg | None = None


@dataclass(slots=True)
class AgentStats:
    """Linux's debugfs counters, under their names. A polled response that the interrupt brought counts as polled."""

    sent_ok: int = 0
    sent_fail: int = 0
    sent_fail_polling_unsupported: int = 0
    sent_fail_channel_not_found: int = 0
    response_ok: int = 0
    notification_ok: int = 0
    delayed_response_ok: int = 0
    xfers_response_timeout: int = 0
    xfers_response_polled_timeout: int = 0
    response_polled_ok: int = 0
    err_msg_unexpected: int = 0
    err_msg_invalid: int = 0
    err_msg_nomem: int = 0
    err_protocol: int = 0
