"""Powercap protocol 0x18 (DEN0056E §4.10): caps, averaging intervals, measurements of power zones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.scmi import powercap as msg
from common.scmi.fields import U32, is_long, short_name
from common.scmi.powercap import Command, Notification, PowerUnit
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.section import numbers
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols.powercap_state import Powercap, PowercapState, rounded
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

_V2: Final = 0x20000
POWERCAP: Final = ProtocolTable(msg.PROTOCOL, (0x10000, msg.VERSION), Notification)
_SECTION: Final = "4.10.3"
_UNITS: Final = {"abstract": PowerUnit.ABSTRACT, "uW": PowerUnit.MICROWATTS, "mW": PowerUnit.MILLIWATTS}
#: A notification names the platform as the agent that moved a measurement.
_PLATFORM: Final = 0
_unpack_id: Final = U32.unpack_from


class PowercapProtocol(DomainServer[Powercap]):
    __slots__ = ()

    kind = "powercap_domains"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections = platform.board.powercap_domains
        ids = numbers(sections)
        super().__init__(platform, table, [Powercap(number, section, ids) for number, section in enumerate(sections)])

    def attributes(self, agent: Agent) -> bytes:
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), 0)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @POWERCAP.command(Command.POWERCAP_DOMAIN_ATTRIBUTES, section=_SECTION, size=4)
    def domain_attributes(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        zone = self.find(agent, number)
        if zone is None:
            return Status.NOT_FOUND
        section = zone.section
        word = _UNITS[section.power_unit] << msg.UNIT_SHIFT
        word |= msg.ATTR_CAP_CONFIG if zone.can_set_cap else 0
        word |= msg.ATTR_PAI_CONFIG if zone.can_set_pai else 0
        word |= msg.ATTR_MONITORING if zone.monitored else 0
        word |= msg.ATTR_EXTENDED_NAME if is_long(section.name) else 0
        if self.platform.p2a(agent.id):
            word |= msg.ATTR_CAP_NOTIFY
            word |= msg.ATTR_MEASUREMENTS_NOTIFY if zone.monitored else 0
            word |= msg.ATTR_CAP_ASYNC if self._asynchronous(zone) else 0
        about = msg.DomainAttributes(
            word,
            section.name,
            msg.Span(section.pais.min, section.pais.max, section.pais.step),
            msg.Span(section.caps.min, section.caps.max, section.caps.step),
            section.sustainable,
            section.accuracy,
            None if zone.parent is None else self.number(agent, zone.parent),
        )
        return msg.build_domain_attributes(about, short_name(section.name))

    @staticmethod
    def _asynchronous(zone: Powercap) -> bool:
        return zone.section.asynchronous and zone.can_set_cap

    @POWERCAP.command(Command.POWERCAP_DOMAIN_NAME_GET, section=_SECTION, size=4)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    @POWERCAP.command(Command.POWERCAP_DESCRIBE_FASTCHANNEL, section=_SECTION, size=8, since=_V2)
    def describe_fastchannel(self, agent: Agent, request: bytes) -> Result:
        """There are none."""
        (number,) = _unpack_id(request, PAYLOAD)
        return Status.NOT_FOUND if self.find(agent, number) is None else Status.NOT_SUPPORTED

    # --- cap ----------------------------------------------------------------------------------------------------------

    @POWERCAP.command(Command.POWERCAP_CAP_GET, section=_SECTION, size=4)
    def cap_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        zone = self.usable(agent, number)
        return zone if isinstance(zone, Status) else U32.pack(zone.cap)

    @POWERCAP.command(
        Command.POWERCAP_CAP_SET,
        section=_SECTION,
        size=12,
        delayed=Delayed(4, msg.CAP_ASYNC | msg.CAP_IGNORE_DELAYED, msg.CAP_ASYNC),
    )
    def cap_set(self, agent: Agent, request: bytes) -> Result:
        number, flags, wanted = msg.CAP_SET.unpack_from(request, PAYLOAD)
        zone = self.usable(agent, number)
        if isinstance(zone, Status):
            return zone
        if flags & ~msg.CAP_FLAGS:
            return Status.INVALID_PARAMETERS
        later = bool(flags & msg.CAP_ASYNC)
        respond = not flags & msg.CAP_IGNORE_DELAYED
        if not zone.can_set_cap or (later and not self._asynchronous(zone)):
            return Status.NOT_SUPPORTED
        if later and respond and not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        off = not wanted and self.version(agent) >= _V2
        cap = 0 if off else rounded(zone.section.caps, wanted)
        if cap is None:
            return Status.INVALID_PARAMETERS
        if not later:
            self._change_cap(agent, zone, cap)
            return b""
        finish = self._finish_cap_set(agent, number, zone, cap)
        if not self.platform.later(agent, request, zone.section.cap_set_latency_us / 1e6, finish, respond):
            return Status.BUSY
        return b""

    def _finish_cap_set(self, agent: Agent, number: int, zone: Powercap, cap: int) -> Callable[[], Result]:
        def finish() -> Result:
            self._change_cap(agent, zone, cap)
            return msg.CAP_SET_COMPLETE.pack(number, zone.cap)

        return finish

    def _change_cap(self, agent: Agent, zone: Powercap, cap: int) -> None:
        changed = cap != zone.cap
        zone.cap, zone.cap_owner = cap, agent.id
        self.touch(zone.id)
        if changed:
            self._announce(agent, zone)

    def _announce(self, agent: Agent, zone: Powercap) -> None:
        event = Notification.POWERCAP_CAP_CHANGED
        if self.platform.subscribed(msg.PROTOCOL, event, zone.id):
            payload = msg.CAP_EVENT.pack(agent.id, zone.id, zone.cap, zone.pai)
            self.platform.notify(msg.PROTOCOL, event, zone.id, payload)

    # --- averaging interval -------------------------------------------------------------------------------------------

    @POWERCAP.command(Command.POWERCAP_PAI_GET, section=_SECTION, size=4)
    def pai_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        zone = self.usable(agent, number)
        return zone if isinstance(zone, Status) else U32.pack(zone.pai)

    @POWERCAP.command(Command.POWERCAP_PAI_SET, section=_SECTION, size=12)
    def pai_set(self, agent: Agent, request: bytes) -> Result:
        number, flags, wanted = msg.PAI_SET.unpack_from(request, PAYLOAD)
        zone = self.usable(agent, number)
        if isinstance(zone, Status):
            return zone
        if flags:
            return Status.INVALID_PARAMETERS
        if not zone.can_set_pai:
            return Status.NOT_SUPPORTED
        pai = rounded(zone.section.pais, wanted)
        if pai is None:
            return Status.INVALID_PARAMETERS
        changed = pai != zone.pai
        zone.pai, zone.pai_owner = pai, agent.id
        self.touch(zone.id)
        self._look_soon(zone)
        if changed:
            self._announce(agent, zone)
        return b""

    # --- measurements -------------------------------------------------------------------------------------------------

    @POWERCAP.command(Command.POWERCAP_MEASUREMENTS_GET, section=_SECTION, size=4)
    def measurements_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        zone = self.usable(agent, number)
        if isinstance(zone, Status):
            return zone
        if not zone.monitored:
            return Status.NOT_SUPPORTED
        return msg.MEASUREMENTS_REPLY.pack(self._power(zone, self.platform.clock()), zone.pai)

    def _power(self, zone: Powercap, now: float) -> int:
        return zone.power(now - self.platform.started)

    # --- notifications ------------------------------------------------------------------------------------------------

    @POWERCAP.command(Command.POWERCAP_CAP_NOTIFY, section=_SECTION, size=8, p2a=True)
    def cap_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.POWERCAP_CAP_CHANGED)

    @POWERCAP.command(Command.POWERCAP_MEASUREMENTS_NOTIFY, section=_SECTION, size=16, p2a=True)
    def measurements_notify(self, agent: Agent, request: bytes) -> Result:
        number, enable, low, high = msg.MEASUREMENTS_NOTIFY.unpack_from(request, PAYLOAD)
        zone = self.usable(agent, number)
        if isinstance(zone, Status):
            return zone
        if not zone.monitored:
            return Status.NOT_SUPPORTED
        if low > high:
            return Status.INVALID_PARAMETERS
        result = self.subscribe(agent, request, Notification.POWERCAP_MEASUREMENTS_CHANGED)
        if isinstance(result, Status):
            return result
        if enable:
            zone.watch(agent.id, low, high)
        else:
            zone.forget(agent.id)
        self.touch(zone.id)
        self._look_soon(zone)
        return result

    def _look_soon(self, zone: Powercap) -> None:
        """Look within one interval from now; a look that is due sooner stays."""
        zone.due = min(zone.due, self.platform.clock() + zone.period) if zone.due else 0.0

    def tick(self, now: float) -> float | None:
        """Look at every measurement that is due and that somebody wants to hear of."""
        if not self.platform.listened(msg.PROTOCOL):
            return None
        event = Notification.POWERCAP_MEASUREMENTS_CHANGED
        due: list[float] = []
        for zone in self.domains:
            wanted = self.platform.subscribed(msg.PROTOCOL, event, zone.id)
            if not wanted:
                continue
            if now >= zone.due:
                # A late tick is one look, not several.
                zone.due = now + zone.period
                power = self._power(zone, now)
                outside = {agent for agent in wanted if zone.left(agent, power)}
                if outside:
                    payload = msg.MEASUREMENTS_EVENT.pack(_PLATFORM, zone.id, power)
                    self.platform.notify(msg.PROTOCOL, event, zone.id, payload, only=outside)
            due.append(zone.due)
        return min(due, default=None)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = PowercapState

    def agent_left(self, agent: Agent) -> None:
        for zone in self.domains:
            if zone.forget(agent.id):
                self.touch(zone.id)

    def reset_agent(self, agent: Agent) -> None:
        for zone in self.domains:
            before = zone.cap, zone.pai
            if zone.cap_owner == agent.id:
                zone.reset_cap()
                self.touch(zone.id)
            if zone.pai_owner == agent.id:
                zone.reset_pai()
                self.touch(zone.id)
                self._look_soon(zone)
            if zone.forget(agent.id):
                self.touch(zone.id)
            if (zone.cap, zone.pai) != before:
                self._announce(agent, zone)
