"""The platform's own trace: every message that crossed a device, in the format of Linux's ``scmi_msg_dump``.

A request is recorded when it was taken from its chain, whatever is sent when it is in its buffer, so a held answer
stands where it went out and an answer that never comes does not stand at all.

==================== ===============================================================================================
GET /trace           ``{"lines": […], "capacity", "recorded", "overwritten"}``: what is held, oldest first; it stays
POST /trace/pipe     the same, and what was read is gone: asked again and again it gives every line once
POST /trace          ``{"capacity": N}``: keep N messages from now on, none with 0; answers as GET, without lines
==================== ===============================================================================================

The task of a line is ``agent`` with the agent's number for its process; all else is as in the guest's own trace, so
that the two can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from common.errors import LocalError
from common.scmi.header import DELAYED_RESPONSE, HEADER, NOTIFICATION, TYPE_SHIFT
from common.scmi.status import STATUS
from common.scmi.trace_lines import dump_line
from common.scmi.trace_ring import TraceRing

#: Messages that a trace keeps.
CAPACITY: Final = 4096
MOST_CAPACITY: Final = 1 << 20
#: What is recorded of a message at most: more than a transport of Linux carries. Bytes.
MOST: Final = 256

_TYPES: Final = {DELAYED_RESPONSE: "DLYD", NOTIFICATION: "NOTI"}


class TraceRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /trace."""

    capacity: int


class Trace(TraceRing[float, int, bool, bytes]):
    """The last ``capacity`` messages, none with 0: then it is off. ``clock()`` is monotonic seconds. Raises LocalError
    for a capacity outside 0 … MOST_CAPACITY.

    An entry: seconds, agent, was it a request, start of the message.
    """

    __slots__ = ("_clock", "on")

    def __init__(self, clock: Callable[[], float], capacity: int = CAPACITY) -> None:
        super().__init__(_line, 0)
        #: whether anybody should call :meth:`command` and :meth:`sent`
        self.on = False
        self._clock: Final = clock
        self.resize(capacity)

    def resize(self, capacity: int) -> None:
        if not 0 <= capacity <= MOST_CAPACITY:
            raise LocalError(f"a trace of {capacity} messages, 0 to {MOST_CAPACITY} are possible")
        super().resize(capacity)
        self.on = capacity > 0

    def command(self, agent: int, message: bytes) -> None:
        """A whole request of ``agent`` was taken; header first."""
        self.record((self._clock(), agent, True, message[:MOST]))

    def sent(self, agent: int, message: bytes) -> None:
        """A response, delayed response or notification was put in a buffer of ``agent``, in these bytes."""
        self.record((self._clock(), agent, False, message[:MOST]))

    def change(self, request: TraceRequest) -> dict[str, Any]:
        """POST /trace."""
        self.resize(request.capacity)
        return self.answer([])

    def answer(self, lines: list[str]) -> dict[str, Any]:
        """The body of an admin route that gives lines."""
        stats = self.stats
        return {
            "lines": lines,
            "capacity": self.capacity,
            "recorded": stats.recorded,
            "overwritten": stats.overwritten,
        }


def _line(seconds: float, agent: int, request: bool, message: bytes) -> str:
    word = int.from_bytes(message[: HEADER.size], "little")
    if request:
        tag, at = "CMND", HEADER.size
    else:
        tag = _TYPES.get(word >> TYPE_SHIFT & 3, "RESP")
        # a notification has no status, and what was cut short has none left
        at = HEADER.size if tag == "NOTI" else min(HEADER.size + STATUS.size, len(message))
    status = STATUS.unpack_from(message, HEADER.size)[0] if at == HEADER.size + STATUS.size else 0
    return dump_line(seconds, "agent", word, tag, status, message[at:], pid=agent)
