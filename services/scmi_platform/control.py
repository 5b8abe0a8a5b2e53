"""A hand on the board while it runs: what two admin routes of the SCMI service do, and what no command can read.

======================== ===========================================================================================
POST /scmi/system-power  ``{"state", "graceful", "timeout_ms"}``: the platform itself asks for a state of the system
                         (``shutdown``, ``cold_reset``, ``warm_reset``, ``suspend``, ``power_up``). ``graceful`` (true)
                         asks the agents, otherwise they are told; ``timeout_ms`` (0: none) is for a graceful shutdown.
POST /scmi/sensor        ``{"sensor", "value", "axis"}``: force the reading of a sensor (its name or number) to
                         ``value``, a whole number of its steps; null goes back to the board's signal.
======================== ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from common.errors import LocalError, RemoteError
from common.scmi.status import ProtocolId
from common.scmi.system_power import StateEvent, SystemState, state_name
from services.scmi_platform.boards.section import S64, U32
from services.scmi_platform.protocols.power import PowerProtocol
from services.scmi_platform.protocols.reset import ResetProtocol
from services.scmi_platform.protocols.sensor import SensorProtocol
from services.scmi_platform.protocols.system_power import SystemPowerProtocol

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform


class SystemPowerRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /scmi/system-power."""

    state: Literal["shutdown", "cold_reset", "warm_reset", "suspend", "power_up"]
    graceful: bool = True
    timeout_ms: U32 = 0


class SensorRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /scmi/sensor."""

    sensor: Annotated[str, Meta(max_length=63)] | U32
    value: S64 | None
    axis: U32 = 0


class Admin(Protocol):
    """The admin endpoint, as far as it is needed here."""

    def post(self, path: str, handler: Callable[[Any], Any], body: type[Any]) -> None: ...


class Gauges(Protocol):
    """The metrics, as far as they are needed here."""

    def gauge(self, name: str, text: str, /, fn: Callable[[], float] | None = None, **labels: str) -> object: ...


_POWER_STATE: Final = ("ringmesh_scmi_power_state", "Power state word of a power domain.")
_RESET_HELD_BY: Final = ("ringmesh_scmi_reset_held_by", "The agent that holds a reset domain in reset, 0 for none.")
_SYSTEM_STATE: Final = (
    "ringmesh_scmi_system_state",
    "State of the system that was asked for last: 0 shutdown, 1 cold reset, 2 warm reset, 3 up, 4 suspend.",
)


class Control:
    """The hand on ``platform``; ``log(event, **fields)`` is told of every state of the system that is asked for."""

    def __init__(self, platform: Platform, log: Callable[..., None]) -> None:
        self._platform: Final = platform
        self._log: Final = log
        server = platform.protocols.get(ProtocolId.SYSTEM_POWER)
        self._system: Final = server if isinstance(server, SystemPowerProtocol) else None
        if self._system is not None:
            self._system.on_request = self._requested

    def serve(self, admin: Admin, metrics: Gauges) -> None:
        """Bind the routes and the gauges."""
        admin.post("/scmi/system-power", self.system_power, SystemPowerRequest)
        admin.post("/scmi/sensor", self.sensor, SensorRequest)
        for server in self._platform.protocols.values():
            if isinstance(server, PowerProtocol):
                for power in server.domains:
                    metrics.gauge(*_POWER_STATE, partial(getattr, power, "state"), domain=power.section.name)
            elif isinstance(server, ResetProtocol):
                for reset in server.domains:
                    metrics.gauge(*_RESET_HELD_BY, partial(getattr, reset, "owner"), domain=reset.section.name)
        if self._system is not None:
            metrics.gauge(*_SYSTEM_STATE, partial(getattr, self._system, "state"))

    # --- the system's state -------------------------------------------------------------------------------------------

    def system_power(self, request: SystemPowerRequest) -> dict[str, Any]:
        """Answers ``{"state", "before"}``. Raises RemoteError for a time-out that goes with nothing, LocalError where
        the board has no such state, or no system power at all."""
        if self._system is None:
            raise LocalError("the board has no [system_power]")
        if request.timeout_ms and not (request.graceful and request.state == "shutdown"):
            raise RemoteError("timeout_ms", request.timeout_ms, None, "only a graceful shutdown has one")
        before = state_name(self._system.state)
        self._system.request(SystemState[request.state.upper()], request.graceful, request.timeout_ms)
        return {"state": request.state, "before": before}

    def _requested(self, event: StateEvent) -> None:
        fields = {"state": state_name(event.state), "graceful": event.graceful, "timeout_ms": event.timeout_ms}
        self._log("system power state asked for", agent=event.agent, **fields)

    # --- sensors ------------------------------------------------------------------------------------------------------

    def sensor(self, request: SensorRequest) -> dict[str, Any]:
        """Answers ``{"id", "sensor", "axis", "value"}``. Raises RemoteError for a sensor or an axis that is not
        there and for a value outside its range, LocalError where the board has no sensors."""
        server = self._platform.protocols.get(ProtocolId.SENSOR)
        if not isinstance(server, SensorProtocol):
            raise LocalError("the board has no sensors")
        wanted = request.sensor
        for domain in server.domains:
            name = domain.section.name
            if wanted in (domain.id, name):
                break
        else:
            raise RemoteError("sensor", wanted, None, "not on the board")
        if request.axis >= len(domain.readers):
            raise RemoteError("axis", request.axis, len(domain.readers) - 1)
        span = domain.section.axes[request.axis] if domain.section.axes else domain.section
        if request.value is not None and not span.min <= request.value <= span.max:
            raise RemoteError(
                "value", request.value, f"{span.min} to {span.max}", "outside of what the sensor measures"
            )
        server.override(domain.id, request.value, request.axis)
        return {"id": domain.id, "sensor": name, "axis": request.axis, "value": request.value}
