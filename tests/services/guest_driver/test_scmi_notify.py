"""The registry: from the interrupt to the handlers, registration at any time, and the platform's resets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import BackpressureError, LinkDownError, LocalError, ScmiError
from common.scmi import header
from common.scmi.status import ProtocolId
from services.guest_driver import notify_handlers
from services.guest_driver.notify_events import MAX_PAYLOAD, Event, Notification, ProtocolEvents
from services.guest_driver.scmi_notify import NO_EVENT, NO_ROOM, QUEUED, TOO_LONG
from tests.services.guest_driver.notify_bench import OTHER, SOME, VENDOR, Bench, Ears, payload
from tests.services.guest_driver.scmi_loop import Loop, turns

CLOCK = ProtocolId.CLOCK.value


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.notifications.register_protocol_events(made.events())
    yield made
    await made.world.close()


# --- what comes in ----------------------------------------------------------------------------------------------------


async def test_handlers_run_in_the_worker_and_see_when_it_came(bench: Bench) -> None:
    got: list[Notification] = []
    await bench.notifications.register(VENDOR, SOME, got.append, 2)
    bench.now = 77
    assert bench.come(SOME, payload(2, b"abc")) == QUEUED
    bench.now = 99
    assert got == [], "not in the interrupt"
    bench.work()
    assert got == [Notification(VENDOR, SOME, 2, 77, 2, payload(2, b"abc"))]


async def test_each_ends_in_one_counter(bench: Bench) -> None:
    notifications = bench.notifications
    for _ in range(2):
        assert bench.come(9, payload(1)) == NO_EVENT
        assert bench.come(SOME, payload(1), protocol=0x99) == NO_EVENT
        assert bench.come(SOME, bytes(17)) == TOO_LONG
    assert bench.come(SOME, bytes(16)) == QUEUED, "nobody wants it"
    assert bench.come(OTHER, b"abc") == QUEUED, "too short: only the worker can tell"
    assert bench.come(OTHER, b"") == QUEUED
    bench.work()
    stats, queue = notifications.stats, notifications.queues[VENDOR].stats
    assert (stats.unhandled, stats.no_report) == (1, 2)
    assert (queue.queued, queue.delivered, queue.dropped) == (3, 3, 0)
    assert [event for event, _ in bench.logged] == [
        "unknown notification", "notification is too long", "notification is malformed"
    ]  # fmt: skip


async def test_a_full_queue_drops_and_says_so_once(ears: Ears) -> None:
    bench = Bench()
    bench.notifications.register_protocol_events(bench.events(size=64))
    await bench.notifications.register(VENDOR, SOME, ears.named("a"))
    outcomes = [bench.come(SOME, payload(source)) for source in range(5)]
    assert outcomes == [QUEUED] * 3 + [NO_ROOM] * 2
    bench.work()
    assert ears.take() == [("a", 0), ("a", 1), ("a", 2)]
    assert bench.notifications.queues[VENDOR].stats.dropped == 2
    assert [event for event, _ in bench.logged] == ["notification dropped: the queue is full"]
    assert bench.come(SOME, payload(1)) == QUEUED


async def test_a_record_that_names_no_event_is_skipped(bench: Bench, ears: Ears) -> None:
    await bench.notifications.register(VENDOR, SOME, ears.named("a"))
    bench.notifications.queues[VENDOR].put(9, b"", 0)
    bench.come(SOME, payload(1))
    bench.work()
    assert ears.take() == [("a", 1)]
    assert bench.notifications.stats.no_report == 1


async def test_a_parser_that_raises_does_not_end_the_worker(bench: Bench, ears: Ears) -> None:
    def parse(_payload: bytes) -> int:
        raise IndexError("a vendor's")

    async def enable(_source: int, _on: bool) -> None:
        pass

    notifications = bench.notifications
    notifications.register_protocol_events(
        ProtocolEvents(0x81, (Event(SOME, 16, parse, lambda report: report, enable),), 1)
    )
    await notifications.register(VENDOR, SOME, ears.named("a"))
    notifications.start("vm0")
    assert bench.come(SOME, payload(1), protocol=0x81) == QUEUED
    await turns()
    assert bench.come(SOME, payload(2)) == QUEUED
    async with asyncio.timeout(20):
        await notifications.close()
    assert ears.take() == [("a", 2)]
    assert notifications.stats.no_report == 1


async def test_handlers_that_raise_are_counted(bench: Bench, ears: Ears) -> None:
    def bad(_notification: Notification) -> None:
        raise KeyError("a driver's")

    await bench.notifications.register(VENDOR, SOME, bad)
    await bench.notifications.register(VENDOR, SOME, ears.named("a"), 1)
    bench.come(SOME, payload(1))
    bench.work()
    assert ears.take() == [("a", 1)]
    assert (bench.notifications.stats.handler_failures, bench.notifications.stats.unhandled) == (1, 0)


# --- registration -----------------------------------------------------------------------------------------------------


async def test_the_first_handler_enables_and_the_last_disables(bench: Bench, ears: Ears) -> None:
    notifications = bench.notifications
    one, two, everything = ears.named("one"), ears.named("two"), ears.named("all")
    await notifications.register(VENDOR, SOME, one, 2)
    await notifications.register(VENDOR, SOME, two, 2)
    await notifications.register(VENDOR, SOME, everything)
    assert bench.commands == [(SOME, 2, True), (SOME, 0, True), (SOME, 1, True), (SOME, 3, True)]
    assert bench.asked == 1
    assert await notifications.unregister(VENDOR, SOME, everything)
    assert bench.on == {(SOME, 2)}, "what others need stays"
    assert await notifications.unregister(VENDOR, SOME, one, 2)
    assert bench.on == {(SOME, 2)}
    bench.come(SOME, payload(2))
    bench.work()
    assert ears.take() == [("two", 2)]
    assert not await notifications.unregister(VENDOR, SOME, one, 2)
    assert not await notifications.unregister(VENDOR, SOME, two)
    assert await notifications.unregister(VENDOR, SOME, two, 2)
    assert bench.on == set()
    assert not await notifications.unregister(0x99, SOME, two)


async def test_registrations_at_once_enable_once(bench: Bench, ears: Ears) -> None:
    await asyncio.gather(*(bench.notifications.register(VENDOR, SOME, ears.named(n), 1) for n in "abcd"))
    assert bench.commands == [(SOME, 1, True)]
    bench.come(SOME, payload(1))
    bench.work()
    assert sorted(ears.take()) == [(n, 1) for n in "abcd"]


async def test_what_comes_while_it_is_being_enabled_is_heard(bench: Bench, ears: Ears) -> None:
    bench.gate = asyncio.Event()
    task = asyncio.get_running_loop().create_task(bench.notifications.register(VENDOR, SOME, ears.named("a"), 1))
    await turns()
    bench.come(SOME, payload(1))
    bench.work()
    assert ears.take() == [("a", 1)]
    bench.gate.set()
    await task


async def test_where_it_cannot_be_enabled_there_is_no_handler(bench: Bench, ears: Ears) -> None:
    bench.refuse(SOME, 1)
    for wanted in (1, 4, 7):
        with pytest.raises((ScmiError, LocalError)):
            await bench.notifications.register(VENDOR, SOME, ears.named("a"), wanted)
    with pytest.raises(LocalError, match=r"no notification 0x9"):
        await bench.notifications.register(VENDOR, 9, ears.named("a"))
    bench.come(SOME, payload(1))
    bench.work()
    assert ears.take() == []
    bench.refused.clear()
    await bench.notifications.register(VENDOR, SOME, ears.named("a"), 1)
    assert bench.on == {(SOME, 1)}


async def test_a_cancelled_registration_leaves_nothing(bench: Bench, ears: Ears) -> None:
    bench.gate = asyncio.Event()
    task = asyncio.get_running_loop().create_task(bench.notifications.register(VENDOR, SOME, ears.named("a"), 1))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.notifications.handlers.wanted() == []
    bench.gate.set()
    await bench.notifications.register(VENDOR, SOME, ears.named("b"), 1)
    assert bench.on == {(SOME, 1)}


@pytest.mark.parametrize(
    ("protocol", "event", "source"), [(256, 1, None), (-1, 1, None), (1, 256, None), (1, 1, -1), (1, 1, 1 << 32)]
)
async def test_identifiers_that_cannot_be(bench: Bench, protocol: int, event: int, source: int | None) -> None:
    with pytest.raises(LocalError):
        await bench.notifications.register(protocol, event, lambda _n: None, source)


async def test_a_handler_that_would_never_run_is_refused(bench: Bench) -> None:
    async def handler(_notification: Notification) -> None:
        raise AssertionError("nobody awaits it")

    with pytest.raises(LocalError, match="plain function"):
        await bench.notifications.register(VENDOR, SOME, handler)  # type: ignore[arg-type]
    assert bench.notifications.handlers.wanted() == []


async def test_handlers_are_bounded(bench: Bench) -> None:
    for _ in range(notify_handlers.MAX_HANDLERS):
        await bench.notifications.register(VENDOR, SOME, lambda _n: None, 1)
    with pytest.raises(BackpressureError):
        await bench.notifications.register(VENDOR, SOME, lambda _n: None, 1)


# --- protocols that come late -----------------------------------------------------------------------------------------


async def test_a_handler_waits_for_its_protocol(ears: Ears) -> None:
    bench = Bench()
    notifications = bench.notifications
    gone = ears.named("gone")
    await notifications.register(VENDOR, SOME, ears.named("one"), 1)
    await notifications.register(VENDOR, SOME, gone, 2)
    await notifications.register(VENDOR, SOME, ears.named("all"))
    await notifications.register(0x99, SOME, ears.named("other protocol"))
    assert await notifications.unregister(VENDOR, SOME, gone, 2)
    assert bench.come(SOME, payload(1)) == NO_EVENT
    notifications.register_protocol_events(bench.events())
    await turns(40)
    assert bench.on == {(SOME, source) for source in range(4)}
    bench.come(SOME, payload(1))
    bench.work()
    assert ears.take() == [("all", 1), ("one", 1)]
    assert notifications.stats.late_failed == 0
    await bench.world.close()


async def test_one_that_fails_late_is_logged_and_counted(ears: Ears) -> None:
    bench = Bench()
    notifications = bench.notifications
    for source in (1, 2, 9):
        await notifications.register(VENDOR, SOME, ears.named("a"), source)
    await notifications.register(VENDOR, 7, ears.named("a"))
    bench.refuse(SOME, 1)
    notifications.register_protocol_events(bench.events())
    await turns(40)
    assert notifications.stats.late_failed == 3
    assert [event for event, _ in bench.logged] == ["notification handler dropped"] * 3
    assert bench.on == {(SOME, 2)}
    await bench.world.close()


async def test_bad_tables_are_refused(bench: Bench) -> None:
    with pytest.raises(LocalError, match="registered already"):
        bench.notifications.register_protocol_events(bench.events())
    with pytest.raises(LocalError, match="its largest event needs 32"):
        bench.notifications.register_protocol_events(bench.events(0x99, size=16))
    with pytest.raises(LocalError, match="power of two"):
        bench.notifications.register_protocol_events(bench.events(0x99, size=48))
    assert bench.come(SOME, payload(1), protocol=0x99) == NO_EVENT
    bench.notifications.register_protocol_events(bench.events(0x99, size=32))
    bench.notifications.register_protocol_events(ProtocolEvents(0x9A, (), 0))


# --- resets, the end --------------------------------------------------------------------------------------------------


async def test_a_reset_platform_is_told_again(bench: Bench, ears: Ears) -> None:
    await bench.notifications.register(VENDOR, SOME, ears.named("a"), 1)
    await bench.notifications.register(VENDOR, OTHER, ears.named("b"))
    before = set(bench.on)
    bench.on.clear()
    bench.refused[OTHER, 2] = lambda: LinkDownError("a", "b")
    await bench.notifications.restore()
    assert bench.on < before
    assert bench.notifications.sources.stats.restore_failed == 2
    bench.refused.clear()
    await bench.notifications.restore()
    assert bench.on == before


async def test_a_reset_during_a_registration(bench: Bench, ears: Ears) -> None:
    """The command may have reached the platform that went: it is told again, once the registration is through."""
    bench.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    registration = loop.create_task(bench.notifications.register(VENDOR, SOME, ears.named("a"), 1))
    await turns()
    restore = loop.create_task(bench.notifications.restore())
    await turns()
    bench.gate.set()
    await asyncio.gather(registration, restore)
    assert bench.commands == [(SOME, 1, True)] * 2


async def test_closing_delivers_what_is_queued_and_ends_the_worker(bench: Bench, ears: Ears) -> None:
    await bench.notifications.register(VENDOR, SOME, ears.named("a"))
    bench.notifications.start("test")
    bench.come(SOME, payload(1))
    await bench.notifications.close()
    assert ears.take() == [("a", 1)]
    await turns()
    assert bench.world.actors == 0
    await bench.notifications.close()


async def test_closing_what_never_ran() -> None:
    await Bench().notifications.close()


# --- on the agent -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    made = Loop()
    await made.start()
    yield made
    await made.close()


def trip(source: int, more: bytes = bytes(4)) -> bytes:
    return header.notification(ProtocolId.SENSOR, 0, bytes(4) + source.to_bytes(4, "little") + more)


async def test_the_agent_counts_under_linuxs_names(loop: Loop) -> None:
    stats = loop.agent.stats
    emitted = 0

    def emit(message: bytes) -> None:
        nonlocal emitted
        emitted += 1
        assert loop.core.emit(message)
        loop.settle()

    emit(trip(0))
    emit(trip(0, bytes(8)))  # too long
    emit(header.notification(ProtocolId.SENSOR, 9, bytes(12)))
    emit(header.notification(0x99, 0, bytes(12)))
    emit(header.notification(ProtocolId.SENSOR, 1, bytes(MAX_PAYLOAD)))
    for _ in range(4096):  # the worker does not run
        if not stats.err_msg_nomem:
            emit(trip(0))
    assert (stats.err_msg_invalid, stats.err_msg_unexpected, stats.err_msg_nomem) == (1, 2, 1)
    assert emitted == stats.notification_ok + 4
    await turns()
    assert len(loop.core.buffers) == loop.rx.max_msg, "every buffer is back"


async def test_a_platform_that_restarts_sends_again(loop: Loop) -> None:
    got: list[Notification] = []
    await loop.run(loop.agent.sensor.on_trip_point(got.append))
    loop.restart_device()
    loop.settle()
    await loop.run(loop.agent.notifications.restore())
    await loop.run(loop.agent.sensor.trip_point_config(0, 0, 60000))
    server: Any = loop.agents.platform.protocols[ProtocolId.SENSOR]
    server.override(0, 65000)
    await loop.ticks(10.0)
    assert [one.source for one in got] == [0]
    assert got[0].when == int(loop.now * 1e9)


async def test_a_link_that_is_down_registers_nothing(loop: Loop) -> None:
    loop.agent.detach()
    with pytest.raises(LinkDownError):
        await loop.agent.sensor.on_trip_point(lambda _n: None)
    assert loop.agent.notifications.handlers.wanted() == []


async def test_a_handler_that_takes_itself_back(loop: Loop) -> None:
    heard: list[Any] = []
    notifications = loop.agent.notifications

    def once(notification: Notification) -> None:
        heard.append(asyncio.ensure_future(notifications.unregister(CLOCK, 0, once, 0)))

    await loop.run(notifications.register(CLOCK, 0, once, 0))
    for rate in (400, 300, 400):
        await loop.run(loop.agent.clock.rate_set(0, rate))
        await loop.run(asyncio.gather(*heard))
    assert [task.result() for task in heard] == [True]
    assert notifications.stats.unhandled == 0


async def test_closing_ends_a_registration_that_waits_for_the_platform(loop: Loop) -> None:
    notifications = loop.agent.notifications
    waiting = [asyncio.ensure_future(notifications.register(CLOCK, event, print)) for event in (0, 1)]
    await turns()
    async with asyncio.timeout(20):
        await loop.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [LinkDownError] * 2
    assert notifications.handlers.wanted() == []


async def test_a_platform_that_restarts_is_not_told_of_what_is_being_taken_back(loop: Loop) -> None:
    notifications = loop.agent.notifications
    heard: list[Any] = []
    await loop.run(notifications.register(CLOCK, 0, heard.append))
    gone = asyncio.ensure_future(notifications.unregister(CLOCK, 0, heard.append))
    await turns()
    loop.device_turn()  # the old platform takes the command; its answer is lost with it
    loop.restart_device()
    loop.agent.platform_reset()
    restored = asyncio.ensure_future(notifications.restore())
    assert (await loop.run(asyncio.gather(gone, restored)))[0]
    await loop.run(loop.agent.clock.rate_set(0, 400))
    await loop.run(loop.agent.base.vendor())
    assert loop.agent.stats.notification_ok == 0
