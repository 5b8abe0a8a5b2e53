"""Notification storms: many notifications that nothing caused, at once or at a rate."""

from __future__ import annotations

from typing import Final, Protocol

from common.scmi import header
from common.scmi.fields import U32
from common.scmi.status import ProtocolId
from services.scmi_platform.faults_plan import Storm
from services.scmi_platform.faults_stats import FaultStats

#: What one tick sends at most for the rate: what is owed beyond it is forgotten.
MAX_AT_ONCE: Final = 1024

#: (protocol, notification) → bytes of its payload (DEN0056E §4.2.3, §4.3.3 and so on); what is not here has 8.
_SIZES: Final[dict[tuple[int, int], int]] = {
    (ProtocolId.BASE, 0): 12,
    (ProtocolId.POWER_DOMAIN, 0): 12,
    (ProtocolId.POWER_DOMAIN, 1): 12,
    (ProtocolId.SYSTEM_POWER, 0): 16,
    (ProtocolId.PERFORMANCE, 0): 16,
    (ProtocolId.PERFORMANCE, 1): 12,
    (ProtocolId.CLOCK, 0): 16,
    (ProtocolId.CLOCK, 1): 16,
    (ProtocolId.SENSOR, 0): 12,
    (ProtocolId.SENSOR, 1): 24,
    (ProtocolId.RESET_DOMAIN, 0): 12,
    (ProtocolId.POWERCAP, 0): 16,
    (ProtocolId.POWERCAP, 1): 12,
}


class Target(Protocol):
    """The agent, as a storm sees it."""

    @property
    def p2a(self) -> bool:
        """Can it be sent to at all?"""
        ...

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        """Did it ask for this notification?"""
        ...

    def notify(self, message: bytes) -> bool:
        """Send a notification by the eventq. False: no room, it is lost."""
        ...


def message_of(storm: Storm) -> bytes:
    """The whole notification that ``storm`` sends."""
    protocol, event = storm.ids()
    payload = bytes.fromhex(storm.payload)
    if not payload:
        payload = U32.pack(0) + U32.pack(storm.domain)
        payload += bytes(_SIZES.get((protocol, event), len(payload)) - len(payload))
    return header.notification(protocol, event, payload)


class Blowing:
    """One storm over one agent. It waits while the agent has no eventq, or (unless ``unasked``) did not subscribe."""

    __slots__ = ("_burst", "_ids", "_message", "_owed", "_since", "_stats", "done", "rule")

    def __init__(self, storm: Storm, stats: FaultStats) -> None:
        self.rule: Final = storm
        self._ids: Final = storm.ids()
        self._message: Final = message_of(storm)
        self._stats: Final = stats
        self.reset()

    def reset(self) -> None:
        """The agent begins anew, so does the storm."""
        #: notifications so far, those without room too
        self.done = 0
        self._burst = self.rule.burst
        self._owed = 0.0
        #: when the rate was looked at last; None: the storm waits
        self._since: float | None = None

    def tick(self, now: float, target: Target) -> None:
        """Time is ``now``: send what is due."""
        storm = self.rule
        if not target.p2a or not (storm.unasked or target.subscribed(*self._ids, storm.domain)):
            self._since = None
            return
        if self._since is not None:
            self._owed += (now - self._since) * storm.per_second
        self._since = now
        due = int(self._owed)
        self._owed -= due
        due = min(due, MAX_AT_ONCE) + self._burst
        self._burst = 0
        if storm.count:
            due = min(due, storm.count - self.done)
        self.done += due
        sent = 0
        while sent < due and target.notify(self._message):
            sent += 1
        self._stats.storm += sent
        self._stats.storm_dropped += due - sent
