"""Powercap protocol 0x18, versions 0x10000 and 0x20000: layouts (DEN0056E §4.10).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification or delayed response. Powers are in the unit that the domain's attributes
say; the power averaging interval (PAI) is µs.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.POWERCAP
VERSION: Final = 0x20000


class Command(IntEnum):
    """DEN0056E §4.10.3."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    POWERCAP_DOMAIN_ATTRIBUTES = 0x3
    POWERCAP_CAP_GET = 0x4
    POWERCAP_CAP_SET = 0x5
    POWERCAP_PAI_GET = 0x6
    POWERCAP_PAI_SET = 0x7
    POWERCAP_DOMAIN_NAME_GET = 0x8
    POWERCAP_MEASUREMENTS_GET = 0x9
    POWERCAP_CAP_NOTIFY = 0xA
    POWERCAP_MEASUREMENTS_NOTIFY = 0xB
    POWERCAP_DESCRIBE_FASTCHANNEL = 0xC
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.10, notifications."""

    POWERCAP_CAP_CHANGED = 0x0
    POWERCAP_MEASUREMENTS_CHANGED = 0x1


# --- requests ---------------------------------------------------------------------------------------------------------

#: POWERCAP_DOMAIN_ATTRIBUTES, _CAP_GET, _PAI_GET, _DOMAIN_NAME_GET, _MEASUREMENTS_GET: domain id.
DOMAIN_ID: Final = U32
#: POWERCAP_CAP_SET: domain id, flags, cap (since 0x20000: 0 for none).
CAP_SET: Final = struct.Struct("<III")
#: With CAP_ASYNC: no delayed response is wanted. (CLOCK_RATE_SET has these two bits the other way round.)
CAP_IGNORE_DELAYED: Final = 1 << 0
CAP_ASYNC: Final = 1 << 1
CAP_FLAGS: Final = 0x3
#: POWERCAP_PAI_SET: domain id, flags (reserved), interval.
PAI_SET: Final = struct.Struct("<III")
#: POWERCAP_CAP_NOTIFY: domain id, notify enable (bit 0).
CAP_NOTIFY: Final = struct.Struct("<II")
#: POWERCAP_MEASUREMENTS_NOTIFY: domain id, notify enable (bit 0), low and high threshold.
MEASUREMENTS_NOTIFY: Final = struct.Struct("<IIII")
#: POWERCAP_DESCRIBE_FASTCHANNEL: domain id, message id.
DESCRIBE_FASTCHANNEL: Final = struct.Struct("<II")

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: domains (15:0), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<HH")
#: POWERCAP_DOMAIN_ATTRIBUTES: attributes, 16-byte name, PAI (lowest, highest, step), cap (lowest, highest, step),
#: sustainable power, accuracy, parent's domain id.
DOMAIN_ATTRIBUTES_REPLY: Final = struct.Struct("<I16sIIIIIIIII")
ATTR_CAP_NOTIFY: Final = 1 << 31
ATTR_MEASUREMENTS_NOTIFY: Final = 1 << 30
ATTR_CAP_ASYNC: Final = 1 << 29
ATTR_EXTENDED_NAME: Final = 1 << 28
ATTR_CAP_CONFIG: Final = 1 << 27
ATTR_MONITORING: Final = 1 << 26
ATTR_PAI_CONFIG: Final = 1 << 25
#: Attributes 24:23: the unit of power.
UNIT_SHIFT: Final = 23
UNIT_MASK: Final = 0x3
#: Since 0x20000.
ATTR_FASTCHANNEL: Final = 1 << 22
#: Parent of a domain that has none.
NO_PARENT: Final = 0xFFFF_FFFF
#: POWERCAP_CAP_GET.
CAP_REPLY: Final = U32
#: POWERCAP_PAI_GET.
PAI_REPLY: Final = U32
#: POWERCAP_MEASUREMENTS_GET: average power, interval that it was averaged over.
MEASUREMENTS_REPLY: Final = struct.Struct("<II")

# --- delayed response, notifications ----------------------------------------------------------------------------------

#: POWERCAP_CAP_SET_COMPLETE, after its status word: domain id, cap now.
CAP_SET_COMPLETE: Final = struct.Struct("<II")
#: POWERCAP_CAP_CHANGED: agent that changed it (0: the platform), domain id, cap, PAI.
CAP_EVENT: Final = struct.Struct("<IIII")
#: POWERCAP_MEASUREMENTS_CHANGED: agent (0: the platform), domain id, average power.
MEASUREMENTS_EVENT: Final = struct.Struct("<III")


class PowerUnit(IntEnum):
    """Bits 24:23 of the attributes."""

    ABSTRACT = 0
    MICROWATTS = 1
    MILLIWATTS = 2


class Span(NamedTuple):
    """What can be set: from lowest to highest in steps. Lowest and highest are the same where nothing can."""

    lowest: int
    highest: int
    step: int


class DomainAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``); ``parent`` is None for a root."""

    attributes: int
    name: str
    pai: Span
    cap: Span
    sustainable: int
    accuracy: int
    parent: int | None

    @property
    def unit(self) -> int:
        """A :class:`PowerUnit`, or 3, which is reserved."""
        return self.attributes >> UNIT_SHIFT & UNIT_MASK


class Measurements(NamedTuple):
    power: int
    pai: int


class CapEvent(NamedTuple):
    agent: int
    domain: int
    cap: int
    pai: int


class MeasurementsEvent(NamedTuple):
    agent: int
    domain: int
    power: int


def parse_attributes(payload: bytes) -> int:
    """How many domains there are."""
    domains, _ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return int(domains)


def build_domain_attributes(about: DomainAttributes, name: bytes) -> bytes:
    """Return values of POWERCAP_DOMAIN_ATTRIBUTES; ``name`` is 16 bytes."""
    parent = NO_PARENT if about.parent is None else about.parent
    return DOMAIN_ATTRIBUTES_REPLY.pack(
        about.attributes, name, *about.pai, *about.cap, about.sustainable, about.accuracy, parent
    )


def parse_domain_attributes(payload: bytes) -> DomainAttributes:
    attributes, name, *numbers = unpack(DOMAIN_ATTRIBUTES_REPLY, payload, "POWERCAP_DOMAIN_ATTRIBUTES")
    sustainable, accuracy, parent = numbers[6:]
    return DomainAttributes(
        attributes,
        name_of(name),
        Span(*numbers[:3]),
        Span(*numbers[3:6]),
        sustainable,
        accuracy,
        None if parent == NO_PARENT else parent,
    )


def parse_cap(payload: bytes) -> int:
    (cap,) = unpack(CAP_REPLY, payload, "POWERCAP_CAP_GET")
    return int(cap)


def parse_pai(payload: bytes) -> int:
    (pai,) = unpack(PAI_REPLY, payload, "POWERCAP_PAI_GET")
    return int(pai)


def parse_measurements(payload: bytes) -> Measurements:
    return Measurements(*unpack(MEASUREMENTS_REPLY, payload, "POWERCAP_MEASUREMENTS_GET"))


def parse_cap_set_complete(payload: bytes) -> tuple[int, int]:
    """(domain id, cap) of a delayed response, its status word already taken off."""
    domain, cap = unpack(CAP_SET_COMPLETE, payload, "POWERCAP_CAP_SET_COMPLETE")
    return domain, cap


def parse_cap_event(payload: bytes) -> CapEvent:
    return CapEvent(*unpack(CAP_EVENT, payload, "POWERCAP_CAP_CHANGED"))


def parse_measurements_event(payload: bytes) -> MeasurementsEvent:
    return MeasurementsEvent(*unpack(MEASUREMENTS_EVENT, payload, "POWERCAP_MEASUREMENTS_CHANGED"))
