"""One SCMI transaction (Linux: ``struct scmi_xfer``), its states, and what the agent counts.

::

    SENT_OK ── response ──> RESP_OK ── delayed response ──> DRESP_OK
       └────── delayed response that overtook its response ────^

From each to EXPIRED when its sender leaves, with what it wanted or without, and the platform owes an answer still: the
token stays taken until that has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.errors import ChannelBusyError, RingError
from common.scmi.header import HEADER, TOKENS
from common.world import Event, Table
from services.guest_driver.scmi_message import VioMsg

SENT_OK: Final = 0
RESP_OK: Final = 1
DRESP_OK: Final = 2
EXPIRED: Final = 3


class Xfer:
    """``world.new(Xfer, word, transfer_id, payload, expect, poll, done, async_done)``: used once, never recycled.

    ``word`` is the header, ``transfer_id`` the number of the command, whose low bits are the token, ``expect`` the
    bytes of return values behind the status, ``done`` the event of the response (None where it is polled for),
    ``async_done`` that of the delayed response (None where none is due).
    """

    __slots__ = ("async_done", "async_rx", "async_status", "delayed_due", "done", "error", "expect", "fetched", "poll",
                 "priv", "replied", "request", "rx", "state", "status", "token", "transfer_id", "word")  # fmt: skip

    word: Final[int]
    transfer_id: Final[int]
    token: Final[int]
    request: Final[bytes]
    expect: Final[int]
    poll: Final[bool]
    done: Final[Event | None]
    async_done: Final[Event | None]

    def __init__(
        self,
        word: int,
        transfer_id: int,
        payload: bytes,
        expect: int,
        poll: bool,
        done: Event | None,
        async_done: Event | None,
    ) -> None:
        self.word = word
        self.transfer_id = transfer_id
        self.token = transfer_id % TOKENS
        self.request = HEADER.pack(word) + payload
        self.expect = expect
        self.poll = poll
        self.done = done
        self.async_done = async_done
        self.state = SENT_OK
        #: why it expired, where that was not its time
        self.error: RingError | None = None
        #: the response itself has come (not only a delayed one that overtook it)
        self.replied = False
        #: the reply in ``priv`` was taken over before its poller ran
        self.fetched = False
        #: a delayed response was asked for, has not come, and the command was not refused
        self.delayed_due = async_done is not None
        self.status = 0
        self.rx = b""
        self.async_status = 0
        self.async_rx = b""
        #: the message that this xfer polls for; read by polling loops without a lock
        self.priv: VioMsg | None = None

    @property
    def settled(self) -> bool:
        """Does the platform owe nothing more? Only then is the token free: a delayed response may come after any number
        of younger commands."""
        return self.replied and not self.delayed_due

    @property
    def awaits_delayed(self) -> bool:
        """Has the platform accepted it, and owes the delayed response?"""
        return self.state == RESP_OK and self.async_done is not None and not self.status

    def end(self, error: RingError | None) -> None:
        """Nothing comes for it any more. What is complete stays so: its waiter has only not run yet."""
        if self.state == SENT_OK or self.awaits_delayed:
            self.state = EXPIRED
            self.error = error
        for event in (self.done, self.async_done):
            if event is not None:
                event.set()

    def delayed(self, status: int, rx: bytes) -> None:
        """The delayed response is there; only for an xfer that asked for one."""
        assert self.async_done is not None
        self.async_status = status
        self.async_rx = rx
        self.delayed_due = False
        self.state = DRESP_OK
        self.async_done.set()

    def raise_error(self) -> None:
        """Raise what ended it: a RingError of its own, or several waiters would pile their tracebacks on one."""
        error = self.error
        if error is not None:
            raise RingError(error.field, error.value, error.limit, error.detail)


def xfers_of(in_flight: Table[Xfer]) -> list[Xfer]:
    """All xfers of the table, oldest first."""
    return [in_flight[token] for token in in_flight]


def free_token(in_flight: Table[Xfer], start: int) -> int:
    """The next free token from ``start`` on; where all are taken, the oldest of those that expired is given up.

    Raises ChannelBusyError where somebody waits for each.
    """
    for step in range(TOKENS):
        token = (start + step) % TOKENS
        if token not in in_flight:
            return token
    for token in in_flight:
        if in_flight[token].state == EXPIRED:
            in_flight.pop(token)
            return token
    raise ChannelBusyError(f"all {TOKENS} SCMI tokens are in flight")


@dataclass(slots=True)
class AgentStats:
    """Linux's debugfs counters, under their names, and a few more.

    What counts otherwise than there: a polled response that the interrupt brought counts once, as polled; a delayed
    response that does not come in time or bears an error is an ``xfers_response_timeout`` or ``err_protocol`` too; a
    notification that is dropped is no ``notification_ok``, and a message of unknown type an ``err_msg_invalid``.
    """

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
    #: of err_msg_unexpected: the platform owed it, only nobody waited for it any more
    err_msg_late: int = 0
    #: of err_msg_invalid: responses that their delayed response had overtaken
    err_msg_overtaken: int = 0
    #: delayed responses that were lost with the platform that owed them
    delayed_response_reset: int = 0
    #: queues that the platform broke
    channels_broken: int = 0
