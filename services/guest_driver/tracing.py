"""Tracing of the guests' SCMI agents, switched at run time: what the admin routes of the guest service do.

==================== ===============================================================================================
GET /tracing         the state: ``{"events": [all that there are], "guests": {name: [those that are on]}, "capacity",
                     "held", "recorded", "overwritten"}`` (the last four in entries; the last two since the start)
POST /tracing        ``{"enable": bool, "events": [names], "guest": name}``: turn events on or off; without ``events``
                     all of them, without ``guest`` for all guests. Answers with the state.
GET /tracing/trace   ``{"lines": [...], "overwritten": n}``: what is held, oldest first; it stays
POST /tracing/pipe   the same, and what was read is gone: asked again and again it gives every line once
==================== ===============================================================================================

One ring for all guests, so that their lines are in order of time. Lines are as in :mod:`scmi_trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from common.errors import RemoteError
from common.scmi.trace_lines import FORMATS
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_trace import CAPACITY, EVENTS, AgentRing, Tracer


class TracingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tracing."""

    enable: bool
    #: none: all
    events: list[str] = []
    #: empty: all
    guest: str = ""


class Tracing:
    """``agents``: name of the guest → its agent. ``clock()`` says seconds."""

    def __init__(self, agents: Mapping[str, ScmiAgent], clock: Callable[[], float], capacity: int = CAPACITY) -> None:
        self.ring: Final = AgentRing(capacity)
        self._agents: Final = agents
        self._clock: Final = clock

    def switch(self, request: TracingRequest) -> dict[str, Any]:
        """Raises RemoteError for an event or a guest that does not exist; then nothing changes."""
        wanted = frozenset(request.events or EVENTS)
        unknown = sorted(wanted - EVENTS)
        if unknown:
            raise RemoteError("events", unknown[0], ", ".join(FORMATS))
        if request.guest and request.guest not in self._agents:
            raise RemoteError("guest", request.guest, ", ".join(self._agents))
        for name, agent in self._agents.items():
            if request.guest in ("", name):
                self._set(name, agent, self._on(agent) | wanted if request.enable else self._on(agent) - wanted)
        return self.state()

    def _on(self, agent: ScmiAgent) -> frozenset[str]:
        return agent.tracer.events if agent.tracer is not None else frozenset()

    def _set(self, name: str, agent: ScmiAgent, events: frozenset[str]) -> None:
        tracer = agent.tracer
        if tracer is not None:
            tracer.events = events  # commands under way hold it: they fall silent too
        elif events:
            tracer = Tracer(name, self.ring, self._clock, events)
        agent.tracer = tracer if events else None

    def state(self) -> dict[str, Any]:
        stats = self.ring.stats
        return {
            "events": list(FORMATS),
            "guests": {name: sorted(self._on(agent)) for name, agent in self._agents.items()},
            "capacity": self.ring.capacity,
            "held": len(self.ring),
            "recorded": stats.recorded,
            "overwritten": stats.overwritten,
        }

    def trace(self) -> dict[str, Any]:
        return {"lines": self.ring.lines(), "overwritten": self.ring.stats.overwritten}

    def pipe(self) -> dict[str, Any]:
        return {"lines": self.ring.drain(), "overwritten": self.ring.stats.overwritten}
