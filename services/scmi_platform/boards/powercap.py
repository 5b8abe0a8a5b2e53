"""Sections ``[[powercap_domains]]``. Powers are in ``power_unit``, the averaging interval (``pai``) is µs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from services.scmi_platform.boards.section import (
    U32,
    Name,
    Parts,
    Refuse,
    Section,
    check_parent,
    check_range,
    check_within,
)
from services.scmi_platform.boards.sensor import Signal

#: Neither a cap nor an interval can be 0, which means "none".
Positive = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]


class Span(Section, frozen=True, kw_only=True):
    """From ``min`` to ``max`` in steps; where they are the same nobody can set anything."""

    min: Positive
    max: Positive
    step: U32 = 0


class PowercapDomainSection(Section, frozen=True, kw_only=True):
    """One power zone. ``parent`` is the zone that it is a part of.

    ``cap`` is the initial one: 0 for none. ``signal`` is the power that it would draw without a cap; left out the zone
    is not monitored. ``asynchronous``: a cap may be set with a delayed response, ``cap_set_latency_us`` later.
    ``sustainable`` power and ``accuracy`` (of the measurements) are handed on as they are, 0 for not told.
    """

    name: Name
    parent: str = ""
    power_unit: Literal["abstract", "uW", "mW"] = "uW"
    caps: Span
    cap: U32 = 0
    pais: Span
    pai: Positive
    sustainable: U32 = 0
    accuracy: U32 = 0
    signal: Signal | None = None
    asynchronous: bool = False
    cap_set_latency_us: U32 = 1000


def check_powercap(key: str, domain: PowercapDomainSection, parts: Parts, refuse: Refuse) -> None:
    for name, span, value in (("cap", domain.caps, domain.cap), ("pai", domain.pais, domain.pai)):
        check_range(f"{key}.{name}s", span, refuse)
        if span.min < span.max and not span.step:
            refuse(f"{key}.{name}s.step", "must not be 0 where there is something to set")
        off = name == "cap" and not value
        if not off:
            check_within(f"{key}.{name}", value, span, refuse)
    if not domain.cap and domain.caps.min == domain.caps.max:
        refuse(f"{key}.cap", "0, but the cap cannot be set: it is the one of caps")
    if domain.signal is not None and domain.signal.base < 0:
        refuse(f"{key}.signal.base", f"{domain.signal.base} is below 0")
    check_parent(key, domain, parts["powercap_domains"], refuse)
