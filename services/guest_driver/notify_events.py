"""What is known of notifications before one comes: the events of a protocol, as a table of descriptors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from common.scmi.header import HEADER
from services.guest_driver.scmi_message import MAX_PDU_SIZE

#: Bytes of payload that one message can carry: the limit of events whose length depends on what happened.
MAX_PAYLOAD: Final = MAX_PDU_SIZE - HEADER.size
#: Fifo of a protocol that says nothing else, bytes (Linux: SCMI_PROTO_QUEUE_SZ).
QUEUE_SIZE: Final = 4096
#: In a key: all sources. One more than any source, a 32-bit word of the payload, can be.
ALL_SOURCES: Final = 1 << 32


class Notification(NamedTuple):
    """What handlers are given. ``source`` is the domain that it is about (clock id, sensor id …), 0 where its protocol
    knows only one; ``when`` the time it came, ns of the clock that the agent was given; ``report`` the payload as its
    descriptor parses it."""

    protocol: int
    event: int
    source: int
    when: int
    report: Any
    payload: bytes


Handler = Callable[[Notification], None]
"""Called by the worker, never by an interrupt. A plain function: it does not wait, and starts a task of its own for
what must, such as taking itself back."""


@dataclass(slots=True, frozen=True)
class Event:
    """One notification of a protocol. ``parse(payload)`` makes the report, or raises RemoteError; ``source_of(report)``
    says what it is about; ``await enable(source, on)`` is the command that turns it on or off at the platform."""

    event: int
    #: bytes; a longer payload is refused
    max_payload: int
    parse: Callable[[bytes], Any]
    source_of: Callable[[Any], int]
    enable: Callable[[int, bool], Awaitable[None]]


@dataclass(slots=True, frozen=True)
class ProtocolEvents:
    """The events of one protocol. ``sources`` is how many sources each has, or asks the platform for it (then it is
    asked once, by the first registration that needs to know)."""

    protocol: int
    events: tuple[Event, ...]
    sources: int | Callable[[], Awaitable[int]]
    #: bytes of fifo, a power of two
    queue_size: int = QUEUE_SIZE


def event_key(protocol: int, event: int) -> int:
    """The key of an event in tables."""
    return protocol << 8 | event


def source_key(protocol: int, event: int, source: int) -> int:
    """The key of one source of an event, or of all: ALL_SOURCES."""
    return event_key(protocol, event) << 33 | source
