"""The protocol clients against the real platform, sleeping and polling."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import base, clock, sensor
from common.scmi.status import ProtocolId, Status
from services.guest_driver.notify_events import Notification
from services.guest_driver.scmi_client import went_on
from services.guest_driver.scmi_clock import ClockClient
from services.guest_driver.scmi_sensor import SensorClient
from tests.services.guest_driver.scmi_loop import Loop, check_waits


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
    check_waits(loop, poll)


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


@pytest.mark.parametrize(
    ("threshold", "atomic", "polled", "asked"),
    [
        (7, True, True, True),  # as long as clock 0 takes
        (6, True, False, True),
        (0, True, False, False),  # nothing to ask for
        (7, False, False, False),
    ],
)
async def test_a_clock_is_polled_for_within_the_threshold(
    threshold: int, atomic: bool, polled: bool, asked: bool
) -> None:
    loop = Loop(threshold_us=threshold, atomic=atomic)
    await loop.start()
    client, stats = loop.agent.clock, loop.agent.stats
    for number in range(2):
        before = stats.sent_ok
        await loop.run(client.config_set(0, True))
        assert stats.sent_ok - before == (1 if number else 2 + asked), "version and latency are asked for once"
    assert await loop.run(client.config_get(0))
    assert stats.response_polled_ok == (4 if polled else 0)
    assert client.enable_latencies.get(0) == (7 if asked else None)
    await loop.world.close()


async def test_a_clock_polls_as_it_is_told_and_not_where_the_latency_is_unknown() -> None:
    loop = Loop(threshold_us=1000)
    await loop.start()
    client, stats = loop.agent.clock, loop.agent.stats
    await loop.run(client.config_set(0, True, poll=False))
    await loop.run(client.config_get(0, poll=False))
    assert (stats.sent_ok, stats.response_polled_ok) == (3, 0)  # and once the version
    await loop.run(client.config_set(1, True, poll=True))
    await loop.run(client.config_get(1, poll=True))
    assert (stats.sent_ok, stats.response_polled_ok) == (5, 2)
    # clock 1 does not say how long it takes: 0 is for ever
    assert (await loop.run(client.clock_attributes(1))).enable_latency == 0
    await loop.run(client.config_set(1, False))
    assert not await loop.run(client.config_get(1))
    assert (stats.sent_ok, stats.response_polled_ok) == (8, 2), "clock_attributes() has told"
    await loop.world.close()


async def test_sensor(loop: Loop, poll: bool) -> None:
    client = loop.agent.sensor

    async def work() -> None:
        assert (await client.attributes(poll=poll)).sensors == 3
        found = await client.discover(poll=poll)
        assert [await client.descriptor(one.id, poll=poll) for one in found] == found
        with pytest.raises(ScmiError):
            await client.descriptor(len(found), poll=poll)
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


@pytest.mark.parametrize("reply", ["another", "none"])
async def test_no_other_sensor_is_taken_for_the_one_asked_for(loop: Loop, reply: str) -> None:
    payload = sensor.DESCRIPTION_GET.pack(0)
    first = bytes(await loop.run(loop.agent.do_xfer(sensor.PROTOCOL, sensor.Command.SENSOR_DESCRIPTION_GET, payload)))

    class Firmware:
        async def do_xfer(self, *_args: object, **_kwargs: object) -> bytes:
            return first if reply == "another" else bytes(4)

    agent: Any = Firmware()
    assert await SensorClient(agent).descriptor(1) is None


async def test_a_sensor_that_crosses_its_trip_point(loop: Loop, poll: bool) -> None:
    client = loop.agent.sensor
    events: list[sensor.TripEvent] = []
    everything: list[Notification] = []

    async def work() -> None:
        await client.on_trip_point(lambda one: events.append(one.report), 0)
        await client.on_trip_point(everything.append)
        await client.trip_point_config(0, 0, 60000, poll=poll)

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
    await loop.run(client.notify_trip_points(0, False, poll=poll))  # by hand
    server.override(0, 65000)
    await loop.ticks(10.0)
    assert len(events) == 2


async def test_updates_and_rate_changes(loop: Loop) -> None:
    updates: list[Notification] = []
    rates: list[Notification] = []
    requests: list[Notification] = []
    await loop.run(loop.agent.sensor.on_update(updates.append, 1))
    await loop.run(loop.agent.clock.on_rate_changed(rates.append, 0))
    await loop.run(loop.agent.clock.on_rate_change_requested(requests.append))
    await loop.run(loop.agent.clock.rate_set(0, 900))
    await loop.ticks(10.0)
    assert [reading.value for reading in updates[0].report.readings] == [-5, 981]
    assert rates[0].report == requests[0].report == clock.RateEvent(1, 0, 900)
    assert (rates[0].event, requests[0].event) == (0, 1)


async def test_notifications_to_iterate_over(loop: Loop) -> None:
    agent = loop.agent

    async def work() -> None:
        async with (
            agent.sensor.updates() as updates,
            agent.sensor.trip_points(0) as trips,
            agent.clock.rate_changes(0) as rates,
            agent.clock.rate_change_requests(0) as requests,
            agent.base.errors() as errors,
        ):
            await agent.sensor.trip_point_config(0, 0, 60000)
            server: Any = loop.agents.platform.protocols[ProtocolId.SENSOR]
            server.override(0, 65000)
            await agent.clock.rate_set(0, 900)
            with pytest.raises(ScmiError):
                await agent.do_xfer(ProtocolId.CLOCK, clock.Command.CLOCK_RATE_GET)
            await loop.ticks(10.0)
            assert {(await anext(updates)).source for _ in range(2)} == {0, 1}, "those that have updates"
            assert (await anext(trips)).report.rising
            assert (await anext(rates)).report == (await anext(requests)).report == clock.RateEvent(1, 0, 900)
            assert len((await anext(errors)).report.reports) == 1

    await loop.run(work())
    platform = loop.agents.platform
    assert not any(agents for domains in platform._subscribers.values() for agents in domains.values())


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
    await loop.run(loop.agent.base.on_error(reports.append))
    with pytest.raises(ScmiError):  # too short: the platform calls that a broken protocol
        await loop.run(loop.agent.do_xfer(ProtocolId.CLOCK, clock.Command.CLOCK_RATE_GET))
    await loop.ticks(1.0)
    event = reports[0].report
    assert reports[0].source == 0
    assert [status for _, status in event.reports] == [Status.PROTOCOL_ERROR]


async def test_no_such_command(loop: Loop) -> None:
    with pytest.raises(ScmiError) as raised:
        await loop.run(loop.agent.clock.message_attributes(0x77))
    assert raised.value.status == Status.NOT_FOUND
    with pytest.raises(ScmiError):
        await loop.run(loop.agent.clock.negotiate(0x40000))


def test_an_iteration_that_makes_no_progress_ends() -> None:
    assert went_on("X", 1, 1, None)
    assert not went_on("X", 0, 0, None)
    with pytest.raises(ScmiError, match="none returned"):
        went_on("X", 0, 3, None)


def test_an_iteration_that_grows_ends() -> None:
    assert went_on("X", 1, 8, 9)
    assert not went_on("X", 1, 0, 9), "fewer than promised is no endless loop"
    with pytest.raises(ScmiError, match="1 returned, 9 remaining, of 9"):
        went_on("X", 1, 9, 9)


class Replies:
    """An agent whose platform answers with these (what is listed, how many remain), whatever it is asked."""

    def __init__(self, *replies: tuple[list[int], int]) -> None:
        self.replies = [clock.build_parents(*one) for one in replies]
        self.asked: list[bytes] = []

    async def do_xfer(self, _protocol: int, _message: int, payload: bytes, **_kwargs: Any) -> bytes:
        self.asked.append(payload)
        return self.replies.pop(0)


async def test_a_list_of_several_messages() -> None:
    agent: Any = Replies(([4, 5], 2), ([6, 7], 0))
    assert await ClockClient(agent, {}).parents(3) == [4, 5, 6, 7]
    assert agent.asked == [clock.POSSIBLE_PARENTS.pack(3, 0), clock.POSSIBLE_PARENTS.pack(3, 2)]


async def test_a_list_that_never_ends() -> None:
    agent: Any = Replies(([4], 2), ([5], 2), ([6], 0))
    with pytest.raises(ScmiError, match=r"CLOCK_POSSIBLE_PARENTS_GET .* 1 returned, 2 remaining, of 2"):
        await ClockClient(agent, {}).parents(3)
    assert len(agent.asked) == 2
