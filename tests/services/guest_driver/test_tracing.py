"""The switch of the trace lines."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import RemoteError
from common.runtime.world import AsyncWorld
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_trace import EVENTS
from services.guest_driver.tracing import Tracing, TracingRequest
from tests.services.guest_driver.scmi_loop import quiet

ALL = sorted(EVENTS)


@pytest.fixture
def tracing() -> Tracing:
    world = AsyncWorld()
    return Tracing({name: ScmiAgent(world, quiet) for name in ("guest0", "guest1")}, lambda: 1.0, 2)


def test_off_at_first(tracing: Tracing) -> None:
    state = tracing.state()
    assert state["guests"] == {"guest0": [], "guest1": []}
    assert sorted(state["events"]) == ALL
    assert (state["capacity"], state["held"], state["recorded"], state["overwritten"]) == (2, 0, 0, 0)
    assert all(agent.tracer is None for agent in tracing._agents.values())


def test_events_are_added_and_taken_away(tracing: Tracing) -> None:
    agent: Any = tracing._agents["guest1"]
    state = tracing.switch(TracingRequest(enable=True, events=["scmi_msg_dump"], guest="guest1"))
    assert state["guests"] == {"guest0": [], "guest1": ["scmi_msg_dump"]}
    tracer = agent.tracer
    assert tracer is not None
    state = tracing.switch(TracingRequest(enable=True, events=["scmi_xfer_end"]))
    assert state["guests"] == {"guest0": ["scmi_xfer_end"], "guest1": ["scmi_msg_dump", "scmi_xfer_end"]}
    assert agent.tracer is tracer
    assert tracing.switch(TracingRequest(enable=True))["guests"] == {"guest0": ALL, "guest1": ALL}
    assert tracing.switch(TracingRequest(enable=False, events=["scmi_rx_done"], guest="guest0"))["guests"] == {
        "guest0": [name for name in ALL if name != "scmi_rx_done"],
        "guest1": ALL,
    }
    assert tracing.switch(TracingRequest(enable=False))["guests"] == {"guest0": [], "guest1": []}
    assert agent.tracer is None
    tracer.rx_done(0)  # a command that was under way holds it
    assert tracing.state()["recorded"] == 0


def test_trace_stays_and_pipe_drains(tracing: Tracing) -> None:
    tracing.switch(TracingRequest(enable=True))
    for name in ("guest1", "guest0", "guest1"):
        tracer = tracing._agents[name].tracer
        assert tracer is not None
        tracer.rx_done(0)
    seen = tracing.trace()
    assert [line.split("-")[0].strip() for line in seen["lines"]] == ["guest0", "guest1"]
    assert seen["overwritten"] == 1
    assert tracing.trace() == tracing.pipe() == seen
    assert tracing.pipe() == {"lines": [], "overwritten": 1}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (TracingRequest(enable=True, events=["scmi_rx_done", "scmi_fc_call"]), "events"),
        (TracingRequest(enable=True, guest="guest2"), "guest"),
    ],
)
def test_what_does_not_exist_is_refused(tracing: Tracing, request_: TracingRequest, field: str) -> None:
    with pytest.raises(RemoteError) as raised:
        tracing.switch(request_)
    assert raised.value.field == field
    assert tracing.state()["guests"] == {"guest0": [], "guest1": []}
