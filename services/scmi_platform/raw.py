"""The raw port: SCMI messages over a byte stream, so that a script needs neither kernel nor ring.

::

    u32 little-endian length | header word, payload          (both ways)

One connection is one agent. What it sends is executed in the order in which it came, and answered in that order;
notifications and delayed responses go out between the replies as they come. Nothing here waits or does I/O:
:mod:`services.scmi_platform.raw_port` moves the bytes and stops reading where the other side does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.errors import FrameError
from common.scmi.header import DELAYED_RESPONSE, HEADER, TYPE_MASK, TYPE_SHIFT
from common.wire.framing import Splitter, frame

#: Commands that one connection has executed before others get their turn.
TURN: Final = 256
#: Notifications and delayed responses that may wait for a client that does not read.
OUTBOX: Final = 256

_DELAYED: Final = DELAYED_RESPONSE << TYPE_SHIFT


@dataclass(slots=True)
class RawStats:
    """What the raw port counts, over all its connections."""

    connections: int = 0
    #: connections that were sent away: no agent left, or too many of them
    connections_refused: int = 0
    commands: int = 0
    replies: int = 0
    #: notifications and delayed responses sent
    events: int = 0
    #: the outbox was full
    notifications_dropped: int = 0
    #: … and the platform keeps the delayed response; each time that it tried counts
    responses_refused: int = 0
    #: times that a client did not read and was not read from
    paused: int = 0
    #: connections closed because our own code failed
    failures: int = 0


class RawSession:
    """What is to be done with the bytes of one connection.

    ``handle(message)`` is the platform, for this connection's agent: the whole reply, None where there is none.
    ``wake()`` is called when something is to be sent that no :meth:`receive` led to: call :meth:`turn` soon.
    """

    __slots__ = ("_handle", "_inbox", "_out", "_splitter", "_stats", "_turning", "_waiting", "_wake", "error", "open")

    def __init__(
        self, handle: Callable[[bytes], bytes | None], *, max_message: int, stats: RawStats, wake: Callable[[], None]
    ) -> None:
        self._handle: Final = handle
        self._wake: Final = wake
        self._stats: Final = stats
        self._splitter: Final = Splitter(max_message, HEADER.size)
        self._inbox: deque[bytes] = deque()
        self._out = bytearray()
        #: of the messages in ``_out``, those that are no replies
        self._waiting = 0
        self._turning = False
        #: what the client may not send; nothing that came after it is looked at
        self.error: FrameError | None = None
        self.open = True

    # --- agent to platform --------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what came; nothing of it is executed before :meth:`turn`. After an :attr:`error` nothing is taken."""
        if self.error is None:
            bodies: list[bytes] = []
            try:
                self._splitter.feed(data, bodies)
            except FrameError as error:
                limits = f"{HEADER.size} to {self._splitter.limit}"
                self.error = FrameError("frame.length", error.value, limits, "bytes of an SCMI message")
            self._inbox.extend(bodies)

    @property
    def more(self) -> bool:
        """Are there commands that another :meth:`turn` would execute?"""
        return bool(self._inbox)

    def turn(self) -> bytes:
        """Execute up to TURN commands. Returns all that is to be sent: at most their replies and OUTBOX messages."""
        inbox, stats = self._inbox, self._stats
        self._turning = True
        try:
            for _ in range(min(len(inbox), TURN)):
                stats.commands += 1
                reply = self._handle(inbox.popleft())
                if reply is not None:
                    stats.replies += 1
                    self._out += frame(reply)
        finally:
            self._turning = False
        out, self._out = self._out, bytearray()
        stats.events += self._waiting
        self._waiting = 0
        return bytes(out)

    # --- platform to agent (a Channel of the platform's agents) -------------------------------------------------------

    @property
    def p2a(self) -> bool:
        """There is always a way to the client, as long as there is a client."""
        return self.open

    def emit(self, message: bytes) -> bool:
        """Queue a notification or a delayed response; False where OUTBOX of them wait already."""
        if not self.open:
            return False
        if self._waiting >= OUTBOX:
            if int.from_bytes(message[: HEADER.size], "little") & TYPE_MASK == _DELAYED:
                self._stats.responses_refused += 1
            else:
                self._stats.notifications_dropped += 1
            return False
        self._waiting += 1
        self._out += frame(message)
        if not self._turning:
            self._wake()
        return True
