"""The plans of all guests, and how they are replaced."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from common.errors import RemoteError
from services.scmi_platform.faults import Faults
from services.scmi_platform.faults_control import FaultControl, FaultRequest
from services.scmi_platform.faults_plan import FaultPlan, Never, Twice

MILD = FaultPlan(late=0.1)


class Device:
    """A guest's device: 256 entries of cmdq, and a list of the plans that it was given."""

    p2a = False

    def __init__(self, control: FaultControl, guest: str, *more: str) -> None:
        names = frozenset((guest, *more))
        self.faults = Faults(control.plan_of(names), lambda: 0.5, lambda: 1.0, self, names)
        self.plans: list[FaultPlan] = []
        control.attach(guest, self)

    def check_plan(self, plan: FaultPlan) -> None:
        self.faults.check(plan, 256)

    def set_plan(self, plan: FaultPlan) -> None:
        self.plans.append(plan)
        self.faults.replace(plan, 0)

    def give(self, head: int, reply: bytes) -> None: ...

    give_again = give

    def hush(self) -> None: ...

    def post(self, message: bytes) -> bool:
        return True

    notify = post

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        return False


@pytest.fixture
def control() -> FaultControl:
    return FaultControl(MILD)


def test_the_settings_are_everybodys(control: FaultControl) -> None:
    device = Device(control, "vm0", "1", "OSPM")
    assert device.faults.plan == MILD
    shown: Any = msgspec.to_builtins(control.show())
    assert shown["plan"]["late"] == 0.1
    assert shown["agents"]["vm0"]["names"] == ["1", "OSPM", "vm0"]
    assert shown["agents"]["vm0"]["counts"]["late"] == 0
    assert shown["agents"]["vm0"]["held"] == 0


def test_a_plan_for_all(control: FaultControl) -> None:
    devices = [Device(control, name) for name in ("vm0", "vm1")]
    control.replace(FaultRequest(reorder=0.5))
    wanted = FaultPlan(reorder=0.5, after=0)
    assert [device.plans for device in devices] == [[wanted], [wanted]]
    assert Device(control, "vm2").faults.plan == wanted, "those that come later too"
    assert type(devices[0].faults.plan) is FaultPlan


@pytest.mark.parametrize("name", ["vm1", "2", "BOSS"])
def test_a_plan_for_one(control: FaultControl, name: str) -> None:
    first, second = Device(control, "vm0", "1", "OSPM"), Device(control, "vm1", "2", "BOSS")
    shown = control.replace(FaultRequest(agent=name, after=7))
    assert (first.plans, second.plans) == ([], [FaultPlan(after=7)])
    assert shown["plan"] == MILD
    assert shown["agents"]["vm1"]["plan"] == FaultPlan(after=7)
    assert Device(control, "vm1", "2", "BOSS").faults.plan == FaultPlan(after=7), "it keeps it when it starts anew"
    control.replace(FaultRequest())
    assert Device(control, "vm1", "2", "BOSS").faults.plan == FaultPlan(after=0), "and a plan for all ends it"


def test_an_agent_that_is_not_there(control: FaultControl) -> None:
    device = Device(control, "vm0")
    with pytest.raises(RemoteError, match=r"agent = 'vm9'.*vm0"):
        control.replace(FaultRequest(agent="vm9"))
    assert not device.plans


def test_a_plan_that_would_leave_one_guest_without_messages_changes_nobodys(control: FaultControl) -> None:
    first, second = Device(control, "vm0"), Device(control, "vm1")
    second.faults.kept = 100
    rules = (Never(count=100),)
    with pytest.raises(RemoteError, match=r"faults\.rules\.count"):
        control.replace(FaultRequest(rules=rules))
    assert not first.plans
    assert not second.plans
    assert control.show()["plan"] == MILD
    control.replace(FaultRequest(agent="vm0", rules=rules))
    assert first.plans


def test_how_often_each_rule_struck(control: FaultControl) -> None:
    device = Device(control, "vm0")
    rules = (Twice(agents=("vm1",)), Twice(count=3), Twice(only=("clock",)))
    control.replace(FaultRequest(rules=rules))
    for _ in range(5):
        device.faults.answer(1, bytes(8))
    assert control.show()["agents"]["vm0"]["rules"] == [3, 0], "those that are not for it are left out"
    assert control.show()["agents"]["vm0"]["counts"]["double_used"] == 3


def test_the_body_of_a_request() -> None:
    request = msgspec.json.decode(b'{"agent": "vm0", "late": 0.5}', type=FaultRequest)
    assert request.plan() == FaultPlan(late=0.5, after=0)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"agents": "vm0"}', type=FaultRequest)
