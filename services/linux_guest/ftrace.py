"""Linux's trace of its SCMI core, as ftrace's ``trace`` file has it, read into events.

Kernels from 6.3 on say all that is read here; ``inflight`` came later and is None where it is not said. Our own traces
(``ringmesh scmi trace``, the platform's ``GET /trace``) are in the same format.

``parse(text)`` gives the SCMI events in the order of the text and skips all else: other events, head lines, console
output around them. A line that names an event of :data:`EVENTS` but is not one
is counted (``unread``), and so is what ftrace itself says it lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Event:
    """What every event says. ``seconds`` is the writer's clock, ``cpu`` where it ran."""

    seconds: float
    cpu: int
    task: str
    protocol: int
    message: int
    token: int


@dataclass(frozen=True, slots=True)
class XferBegin(Event):
    """A command is about to be sent. ``transfer`` counts the commands of an agent."""

    transfer: int
    poll: bool
    inflight: int | None


@dataclass(frozen=True, slots=True)
class ResponseWait(Event):
    """It was sent; its sender waits from here on, ``timeout`` seconds at most."""

    transfer: int
    timeout: float
    poll: bool


@dataclass(frozen=True, slots=True)
class XferEnd(Event):
    """The wait is over; ``status`` is 0 or a negative errno."""

    transfer: int
    status: int
    inflight: int | None


@dataclass(frozen=True, slots=True)
class RxDone(Event):
    """A message that an interrupt brought was dealt with; ``type`` is its header's."""

    transfer: int
    type: int


@dataclass(frozen=True, slots=True)
class MessageDump(Event):
    """One message. ``tag`` is CMND, RESP, DLYD or NOTI; in small letters by raw mode, with ``!`` before it thrown away.
    ``status`` is the SCMI status of a response; ``payload`` what follows it, or the header."""

    instance: int
    channel: int
    tag: str
    status: int
    payload: bytes

    @property
    def kind(self) -> str:
        """The tag without what raw mode and a refusal do to it."""
        return self.tag.removeprefix("!").upper()

    @property
    def thrown_away(self) -> bool:
        return self.tag.startswith("!")


@dataclass(slots=True)
class Trace:
    """``events`` in order; ``unread``: lines that look like one and are none; ``lost``: events that ftrace dropped."""

    events: list[Event] = field(default_factory=list)
    unread: int = 0
    lost: int = 0

    @property
    def messages(self) -> list[MessageDump]:
        return [event for event in self.events if isinstance(event, MessageDump)]


_LINE: Final = re.compile(
    r"^\s*(?P<task>\S.*?)-(?P<pid>\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[(?P<cpu>\d+)\]\s+(?:\S+\s+)?"
    r"(?P<seconds>\d+\.\d+): (?P<event>scmi_\w+): (?P<fields>.*?)\s*$"
)
_LOST: Final = re.compile(r"\[LOST (\d+) EVENTS\]")
_FIELD: Final = re.compile(r"(\w+)=(\S*)")

_Fields = dict[str, str]
_Head = tuple[float, int, str, int, int, int]


def _optional(text: str | None) -> int | None:
    return None if text is None else int(text)


def _begin(head: _Head, fields: _Fields) -> Event:
    poll = fields["poll"] != "0"
    return XferBegin(*head, int(fields["transfer_id"], 16), poll, _optional(fields.get("inflight")))


def _wait(head: _Head, fields: _Fields) -> Event:
    return ResponseWait(*head, int(fields["transfer_id"], 16), int(fields["tmo_ms"]) / 1000, fields["poll"] != "0")


def _end(head: _Head, fields: _Fields) -> Event:
    return XferEnd(*head, int(fields["transfer_id"], 16), int(fields["s"]), _optional(fields.get("inflight")))


def _done(head: _Head, fields: _Fields) -> Event:
    return RxDone(*head, int(fields["transfer_id"], 16), int(fields["msg_type"]))


def _dump(head: _Head, fields: _Fields) -> Event:
    payload = bytes.fromhex(fields.get("pyld", ""))
    return MessageDump(*head, int(fields["id"]), int(fields["ch"], 16), fields["t"], int(fields["s"]), payload)


EVENTS: Final[dict[str, Callable[[_Head, _Fields], Event]]] = {
    "scmi_xfer_begin": _begin,
    "scmi_xfer_response_wait": _wait,
    "scmi_xfer_end": _end,
    "scmi_rx_done": _done,
    "scmi_msg_dump": _dump,
}


def parse(text: str) -> Trace:
    """Never raises: what cannot be read is counted."""
    trace = Trace()
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            if lost := _LOST.search(line):
                trace.lost += int(lost[1])
            else:
                trace.unread += any(f" {name}: " in line for name in EVENTS)
            continue
        make = EVENTS.get(found["event"])
        if make is None:
            continue
        fields = dict(_FIELD.findall(found["fields"]))
        try:
            numbers = (int(fields["pt"], 16), int(fields["msg_id"], 16), int(fields["seq"], 16))
            head = (float(found["seconds"]), int(found["cpu"]), f"{found['task']}-{found['pid']}", *numbers)
            trace.events.append(make(head, fields))
        except (KeyError, ValueError):
            trace.unread += 1
    return trace
