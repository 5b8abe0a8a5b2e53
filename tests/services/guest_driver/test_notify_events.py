"""Keys of events and sources, and the tables that the protocols ship."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.scmi import base, clock, sensor
from common.scmi.status import ProtocolId
from services.guest_driver.notify_events import ALL_SOURCES, MAX_PAYLOAD, Event, event_key, source_key
from tests.services.guest_driver.scmi_loop import Loop

bytes_ = st.integers(0, 255)
sources = st.integers(0, (1 << 32) - 1) | st.just(ALL_SOURCES)


@given(bytes_, bytes_, sources, bytes_, bytes_, sources)
def test_keys_are_one_to_one(p: int, e: int, s: int, p2: int, e2: int, s2: int) -> None:
    assert (source_key(p, e, s) == source_key(p2, e2, s2)) == ((p, e, s) == (p2, e2, s2))
    assert (event_key(p, e) == event_key(p2, e2)) == ((p, e) == (p2, e2))


def test_all_sources_is_none_that_a_payload_can_name() -> None:
    assert ALL_SOURCES > 0xFFFF_FFFF


async def test_the_protocols_know_all_their_events_and_whom_they_are_about() -> None:
    loop = Loop()
    agent = loop.agent
    tables: dict[int, tuple[Event, ...]] = {one.protocol: one.events for one in (
        agent.base.events(), agent.clock.events(), agent.sensor.events()
    )}  # fmt: skip
    assert {protocol: [one.event for one in events] for protocol, events in tables.items()} == {
        ProtocolId.BASE: list(base.Notification),
        ProtocolId.CLOCK: list(clock.Notification),
        ProtocolId.SENSOR: list(sensor.Notification),
    }
    examples = {
        ProtocolId.BASE: [base.build_error_event(2, [(1, -1)] * 15)],
        ProtocolId.CLOCK: [clock.RATE_EVENT.pack(2, 7, 100)] * 2,
        ProtocolId.SENSOR: [
            sensor.TRIP_POINT_EVENT.pack(2, 7, 1),
            sensor.UPDATE.pack(2, 7) + sensor.build_readings([(1, 2)] * 7),
        ],
    }
    for protocol, events in tables.items():
        for event, payload in zip(events, examples[ProtocolId(protocol)], strict=True):
            assert len(payload) <= event.max_payload <= MAX_PAYLOAD
            source = event.source_of(event.parse(payload))
            assert source == (0 if protocol == ProtocolId.BASE else 7)
    await loop.world.close()
