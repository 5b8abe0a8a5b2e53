"""Which transaction a message that came belongs to, and what becomes of both."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from common.scmi.header import HEADER, TOKEN_SHIFT, TOKENS, as_delayed
from common.scmi.status import Status
from common.world import Table
from services.guest_driver.scmi_notify import NO_EVENT, NO_ROOM, QUEUED
from services.guest_driver.scmi_trace import INVALID, NOMEM, UNEXPECTED, Tracer
from services.guest_driver.scmi_xfer import EXPIRED, RESP_OK, SENT_OK, AgentStats, Xfer

#: Header and status word.
_REPLY: Final = struct.Struct("<Ii")
_TOKEN_MASK: Final = TOKENS - 1


class Responses:
    """``world.new(Responses, in_flight, lock, stats)``: the agent's table, the lock that guards it, its counters.

    ``tracer`` is None while nobody traces.
    """

    __slots__ = ("_in_flight", "_lock", "_stats", "tracer")

    _in_flight: Final[Table[Xfer]]
    _lock: Final[AbstractContextManager[Any]]
    _stats: Final[AgentStats]

    def __init__(self, in_flight: Table[Xfer], lock: AbstractContextManager[Any], stats: AgentStats) -> None:
        self._in_flight = in_flight
        self._lock = lock
        self._stats = stats
        self.tracer: Tracer | None = None

    def response(self, word: int, data: bytes) -> None:
        """A response with header ``word``; ``data`` is the whole message, or empty where the chain came back so."""
        with self._lock:
            xfer = self._lookup(word, data)
            if xfer is None:
                return
            if word != xfer.word or xfer.state != SENT_OK:
                # not the command's header, a second response, or one that its delayed response overtook
                self.invalid(word)
                if word == xfer.word:
                    self._stats.err_msg_overtaken += not xfer.replied
                    xfer.replied = True
                return
            self.fetch(xfer, data)
            if self.tracer is not None:
                self.tracer.rx_done(word, xfer.transfer_id)
            if xfer.done is not None:
                xfer.done.set()

    def delayed_response(self, word: int, data: bytes) -> None:
        """A delayed response with header ``word``; ``data`` is the whole message."""
        with self._lock:
            xfer = self._lookup(word, data)
            if xfer is None:
                return
            if not xfer.delayed_due or word != as_delayed(xfer.word) or len(data) < _REPLY.size:
                self.invalid(word)
                return
            overtook = xfer.state == SENT_OK
            status, rx = _REPLY.unpack_from(data)[1], data[_REPLY.size :]
            xfer.delayed(status, rx)
            self._stats.delayed_response_ok += 1
            if self.tracer is not None:
                self.tracer.msg_dump("DLYD", word, status, rx)
                self.tracer.rx_done(word, xfer.transfer_id)
            # the platform has done what it was asked: the response that is still under way can only be SUCCESS
            if overtook and xfer.done is not None:
                xfer.done.set()

    def notification(self, word: int, data: bytes, notify: Callable[[int, bytes], int]) -> None:
        """A notification with header ``word``: ``notify`` takes it, and its outcome is counted: good, not known,
        without room, or invalid."""
        if self.tracer is not None:
            self.tracer.msg_dump("NOTI", word, 0, data[HEADER.size :])
        outcome = notify(word, data)
        stats = self._stats
        with self._lock:
            if outcome == QUEUED:
                stats.notification_ok += 1
            elif outcome in (NO_EVENT, NO_ROOM):
                unknown = outcome == NO_EVENT
                stats.err_msg_unexpected += unknown
                stats.err_msg_nomem += not unknown
                if self.tracer is not None:
                    self.tracer.bad_message(word, UNEXPECTED if unknown else NOMEM)
            else:
                self.invalid(word)
        if self.tracer is not None:
            self.tracer.rx_done(word)

    def fetch(self, xfer: Xfer, data: bytes) -> None:
        """Take the response of ``xfer`` over and count it, as good or as invalid. Under the lock, in state SENT_OK."""
        xfer.replied = True
        word, status = _REPLY.unpack_from(data) if len(data) >= _REPLY.size else (xfer.word, None)
        if status is None or word != xfer.word:
            self.invalid(word)
            status = Status.PROTOCOL_ERROR.value
        else:
            xfer.rx = data[_REPLY.size : _REPLY.size + xfer.expect]
            if xfer.poll:
                self._stats.response_polled_ok += 1
            else:
                self._stats.response_ok += 1
            if self.tracer is not None:
                self.tracer.msg_dump("RESP", word, status, xfer.rx)
        xfer.status = status
        if status:
            xfer.delayed_due = False
        xfer.state = RESP_OK

    def invalid(self, word: int, why: int = INVALID) -> None:
        """Count a message that is not as it must be: INVALID, or of UNKNOWN type."""
        self._stats.err_msg_invalid += 1
        if self.tracer is not None:
            self.tracer.bad_message(word, why)

    def _lookup(self, word: int, data: bytes) -> Xfer | None:
        """The xfer that a message is for; None, and counted, where nobody waits (any more). Under the lock."""
        token = word >> TOKEN_SHIFT & _TOKEN_MASK
        xfer = self._in_flight.get(token)
        if xfer is not None and xfer.state != EXPIRED:
            return xfer
        if xfer is not None:
            self._late(xfer, word, data)
        self._stats.err_msg_unexpected += 1
        if self.tracer is not None:
            self.tracer.bad_message(word, UNEXPECTED)
        return None

    def _late(self, xfer: Xfer, word: int, data: bytes) -> None:
        """A message for an expired xfer. Only what it is owed frees its token, and only all of it. Under the lock."""
        if word == xfer.word and not xfer.replied:
            xfer.replied = True
            if len(data) < _REPLY.size or _REPLY.unpack_from(data)[1]:
                xfer.delayed_due = False
        elif word == as_delayed(xfer.word) and xfer.delayed_due:
            xfer.delayed_due = False
        else:
            return
        self._stats.err_msg_late += 1
        if xfer.settled:
            self._in_flight.pop(xfer.token)
