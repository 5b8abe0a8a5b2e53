"""One connection between two services: framing, handshake, dispatch, coalesced writes.

::

    HELLO ── hello / welcome ──> UP ── close(), refusal, peer gone ──> DOWN
      └───────────── refusal, time-out, peer gone ─────────────────────^

The client sends ``hello`` first; the server answers ``welcome`` or ``refuse``. From then on each frame is checked
against :data:`common.wire.messages.LEGAL` and handed to the handler. A frame that breaks the rules closes its own
link and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from common.errors import FrameError, HandshakeError, RemoteError
from common.wire.codec import decode, encode_body
from common.wire.framing import Splitter
from common.wire.limits import HELLO_TIMEOUT, MAX_BACKLOG, MAX_FRAME, PREFIX
from common.wire.messages import LEGAL, Message, Refuse

if TYPE_CHECKING:
    from common.runtime.capture import CaptureHub
    from common.runtime.refusals import LinkBook

#: Bytes that frames are joined up to before they are written even inside a batch: some 64 packets of mean size, so that
#: the peer works on them while the next ones are made.
JOIN_LIMIT: Final = 16 * 1024
#: Seconds for which a closing link lets the peer read the refusal before the connection is cut.
LINGER: Final = 1.0

HELLO: Final = 0
UP: Final = 1
DOWN: Final = 2


class LinkHandler(Protocol):
    """What a service does with a link. Plain functions, called from the event loop, one after the other."""

    def link_up(self, link: Link, /) -> None:
        """The handshake is done; frames may be sent."""
        ...

    def link_frame(self, link: Link, message: Any, /) -> None:
        """One legal message. A RemoteError raised here refuses the peer; another exception closes the link."""
        ...

    def link_batch(self, link: Link, /) -> None:
        """All frames of one piece of received data have been handed over."""
        ...

    def link_down(self, link: Link, reason: str, /) -> None:
        """The link will deliver and send nothing more. Called once for each link_up; where the service itself calls
        ``close()``, before that returns."""
        ...


class LinkContext:
    """What all links of a service share: its role, book of counters, capture taps, whom to stir, and whether what
    received frames wake may run (and join its own frames) before the answers to them are written."""

    __slots__ = ("book", "hub", "patient", "role", "stir")

    def __init__(
        self, role: str, book: LinkBook, hub: CaptureHub, stir: Callable[[], None] | None, patient: bool = False
    ) -> None:
        self.patient: Final = patient
        self.role: Final = role
        self.book: Final = book
        self.hub: Final = hub
        self.stir: Final = stir


class Link(asyncio.Protocol):
    """One connection. ``name`` is the peer's role, with ``/guest`` where the link belongs to one guest.

    The two ends of the handshake are subclasses: they say what happens at connect, at the first frame and at the end.
    """

    __slots__ = (
        "_context", "_handler", "_hub", "_legal", "_loop", "_out", "_out_frames", "_scheduled", "_splitter",
        "_state", "_timer", "_traffic", "_transport", "address", "close_reason", "guest", "name", "peer_epoch",
        "peer_role",
    )  # fmt: skip

    def __init__(self, context: LinkContext, peer_role: str, guest: str, first_limit: int = MAX_FRAME) -> None:
        self._context = context
        self._hub = context.hub
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter(first_limit)
        self._state = HELLO
        self._out = bytearray()
        self._out_frames = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._handler: LinkHandler | None = None
        self._legal: frozenset[type[Message]] = frozenset()
        self.address = ""
        self.close_reason = ""
        self.peer_epoch = 0
        self._identify(peer_role, guest)

    @property
    def is_up(self) -> bool:
        return self._state == UP

    # --- sending ------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> bool:
        """Queue one frame. It leaves when the data being received has been handled, or at the end of this turn of
        the loop, joined with its neighbours. False: the link is down, the frame was dropped and counted.

        Raises FrameError if the body exceeds MAX_FRAME (the caller splits); then nothing is queued.
        """
        if self._state == DOWN:
            self._traffic.dropped.value += 1
            return False
        body = encode_body(message)
        length = len(body)
        if length > MAX_FRAME:
            raise FrameError("frame.length", length, MAX_FRAME, f"{type(message).__name__} must be split")
        out = self._out
        out += length.to_bytes(PREFIX, "little")
        out += body
        self._out_frames += 1
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)
        elif len(out) > JOIN_LIMIT:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what was queued now, for callers that must not wait for the end of the turn."""
        out = self._out
        if not out or self._transport is None:
            return
        self._out = bytearray()
        traffic = self._traffic
        traffic.frames_out.value += self._out_frames
        traffic.bytes_out.value += len(out)
        traffic.writes.value += 1
        self._out_frames = 0
        tap = self._hub.tap
        if tap is not None and self._state == UP:  # a hello carries the token: never recorded
            tap.sent(self.name, out)
        self._transport.write(out)

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def close(self, reason: str = "closed") -> None:
        """Send what is queued, then close. The handler's link_down is called before this returns."""
        self._finish(reason, None)

    # --- receiving ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._state == DOWN:
            return  # lingering until the peer has read why
        self._traffic.bytes_in.value += len(data)
        bodies: list[bytes] = []
        broken: FrameError | None = None
        try:
            self._splitter.feed(data, bodies)
        except FrameError as error:
            broken = error
        self._scheduled = True  # what is sent from here on leaves with the flush at the end
        if bodies:
            self._deliver(bodies)
        if broken is not None:
            self._refuse(broken)
        if self._context.patient and self._out:
            # behind the wake-ups that stir() has just scheduled
            self._loop.call_soon(self._flush_soon)
            return
        self._scheduled = False
        if self._out:
            self.flush()

    def _deliver(self, bodies: list[bytes]) -> None:
        self._traffic.frames_in.value += len(bodies)
        try:
            if self._state == HELLO:
                self._first_frame(bodies.pop(0))
            handler = self._handler
            if handler is None or self._state != UP:
                return
            if bodies:
                tap = self._hub.tap
                if tap is not None:
                    tap.received(self.name, bodies)
                legal = self._legal
                handle = handler.link_frame
                for body in bodies:
                    message = decode(body)
                    if type(message) not in legal:
                        self._illegal(message)
                        return
                    handle(self, message)
                    if self._state != UP:
                        return
                handler.link_batch(self)
        except RemoteError as error:
            self._refuse(error)
        except Exception:
            self._crashed()
        stir = self._context.stir
        if stir is not None:
            stir()

    def _illegal(self, message: Message) -> None:
        if isinstance(message, Refuse):
            self._refused_by_peer(message)
        else:
            detail = f"a {self.peer_role} may not send this to a {self._context.role}"
            raise FrameError("frame.tag", type(message).__struct_config__.tag, None, detail)

    def _refused_by_peer(self, message: Refuse) -> None:
        reason = f"refused by peer: {message.field[:64]}: {message.reason[:256]}"
        if self._state == UP:  # a handshake that fails is the client's to log: it retries
            self._context.book.log.warning("link refused by peer", link=self.name, peer=self.address, reason=reason)
        self._finish(reason, None)

    # --- the asyncio protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        self._transport = transport
        # Above this many unsent bytes the transport calls pause_writing(): no test of ours on the hot path.
        transport.set_write_buffer_limits(high=MAX_BACKLOG)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) >= 2 else "local"
        self._timer = self._loop.call_later(self._hello_timeout(), self._hello_expired)
        self._connected()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._go_down("connection lost" if exc is None else f"connection lost: {exc}")
        self._transport = None
        self._gone()

    def pause_writing(self) -> None:
        # Not at once: this is called from within send(), whose caller does not expect its link_down there.
        self._loop.call_soon(self._stalled)

    def _stalled(self) -> None:
        self._finish("peer stopped reading", FrameError("frame.backlog", None, MAX_BACKLOG, "peer stopped reading"))

    # --- ends of the handshake, in subclasses -----------------------------------------------------------------------

    def _hello_timeout(self) -> float:
        return HELLO_TIMEOUT

    def _connected(self) -> None:
        raise AssertionError("an end of the handshake")

    def _first_frame(self, body: bytes) -> None:
        raise AssertionError("an end of the handshake")

    def _gone(self) -> None:
        """The connection is gone, whatever state the link was in."""

    def _established(self, handler: LinkHandler, peer_epoch: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._splitter.limit = MAX_FRAME
        self._legal = LEGAL[self.peer_role, self._context.role]
        self._handler = handler
        self.peer_epoch = peer_epoch
        self._state = UP
        book = self._context.book
        book.up(self.peer_role, 1)
        book.log.info("link up", link=self.name, peer=self.address, epoch=peer_epoch)
        handler.link_up(self)

    def _identify(self, peer_role: str, guest: str) -> None:
        self.peer_role = peer_role
        self.guest = guest
        self.name = f"{peer_role or 'unknown'}/{guest}" if guest else peer_role or "unknown"
        self._traffic = self._context.book.traffic(peer_role or "unknown")

    # --- closing ------------------------------------------------------------------------------------------------

    def _hello_expired(self) -> None:
        self._timer = None
        self._refuse(HandshakeError("hello_timeout", None, self._hello_timeout(), "no hello or welcome in time"))

    def _refuse(self, error: RemoteError) -> None:
        self._finish(f"refused: {error}", error)

    def _crashed(self) -> None:
        self._traffic.errors.value += 1
        self._context.book.log.exception("handler failed", link=self.name, peer=self.address)
        self._say(Refuse("internal", "the service failed on this frame"))
        self._finish("handler failed", None)

    def _say(self, message: Refuse) -> None:
        if self._state != DOWN:
            self.send(message)

    def _finish(self, reason: str, refused: RemoteError | None) -> None:
        if self._state == DOWN:
            return
        counted = ""
        if refused is not None:
            host = self.address.rpartition(":")[0] or self.address
            counted = self._context.book.refused(self.peer_role, f"{self.name}@{host}", refused)
            if counted != "backlog":
                self._say(Refuse(refused.field, str(refused)))
        if counted != "backlog":
            self.flush()
        self._go_down(reason)
        transport = self._transport
        if transport is None:
            return
        if counted == "backlog":
            transport.abort()
            return
        # A close with data unread would reset the connection and lose the refusal on its way: half-close, swallow
        # what still comes, and cut the connection after LINGER seconds or when the peer closes.
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER, transport.abort)

    def _go_down(self, reason: str) -> None:
        was, self._state = self._state, DOWN
        if was == DOWN:
            return
        self.close_reason = reason
        handler = self._handler
        if was == UP and handler is not None:
            book = self._context.book
            book.up(self.peer_role, -1)
            book.log.info("link down", link=self.name, peer=self.address, reason=reason)
            try:
                handler.link_down(self, reason)
            except Exception:
                self._traffic.errors.value += 1
                book.log.exception("handler failed at link_down", link=self.name)
            if self._context.stir is not None:
                self._context.stir()
