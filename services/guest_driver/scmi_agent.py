"""The SCMI agent: transactions over a transport channel, as the core of Linux's ``arm_scmi/driver.c`` does them.

Replies may come in any order; a token (10 bits) says which command one belongs to. A token is taken until its answer
came: also after a time-out, for as long as the platform still owns the message, so that a late reply never meets a
younger command under the same token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from common.errors import (
    LinkDownError,
    LocalError,
    PollingUnsupportedError,
    RingError,
    RingmeshError,
    ScmiError,
    XferTimeoutError,
)
from common.scmi.header import (
    COMMAND,
    DELAYED_RESPONSE,
    HEADER,
    NOTIFICATION,
    PROTOCOL_SHIFT,
    TOKEN_SHIFT,
    TOKENS,
    TYPE_SHIFT,
    as_delayed,
)
from common.scmi.names import message_name
from common.scmi.status import Status, status_name
from common.world import Table, World
from services.guest_driver.notify_events import Handler
from services.guest_driver.scmi_base import BaseClient
from services.guest_driver.scmi_channel import VioChannel
from services.guest_driver.scmi_clock import ClockClient
from services.guest_driver.scmi_message import MAX_MSG_SIZE, POLL_DONE, VioMsg
from services.guest_driver.scmi_notify import Notifications
from services.guest_driver.scmi_protocols import ProtocolClients
from services.guest_driver.scmi_response import Responses
from services.guest_driver.scmi_sensor import SensorClient
from services.guest_driver.scmi_trace import EIO, ETIMEDOUT, UNKNOWN, Tracer, linux_errno
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_xfer import (
    DRESP_OK,
    EXPIRED,
    SENT_OK,
    AgentStats,
    Xfer,
    free_token,
    xfers_of,
)

#: Seconds to wait for a response (Linux: max_rx_timeout_ms of the virtio transport) and a delayed one (Linux: 2 s).
RX_TIMEOUT: Final = 60.0

_TOKEN_MASK: Final = TOKENS - 1
#: A header of the reserved type, for a message that came without one.
_NO_HEADER: Final = 1 << TYPE_SHIFT


class ScmiAgent(ProtocolClients):
    """``world.new(ScmiAgent, world, log)``, then :meth:`attach` the cmdq's channel. Both channels call
    :meth:`rx_callback`.

    ``log(event, **fields)`` is told of callbacks that fail and of broken channels; ``timeout`` (seconds) is what
    transactions wait that do not say. ``atomic_threshold_us``: drivers that choose by themselves poll for what takes
    no longer (Linux: property ``atomic-threshold-us``); with 0 they never do. ``now_ns()`` is the clock of the
    notifications' time stamps.
    """

    __slots__ = ("_lock", "_log", "_next_id", "_p2a_error", "_world", "atomic_threshold_us", "base", "clock",
                 "in_flight", "notifications", "power_thresholds", "responses", "sensor", "stats", "timeout", "tx",
                 "versions")  # fmt: skip

    _world: Final[World]
    _lock: Final[AbstractContextManager[Any]]
    in_flight: Final[Table[Xfer]]
    stats: Final[AgentStats]
    responses: Final[Responses]
    notifications: Final[Notifications]
    timeout: Final[float]
    atomic_threshold_us: Final[int]
    versions: Final[Table[int]]
    base: Final[BaseClient]
    clock: Final[ClockClient]
    sensor: Final[SensorClient]

    def __init__(
        self,
        world: World,
        log: Callable[..., None],
        *,
        timeout: float = RX_TIMEOUT,
        atomic_threshold_us: int = 0,
        now_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._world = world
        self._log = log
        #: guards the table, tokens and the states of all xfers
        self._lock = world.spinlock()
        #: number of the next command; its low bits are the token
        self._next_id = 0
        #: token → xfer: waited for, or expired and still owed by the platform
        self.in_flight = world.table()
        self.stats = world.new(AgentStats)
        self.responses = world.new(Responses, self.in_flight, self._lock, self.stats)
        self.notifications = world.new(Notifications, world, log, now_ns)
        self.timeout = timeout
        self.atomic_threshold_us = atomic_threshold_us
        self.tx: TxChannel | None = None
        #: the eventq is broken: no delayed response comes any more
        self._p2a_error: RingError | None = None
        #: protocol → the version that agent and platform speak, where anybody asked for it
        self.versions = world.table()
        self.power_thresholds = world.table()
        self.base = BaseClient(self)
        self.clock = ClockClient(self, world.table())
        self.sensor = SensorClient(self)

    # --- the channel --------------------------------------------------------------------------------------------------

    def attach(self, tx: TxChannel) -> None:
        """Send by ``tx`` from now on. What a channel before it still owed will not come any more."""
        self.detach()
        self._p2a_error = None
        self.tx = tx
        tx.on_broken = self.channel_broken

    def detach(self) -> None:
        """The channel is gone: every wait ends with LinkDownError, every token is free again."""
        with self._lock:
            self.tx = None
            for token in list(self.in_flight):
                self.in_flight.pop(token).end(None)

    def channel_broken(self, channel: VioChannel, error: RingError) -> None:
        """The device broke a queue: RingError for every wait if that is the cmdq, for those for a delayed response if
        it is the eventq."""
        self.stats.channels_broken += 1
        cmdq = channel is self.tx
        self._log("SCMI channel is broken", queue="cmdq" if cmdq else "eventq", error=str(error))
        with self._lock:
            if not cmdq:
                self._p2a_error = error
            for xfer in xfers_of(self.in_flight):
                if cmdq or xfer.awaits_delayed:
                    xfer.end(error)

    def platform_reset(self) -> None:
        """The platform was reset, and what it sent before has been taken off the rings: the delayed responses that
        it owes are lost. Such a command ends as one that the new platform refuses to repeat: COMMS_ERROR."""
        tx = self.tx
        for protocol in list(self.versions):  # what was negotiated is forgotten
            self.versions.pop(protocol)
        with self._lock:
            for xfer in xfers_of(self.in_flight):
                msg = xfer.priv
                if tx is not None and xfer.state == SENT_OK and msg is not None and msg.poll_status == POLL_DONE:
                    self.responses.fetch(xfer, tx.read(msg))
                    xfer.fetched = True
                if xfer.awaits_delayed:
                    xfer.delayed(Status.COMMS_ERROR.value, b"")
                    self.stats.delayed_response_reset += 1
                # what has no response yet is answered by the new platform, which then owes the delayed one
                if xfer.replied:
                    xfer.delayed_due = False
                if xfer.state == EXPIRED and xfer.settled:
                    self._forget(xfer)

    @property
    def xfers_inflight(self) -> int:
        """Transactions that somebody waits for (Linux's debugfs name)."""
        with self._lock:
            return sum(self.in_flight[token].state != EXPIRED for token in self.in_flight)

    # --- tracing, atomic mode -----------------------------------------------------------------------------------------

    @property
    def tracer(self) -> Tracer | None:
        """Who records what this agent does; None, which it is at first, for nobody. May be set at any time; a command
        under way is still the tracer's that was there when it was sent."""
        return self.responses.tracer

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self.responses.tracer = tracer

    @property
    def is_transport_atomic(self) -> bool:
        """May a driver that must not sleep use the transport, by polling (Linux: ``scmi_is_transport_atomic``)?"""
        tx = self.tx
        return tx is not None and tx.atomic_enabled and tx.polling

    def polls(self, latency_us: int) -> bool:
        """Should a driver that may choose poll for what takes ``latency_us``? 0 is a platform that does not say, and
        counts as for ever."""
        return 0 < latency_us <= self.atomic_threshold_us and self.is_transport_atomic

    # --- transactions -------------------------------------------------------------------------------------------------

    async def do_xfer(
        self,
        protocol: int,
        message: int,
        payload: bytes = b"",
        *,
        expect: int = MAX_MSG_SIZE,
        poll: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """Send a command and wait for its response: sleeping, or polling for it. Returns its return values (what
        follows the status), ``expect`` bytes at most.

        Raises ScmiError (a status other than SUCCESS, or a malformed response), XferTimeoutError after ``timeout``
        seconds, ChannelBusyError or PollingUnsupportedError where nothing could be sent, LinkDownError where the
        channel went away, RingError.
        """
        world = self._world
        done = None if poll else world.event()
        xfer = self._begin(protocol, message, payload, expect, poll, done, False)
        await self._transact(xfer, self.timeout if timeout is None else timeout)
        if xfer.status:
            raise self._failed(xfer.word, xfer.status)
        return xfer.rx

    async def do_xfer_with_response(
        self,
        protocol: int,
        message: int,
        payload: bytes = b"",
        *,
        expect: int = 0,
        poll: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """Send an asynchronous command; wait for its response as :meth:`do_xfer`, then, sleeping, for the delayed
        response. Returns what follows the delayed response's status; raises like :meth:`do_xfer`."""
        world = self._world
        done = None if poll else world.event()
        xfer = self._begin(protocol, message, payload, expect, poll, done, True)
        seconds = self.timeout if timeout is None else timeout
        tx = self.tx
        try:
            await self._transact(xfer, seconds)
            if xfer.status:
                raise self._failed(xfer.word, xfer.status)
            if self._p2a_error is not None:
                with self._lock:
                    xfer.end(self._p2a_error)
            assert xfer.async_done is not None
            await xfer.async_done.wait(seconds)
        finally:
            # a waiter that is cancelled leaves the token to what the platform still owes, too
            with self._lock:
                came = xfer.state == DRESP_OK
                if xfer.settled:
                    self._forget(xfer)
                else:
                    xfer.state = EXPIRED
        if not came:
            xfer.raise_error()
            if self.tx is not tx:
                raise self._down(xfer)
            self.stats.xfers_response_timeout += 1
            raise XferTimeoutError(self._name(as_delayed(xfer.word)), seconds, None, "no delayed response")
        if xfer.async_status:
            raise self._failed(as_delayed(xfer.word), xfer.async_status)
        return xfer.async_rx

    def _begin(
        self, protocol: int, message: int, payload: bytes, expect: int, poll: bool, done: Any, delayed: bool
    ) -> Xfer:
        """A new xfer under the next token that is not in flight."""
        if not 0 <= message <= 0xFF or not 0 <= protocol <= 0xFF:
            raise LocalError(f"no SCMI command {protocol:#x}/{message:#x}")
        world = self._world
        async_done = world.event() if delayed else None
        in_flight = self.in_flight
        with self._lock:
            number = self._next_id
            token = number & _TOKEN_MASK
            if token in in_flight:
                number += free_token(in_flight, token) - token & _TOKEN_MASK
                token = number & _TOKEN_MASK
            self._next_id = number + 1
            word = message | protocol << PROTOCOL_SHIFT | token << TOKEN_SHIFT
            xfer = in_flight[token] = world.new(Xfer, word, number, payload, expect, poll, done, async_done)
        return xfer

    def _forget(self, xfer: Xfer) -> None:
        """Free the token; it may have been freed, and given to another xfer, before."""
        if self.in_flight.get(xfer.token) is xfer:
            self.in_flight.pop(xfer.token)

    async def _transact(self, xfer: Xfer, timeout: float) -> None:
        """Send and wait; afterwards ``xfer.status`` and ``xfer.rx`` hold the response."""
        tx, stats, tracer = self.tx, self.stats, self.responses.tracer
        if tx is None:
            stats.sent_fail_channel_not_found += 1
            self._drop(xfer)
            raise self._down(xfer)
        if xfer.poll and not tx.polling:
            stats.sent_fail_polling_unsupported += 1
            self._drop(xfer)
            raise PollingUnsupportedError(f"{self._name(xfer.word)}: its SCMI channel cannot poll")
        if tracer is not None:
            tracer.xfer_begin(xfer, self._inflight_with)
        try:
            tx.send_message(xfer)
        except RingmeshError:
            stats.sent_fail += 1
            self._drop(xfer)
            raise
        stats.sent_ok += 1
        if tracer is not None:
            tracer.msg_dump("CMND", xfer.word, 0, xfer.request[HEADER.size :])
            tracer.xfer_response_wait(xfer, timeout)
        try:
            if xfer.done is None:
                await self._poll(tx, xfer, timeout)
            else:
                await xfer.done.wait(timeout)
        finally:
            # a broken ring raises out of the wait: the xfer must be settled all the same
            expired = self._settle(tx, xfer)
            gone = expired and (self.tx is not tx or tx.closing)
            if tracer is not None:
                late = EIO if gone or tx.broken else ETIMEDOUT
                tracer.xfer_end(xfer, late if expired else linux_errno(xfer.status), self._inflight_with)
        if not expired:
            return
        xfer.raise_error()
        if gone:
            raise self._down(xfer)
        if xfer.poll:
            stats.xfers_response_polled_timeout += 1
        else:
            stats.xfers_response_timeout += 1
        raise XferTimeoutError(self._name(xfer.word), timeout, None, "no response")

    async def _poll(self, tx: TxChannel, xfer: Xfer, timeout: float) -> None:
        """Poll until the response was dequeued, here or by the interrupt, or until time ran out."""
        if tx.poll_done(xfer):
            return
        world = self._world
        deadline = world.deadline(timeout)
        try:
            while xfer.state == SENT_OK:
                await world.relax()
                if tx.poll_done(xfer):
                    return
                if deadline.expired:
                    # it may have come between the look and the clock
                    tx.poll_done(xfer)
                    return
        except RingError:
            # the ring broke, maybe after the wait had ended
            if xfer.state in (SENT_OK, EXPIRED):
                raise
        finally:
            deadline.cancel()

    def _settle(self, tx: TxChannel, xfer: Xfer) -> bool:
        """The wait is over. Fetches a response that a polling loop dequeued. True: there is none, the xfer expired."""
        late: bytes | None = None
        with self._lock:
            msg = xfer.priv
            data = tx.read(msg) if msg is not None and msg.poll_status == POLL_DONE else None
            if xfer.state != SENT_OK:
                late = data if data is not None and not xfer.fetched else None
            elif data is not None:
                self.responses.fetch(xfer, data)
            else:
                xfer.state = EXPIRED
            expired = xfer.state == EXPIRED
        if late is not None:
            # another loop dequeued it when the wait was over: counted as the worker would have
            self.responses.response(xfer.word, late)
        owed = tx.mark_txdone(expired, xfer)
        with self._lock:
            if xfer.poll and not owed:
                xfer.replied = True
                if expired:
                    # its chain came back with something else
                    xfer.delayed_due = False
            if xfer.async_done is not None and not expired and not xfer.status:
                return False  # stays in the table for the delayed response
            if xfer.settled:
                self._forget(xfer)
            else:
                xfer.state = EXPIRED
        return expired

    def _inflight_with(self, xfer: Xfer) -> int:
        """Commands that somebody waits for, ``xfer`` among them: it is still its sender's."""
        with self._lock:
            return 1 + sum(other is not xfer and other.state != EXPIRED for other in xfers_of(self.in_flight))

    def _drop(self, xfer: Xfer) -> None:
        with self._lock:
            self._forget(xfer)

    def _down(self, xfer: Xfer) -> LinkDownError:
        return LinkDownError(self._name(xfer.word), None, None, "the SCMI channel was closed")

    def _failed(self, word: int, status: int) -> ScmiError:
        self.stats.err_protocol += 1
        return ScmiError(self._name(word), status, status_name(status))

    @staticmethod
    def _name(word: int) -> str:
        return message_name(word >> PROTOCOL_SHIFT & 0xFF, word & 0xFF, word >> TYPE_SHIFT & 3)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def rx_callback(self, msg: VioMsg) -> None:
        """One message from either channel (Linux: ``scmi_rx_callback``)."""
        tx, stats, responses = self.tx, self.stats, self.responses
        if tx is None:
            stats.err_msg_unexpected += 1
            return
        data = tx.read(msg)
        if len(data) < HEADER.size:
            if not msg.request:
                responses.invalid(_NO_HEADER)
                return
            # the chain came back without an answer: the driver's own half still says to whom
            responses.response(int.from_bytes(tx.memory.read(msg.request, HEADER.size), "little"), b"")
            return
        word = int.from_bytes(data[: HEADER.size], "little")
        kind = word >> TYPE_SHIFT & 3
        if kind == COMMAND:
            responses.response(word, data)
        elif kind == NOTIFICATION:
            responses.notification(word, data, self.notifications.notify)
        elif kind == DELAYED_RESPONSE:
            responses.delayed_response(word, data)
        else:
            responses.invalid(word, UNKNOWN)

    async def on_notification(self, protocol: int, event: int, handler: Handler, source: int | None = None) -> None:
        """Have ``handler`` hear of ``event`` of ``protocol``: of one source (clock, sensor, …), or of all. See
        :meth:`~services.guest_driver.scmi_notify.Notifications.register`."""
        await self.notifications.register(protocol, event, handler, source)
