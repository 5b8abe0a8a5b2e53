"""Trace lines of the SCMI agent, in the formats of Linux's trace points (``include/trace/events/scmi.h``).

========================== =========================================================================================
scmi_xfer_begin            a command is about to be sent
scmi_xfer_response_wait    it was sent, its sender waits from here on
scmi_xfer_end              the wait is over; ``s`` is 0 or the negative errno that Linux's driver would return
scmi_rx_done               a message that an interrupt or the deferred worker brought has been dealt with
scmi_msg_dump              one message: ``CMND``, ``RESP``, ``DLYD``, ``NOTI``; with ``!`` before it one that was thrown
                           away, whose status says why: -1 not expected, -2 invalid, -3 of unknown type, -4 no room
========================== =========================================================================================

Lines look as in ftrace's ``trace`` file, so what reads that reads these: the guest's name stands for the task, PID and
CPU are 0 and the latency flags dots; seconds are those of the clock handed in. ``transfer_id`` counts the commands of
an agent and is 0 for notifications, ``seq`` is the token. A response has one line; Linux has two for a polled one that
the interrupt brought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from common.errors import LocalError
from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION, TYPE_SHIFT
from common.scmi.trace_lines import FORMATS, dump_line, event_line
from common.scmi.trace_ring import TraceRing

if TYPE_CHECKING:
    from services.guest_driver.scmi_xfer import Xfer

EVENTS: Final = frozenset(FORMATS)

#: Entries that a ring keeps.
CAPACITY: Final = 4096

# why a message was thrown away
UNEXPECTED: Final = -1
INVALID: Final = -2
UNKNOWN: Final = -3
NOMEM: Final = -4

# Linux's errno values
EIO: Final = -5
ETIMEDOUT: Final = -110
#: SCMI status → errno; what is not here is EIO.
_ERRNO: Final = (0, -95, -22, -13, -2, -34, -16, -70, -5, -121, -71)

_TAGS: Final = {COMMAND: "!RESP", DELAYED_RESPONSE: "!DLYD", NOTIFICATION: "!NOTI"}
_WORD: Final = 0xFFFF_FFFF


def linux_errno(status: int) -> int:
    """What Linux's driver returns for an SCMI status."""
    return _ERRNO[-status] if 0 <= -status < len(_ERRNO) else EIO


def _line(seconds: float, task: str, event: str, word: int, values: tuple[Any, ...]) -> str:
    if event == "scmi_msg_dump":
        return dump_line(seconds, task, word, *values)
    return event_line(seconds, task, event, word, *values)


class AgentRing(TraceRing[float, str, str, int, tuple[Any, ...]]):
    """The last ``capacity`` entries: seconds, task, event, header word, and what the event says besides. Raises
    LocalError for a ring without room."""

    __slots__ = ()

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise LocalError(f"a trace ring of {capacity} entries")
        super().__init__(_line, capacity)


class Tracer:
    """What one agent is given while it is traced: ``agent.tracer = Tracer(task, ring, clock)``; None turns it off.

    ``task`` names the guest, ``clock()`` says seconds; ``events`` may be replaced at any time. Nothing here waits or
    raises.
    """

    __slots__ = ("_clock", "_ring", "_task", "events")

    def __init__(self, task: str, ring: AgentRing, clock: Callable[[], float], events: Iterable[str] = EVENTS) -> None:
        self._task: Final = task
        self._ring: Final = ring
        self._clock: Final = clock
        self.events = frozenset(events)

    def _record(self, event: str, word: int, *values: object) -> None:
        self._ring.record((self._clock(), self._task, event, word, values))

    def xfer_begin(self, xfer: Xfer, inflight: Callable[[Xfer], int]) -> None:
        """``inflight(xfer)``: commands that somebody waits for, this one included. Asked only where it is wanted."""
        if "scmi_xfer_begin" in self.events:
            self._record("scmi_xfer_begin", xfer.word, xfer.transfer_id, xfer.poll, inflight(xfer))

    def xfer_response_wait(self, xfer: Xfer, timeout: float) -> None:
        """``timeout`` is seconds, the line says milliseconds."""
        if "scmi_xfer_response_wait" in self.events:
            milliseconds = int(min(timeout * 1000, _WORD))
            self._record("scmi_xfer_response_wait", xfer.word, xfer.transfer_id, milliseconds, xfer.poll)

    def xfer_end(self, xfer: Xfer, errno: int, inflight: Callable[[Xfer], int]) -> None:
        """``errno`` is 0 or negative; ``inflight`` as in :meth:`xfer_begin`."""
        if "scmi_xfer_end" in self.events:
            self._record("scmi_xfer_end", xfer.word, xfer.transfer_id, errno, inflight(xfer))

    def rx_done(self, word: int, transfer_id: int = 0) -> None:
        """``word`` is the message's header; a notification belongs to no transfer."""
        if "scmi_rx_done" in self.events:
            self._record("scmi_rx_done", word, transfer_id, word >> TYPE_SHIFT & 3)

    def msg_dump(self, tag: str, word: int, status: int, payload: bytes) -> None:
        """``payload``: what follows the header of a command or notification, or the status of a response."""
        if "scmi_msg_dump" in self.events:
            self._record("scmi_msg_dump", word, tag, status, payload)

    def bad_message(self, word: int, why: int) -> None:
        """A message was thrown away: UNEXPECTED, INVALID, UNKNOWN or NOMEM. Only its header can be trusted."""
        self.msg_dump(_TAGS.get(word >> TYPE_SHIFT & 3, "!UNKN"), word, why, b"")
