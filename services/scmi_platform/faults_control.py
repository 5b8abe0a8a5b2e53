"""Faults at run time: what plan each guest has, and how it gets another (``GET`` and ``POST /faults``)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Protocol

import msgspec

from common.errors import RemoteError
from services.scmi_platform.faults import Faults
from services.scmi_platform.faults_plan import FaultPlan


class FaultRequest(FaultPlan, kw_only=True, frozen=True):
    """The body of ``POST /faults``: the settings of ``[faults]``, and whom they are for. The faults begin at once,
    unless ``after`` says otherwise."""

    #: one guest, by its name, or that or the number of its SCMI agent; empty: all, those that come later too
    agent: str = ""
    after: Annotated[int, msgspec.Meta(ge=0)] = 0

    def plan(self) -> FaultPlan:
        return FaultPlan(**{name: getattr(self, name) for name in FaultPlan.__struct_fields__})


class Device(Protocol):
    """What a guest has."""

    @property
    def faults(self) -> Faults: ...

    def check_plan(self, plan: FaultPlan) -> None:
        """Raise RemoteError where ``plan`` would leave the guest without a message."""
        ...

    def set_plan(self, plan: FaultPlan) -> None:
        """``plan`` holds from now on. What was held goes out."""
        ...


class FaultControl:
    """The plans of all guests; ``plan`` is that of the settings."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        #: guests with a plan of their own, by name
        self._own: dict[str, FaultPlan] = {}
        self._devices: Final[dict[str, Device]] = {}

    def plan_of(self, names: frozenset[str]) -> FaultPlan:
        """The plan for a guest that goes by any of ``names`` and has a new device."""
        return next((plan for guest, plan in self._own.items() if guest in names), self._plan)

    def attach(self, guest: str, device: Device) -> None:
        """``device`` is that of ``guest`` from now on."""
        self._devices[guest] = device

    def show(self) -> dict[str, Any]:
        """The plan of those who have none of their own; by guest, what it is called, plan and counts."""
        return {
            "plan": self._plan,
            "agents": {guest: _shown(device.faults) for guest, device in self._devices.items()},
        }

    def replace(self, request: FaultRequest) -> dict[str, Any]:
        """Put a plan in force, for all or none; returns what :meth:`show` shows then.

        Raises RemoteError for an agent that is not there, or a plan that would leave a guest without a message.
        """
        plan = request.plan()
        devices = self._named(request.agent) if request.agent else self._devices
        for device in devices.values():
            device.check_plan(plan)
        if request.agent:
            self._own.update(dict.fromkeys(devices, plan))
        else:
            self._plan = plan
            self._own.clear()
        for device in devices.values():
            device.set_plan(plan)
        return self.show()

    def _named(self, name: str) -> dict[str, Device]:
        """The one guest that goes by ``name``."""
        for guest, device in self._devices.items():
            if name in device.faults.names:
                return {guest: device}
        raise RemoteError("agent", name[:32], sorted(self._devices), "no such guest or agent")


def _shown(faults: Faults) -> dict[str, Any]:
    return {
        "names": sorted(faults.names),
        "plan": faults.plan,
        "counts": {name: getattr(faults.stats, name) for name in faults.stats.__slots__},
        # how often each rule for this agent struck since its guest reset the device
        "rules": faults.done,
        "held": faults.held,
    }
