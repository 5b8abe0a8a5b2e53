"""``[faults]``: what may be asked for, and what would leave a guest without messages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from common.errors import ConfigError, RemoteError
from common.runtime.config import load
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.faults_plan import MAX_NEVER, MAX_RULES, Delay, FaultPlan, Never, Storm, WrongToken
from services.scmi_platform.faults_time import Constant

ONE_SECOND = {"distribution": "constant", "seconds": 1.0}


@pytest.mark.parametrize("field", ["late", "reorder", "delayed_twice", "never", "double_used"])
def test_a_plan_knows_whether_there_is_a_fault_in_it(field: str) -> None:
    assert not FaultPlan(late_seconds=5.0, never_every=2, after=7, seed=3).any
    plan: dict[str, Any] = {field: 1}
    assert FaultPlan(**plan).any


def test_rules_are_faults() -> None:
    assert FaultPlan(rules=(WrongToken(),)).any


def test_a_plan_must_leave_the_agent_a_message() -> None:
    FaultPlan(never=127 - 1).check(256)
    FaultPlan(never=127).check(256)
    with pytest.raises(RemoteError, match=r"faults\.never.*128.*127"):
        FaultPlan(never=128).check(256)
    FaultPlan().check(1)
    FaultPlan().check(256, kept=200)


def test_rules_must_leave_the_agent_a_message() -> None:
    def plan(*counts: int, never: int = 0, **fields: Any) -> FaultPlan:
        return FaultPlan(never=never, rules=tuple(Never(count=count, **fields) for count in counts))

    plan(100, 27).check(256)
    with pytest.raises(RemoteError, match=r"faults\.rules\.count.*128.*127"):
        plan(100, 28).check(256)
    with pytest.raises(RemoteError, match=r"rules"):
        plan(100, never=28).check(256)
    with pytest.raises(RemoteError, match=r"limit 27"):
        plan(28).check(256, kept=100)
    plan(27).check(256, kept=100)
    plan(200, of="notification").check(256)
    plan(200, agents=("vm1",)).check(256, names=frozenset({"vm0", "1", "OSPM"}))
    with pytest.raises(RemoteError):
        plan(200, agents=("vm1", "OSPM")).check(256, names=frozenset({"vm0", "1", "OSPM"}))


def test_rules_by_agent() -> None:
    everybody, one, other = WrongToken(), WrongToken(agents=("vm0",)), WrongToken(agents=("vm1", "7"))
    plan = FaultPlan(rules=(everybody, one, other))
    assert plan.rules_for(frozenset({"vm0", "1", "OSPM"})) == (everybody, one)
    assert plan.rules_for(frozenset({"guest", "7", "x"})) == (everybody, other)


def test_rules_as_settings() -> None:
    text = (
        '[{kind = "delay", only = ["clock", "performance/level_set", "0x13/0x7"], '
        'time = {distribution = "constant", seconds = 1.0}, probability = 0.5}, {kind = "storm", '
        'protocol = "sensor", event = "trip_point_event", domain = 2, burst = 5}]'
    )
    rules = load(ScmiConfig, None, {"RINGMESH_FAULTS__RULES": text}).faults.rules
    assert rules == (
        Delay(only=("clock", "performance/level_set", "0x13/0x7"), time=Constant(seconds=1.0), probability=0.5),
        Storm(protocol="sensor", event="trip_point_event", domain=2, burst=5),
    )
    assert isinstance(rules[1], Storm)
    assert rules[1].ids() == (0x15, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"late": 1.1}, {"reorder": -0.1}, {"never": -1}, {"never": MAX_NEVER + 1}, {"never_every": 0}, {"nevr": 1},
        {"late_seconds": 3600.1}, {"late_seconds": float("inf")}, {"late_seconds": float("nan")},
        {"rules": [{"kind": "twice"}] * (MAX_RULES + 1)},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, FaultPlan)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"kind": "later"}, "kind"),
        ({"only": ["clock"]}, "kind"),
        ({"kind": "twice", "only": ["clocks"]}, "clocks"),
        ({"kind": "twice", "only": ["clock/level_set"]}, "level_set"),
        ({"kind": "twice", "of": "answer"}, "of"),
        ({"kind": "twice", "probability": 1.5}, "probability"),
        ({"kind": "twice", "count": -1}, "count"),
        ({"kind": "twice", "seconds": 1}, "seconds"),
        ({"kind": "delay"}, "time"),
        ({"kind": "delay", "time": 1.0}, "time"),
        ({"kind": "never"}, "count"),
        ({"kind": "never", "count": 0}, "count"),
        ({"kind": "reorder", "of": "notification"}, "reorder"),
        ({"kind": "silent", "of": "delayed_response"}, "silent"),
        ({"kind": "wrong_token", "by": 0}, "by"),
        ({"kind": "wrong_token", "by": 1024}, "by"),
        ({"kind": "truncate"}, "length"),
        ({"kind": "truncate", "length": 133}, "length"),
        ({"kind": "wrong_protocol"}, "protocol or message"),
        ({"kind": "wrong_protocol", "protocol": 256}, "protocol"),
        ({"kind": "storm", "protocol": "sensor"}, "burst or per_second"),
        ({"kind": "storm", "burst": 1}, "protocol"),
        ({"kind": "storm", "protocol": "sensor", "event": "reading_get", "burst": 1}, "reading_get"),
        ({"kind": "storm", "protocol": "sensor", "burst": 1, "payload": "abc"}, "payload"),
        ({"kind": "storm", "protocol": "sensor", "burst": 1, "payload": "00" * 129}, "payload"),
        ({"kind": "storm", "protocol": "sensor", "per_second": 1e6}, "per_second"),
        ({"kind": "storm", "protocol": "sensor", "burst": 1, "only": ["clock"]}, "only"),
    ],
)
def test_rules_that_cannot_be(rule: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why) as caught:
        msgspec.convert({"rules": [{"kind": "twice"}, rule]}, FaultPlan)
    assert "$.rules[1]" in str(caught.value) or "rules" in str(caught.value)


def test_a_rule_that_reads_well() -> None:
    assert msgspec.convert({"kind": "delay", "time": ONE_SECOND}, Delay).time.draw(0.3) == 1.0


def test_the_settings_name_field_and_limit() -> None:
    with pytest.raises(ConfigError, match=r"RINGMESH_FAULTS__LATE_SECONDS: faults\.late_seconds: .*<= 3600"):
        load(ScmiConfig, None, {"RINGMESH_FAULTS__LATE_SECONDS": "inf"})
