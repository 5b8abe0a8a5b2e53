"""The protocol clients against the real platform, sleeping and polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import BackpressureError, ScmiError
from common.scmi import base, clock, header, sensor
from common.scmi.status import ProtocolId, Status
from services.guest_driver import scmi_notify
from services.guest_driver.scmi_client import went_on
from services.guest_driver.scmi_notify import Notification
from tests.services.guest_driver.scmi_loop import Loop


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    made = Loop()
    await made.start()
    yield made
    await made.world.close()


@pytest.fixture(params=[False, True], ids=["sleeping", "polling"])
def poll(request: Any) -> bool:
    return bool(request.param)


async def test_base(loop: Loop, poll: bool) -> None:
    client = loop.agent.base

    async def work() -> None:
        assert await client.version(poll=poll) == 0x20001
        protocols = await client.protocols(poll=poll)
        assert ProtocolId.CLOCK in protocols
        assert (await client.attributes(poll=poll)).protocols == len(protocols)
        assert await client.vendor(poll=poll) == "acme"
        assert await client.sub_vendor(poll=poll) == "toys"
        assert await client.implementation_version(poll=poll) == 0x01020304
        assert await client.discover_agent(poll=poll) == (1, "OSPM")
        assert (await client.discover_agent(0, poll=poll))[0] == 0
        assert await client.message_attributes(base.Command.BASE_DISCOVER_VENDOR, poll=poll) == 0
        await client.negotiate(0x20000, poll=poll)
        await client.reset_agent_configuration(1, poll=poll)

    await loop.run(work())
    stats = loop.agent.stats
    assert (stats.response_polled_ok > 0) == poll
    assert (stats.response_ok > 0) != poll


async def test_clock(loop: Loop, poll: bool) -> None:
    client = loop.agent.clock

    async def work() -> None:
        assert (await client.attributes(poll=poll)).clocks == 4
        assert (await client.clock_attributes(0, poll=poll)).name == "cpu"
        assert (await client.clock_attributes(0, poll=poll)).enable_latency == 7
        # 17 rates do not fit one message
        assert (await client.describe_rates(0, poll=poll)).rates == list(range(100, 1800, 100))
        triplet = await client.describe_rates(1, poll=poll)
        assert triplet.triplet
        assert len(triplet.rates) == 3
        await client.rate_set(0, 800, poll=poll)
        assert await client.rate_get(0, poll=poll) == 800
        await client.config_set(1, True, poll=poll)
        assert await client.config_get(1, poll=poll)
        await client.config_set(1, False, poll=poll)
        assert not await client.config_get(1, poll=poll)
        assert await client.name_get(2, poll=poll) == "a-clock-with-a-rather-long-name"
        assert await client.parents(3, poll=poll) == [0, 1]

    await loop.run(work())


async def test_sensor(loop: Loop, poll: bool) -> None:
    client = loop.agent.sensor

    async def work() -> None:
        assert (await client.attributes(poll=poll)).sensors == 3
        found = await client.discover(poll=poll)
        assert [one.id for one in found] == [0, 1, 2]
        assert found[0].name == "temp"
        assert await client.name_get(1, poll=poll) == "accelerometer-of-the-lid"
        assert [axis.id for axis in await client.axes(1, poll=poll)] == [0, 1]
        assert (await client.update_intervals(0, poll=poll)).intervals == [(1, 0), (2, 0), (5, 0)]
        assert [one.value for one in await client.reading_get(1, poll=poll)] == [-5, 981]
        config = await client.config_get(0, poll=poll)
        await client.config_set(0, config & ~sensor.CONFIG_ENABLE, poll=poll)
        with pytest.raises(ScmiError):
            await client.reading_get(0, poll=poll)

    await loop.run(work())


async def test_a_sensor_that_crosses_its_trip_point(loop: Loop, poll: bool) -> None:
    client = loop.agent.sensor
    events: list[sensor.TripEvent] = []
    everything: list[Notification] = []
    client.on_trip_point(lambda one: events.append(sensor.parse_trip_event(one.payload)), 0)
    client.on_trip_point(everything.append)

    async def work() -> None:
        await client.trip_point_config(0, 0, 60000, poll=poll)
        await client.notify_trip_points(0, True, poll=poll)

    await loop.run(work())
    server: Any = loop.agents.platform.protocols[ProtocolId.SENSOR]
    server.override(0, 65000)
    await loop.ticks(10.0)
    assert events == [sensor.TripEvent(0, 0, 0, True)]
    server.override(0, 1000)
    await loop.ticks(10.0)
    assert [event.rising for event in events] == [True, False]
    assert [one.source for one in everything] == [0, 0]
    assert loop.agent.stats.notification_ok == 2
    assert (1, 0.0) in loop.waits
    await loop.run(client.notify_trip_points(0, False, poll=poll))
    server.override(0, 65000)
    await loop.ticks(10.0)
    assert len(events) == 2


async def test_updates_and_rate_changes(loop: Loop) -> None:
    updates: list[Notification] = []
    rates: list[Notification] = []
    loop.agent.sensor.on_update(updates.append, 1)
    loop.agent.clock.on_rate_changed(rates.append, 0)
    await loop.run(loop.agent.sensor.notify_updates(1, True))
    await loop.run(loop.agent.clock.notify_rate(0, True))
    await loop.run(loop.agent.clock.rate_set(0, 900))
    await loop.ticks(10.0)
    assert [reading.value for reading in sensor.parse_update(updates[0].payload).readings] == [-5, 981]
    assert clock.parse_rate_event(rates[0].payload) == clock.RateEvent(1, 0, 900)


async def test_asynchronous_rate_change(loop: Loop) -> None:
    async def work() -> tuple[int, int]:
        task = asyncio.get_running_loop().create_task(loop.agent.clock.rate_set_async(0, 700))
        for _ in range(10):
            await asyncio.sleep(0)
        loop.now += 10.0
        loop.agents.platform.tick(loop.now)
        return await task

    assert await loop.run(work()) == (0, 700)


async def test_errors_are_reported(loop: Loop) -> None:
    reports: list[Notification] = []
    loop.agent.base.on_error(reports.append)
    await loop.run(loop.agent.base.notify_errors(True))
    with pytest.raises(ScmiError):  # too short: the platform calls that a broken protocol
        await loop.run(loop.agent.do_xfer(ProtocolId.CLOCK, clock.Command.CLOCK_RATE_GET))
    await loop.ticks(1.0)
    event = base.parse_error_event(reports[0].payload)
    assert reports[0].source == 0
    assert [status for _, status in event.reports] == [Status.PROTOCOL_ERROR]


async def test_no_such_command(loop: Loop) -> None:
    with pytest.raises(ScmiError) as raised:
        await loop.run(loop.agent.clock.message_attributes(0x77))
    assert raised.value.status == Status.NOT_FOUND
    with pytest.raises(ScmiError):
        await loop.run(loop.agent.clock.negotiate(0x10000))


def test_an_iteration_that_makes_no_progress_ends() -> None:
    assert went_on("X", 1, 1)
    assert not went_on("X", 0, 0)
    with pytest.raises(ScmiError, match="none returned"):
        went_on("X", 0, 3)


# --- callbacks --------------------------------------------------------------------------------------------------------


def trip(source: int) -> tuple[int, bytes]:
    message = header.notification(ProtocolId.SENSOR, 0, sensor.TRIP_POINT_EVENT.pack(0, source, 0))
    return int.from_bytes(message[:4], "little"), message


async def test_callbacks_by_source(loop: Loop) -> None:
    notifications = loop.agent.notifications
    heard: list[tuple[str, int]] = []

    def one(event: Notification) -> None:
        heard.append(("one", event.source))

    notifications.register(ProtocolId.SENSOR, 0, one, 3)
    notifications.register(ProtocolId.SENSOR, 0, lambda event: heard.append(("all", event.source)))
    assert notifications.dispatch(*trip(3))
    assert notifications.dispatch(*trip(4))
    assert heard == [("one", 3), ("all", 3), ("all", 4)]
    assert notifications.unregister(ProtocolId.SENSOR, 0, one, 3)
    assert not notifications.unregister(ProtocolId.SENSOR, 0, one, 3)
    assert not notifications.unregister(ProtocolId.CLOCK, 0, one)
    heard.clear()
    notifications.dispatch(*trip(3))
    assert heard == [("all", 3)]


async def test_a_notification_that_nobody_wants_or_that_is_too_short(loop: Loop) -> None:
    notifications = loop.agent.notifications
    assert notifications.dispatch(*trip(1))
    assert notifications.unhandled == 1
    word, message = trip(1)
    assert not notifications.dispatch(word, message[:8])
    assert loop.device.emit(message[:8])
    loop.settle()
    assert loop.agent.stats.err_msg_invalid == 1


async def test_a_callback_that_fails_does_not_stop_the_others(loop: Loop) -> None:
    heard: list[int] = []

    def bad(_event: Notification) -> None:
        raise ValueError("a driver's bug")

    loop.agent.sensor.on_trip_point(bad)
    loop.agent.sensor.on_trip_point(lambda event: heard.append(event.source))
    loop.device.emit(trip(5)[1])
    loop.settle()
    assert heard == [5]
    assert loop.agent.notifications.handler_failures == 1
    assert loop.logged[0][0] == "notification_handler_failed"
    assert len(loop.device.buffers) == loop.rx.max_msg


async def test_callbacks_are_bounded(loop: Loop) -> None:
    for _ in range(scmi_notify.MAX_CALLBACKS):
        loop.agent.sensor.on_trip_point(lambda event: None)
    with pytest.raises(BackpressureError):
        loop.agent.sensor.on_trip_point(lambda event: None)
