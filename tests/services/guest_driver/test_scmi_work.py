"""The SCMI load against the real platform: what it asks, how it checks, and that its books balance in every case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ChannelBusyError, LinkDownError, ScmiError, XferTimeoutError
from common.scmi import header, sensor
from common.scmi.status import Status
from services.guest_driver.scmi_driver import CMDQ
from services.guest_driver.scmi_notify import QUEUED
from services.guest_driver.workload import books
from services.scmi_platform.platform import Platform
from tests.services.guest_driver.mesh_rig import Mesh, until, within


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh(map_seconds=0.0, inv_seconds=0.0, net_window=0, scmi_workers=3, drain_seconds=5.0)
    await made.start()
    yield made
    assert await made.stop() == [0] * 4


def balance(mesh: Mesh) -> int:
    """Commands sent of which nobody knows what became."""
    books = mesh.load.scmi.books
    return int(books.sent - books.completed - books.timed_out)


async def test_what_it_finds_out(mesh: Mesh) -> None:
    known = mesh.load.scmi._known
    assert known.vendor
    assert known.clocks
    assert all(len(set(rates)) > 1 for rates in known.clocks.values())
    assert set(known.defaults) == set(known.clocks)
    assert known.sensors


BOARD = '[platform]\nvendor = "acme"\n[[agents]]\nname = "OSPM"\n'
CLOCK = '[[clocks]]\nname = "{}"\nrates = [1, 2]\nrate = 1\n{}'
SENSOR = '[[sensors]]\nname = "t"\ntype = "degrees_c"\nmax = 9\ntrip_points = [{ value = 5 }]\nsignal = { base = 4 }\n'


@pytest.mark.parametrize(
    ("more", "settable", "chased"),
    [
        ("", [], []),
        (CLOCK.format("fixed", "restricted = ['rate']\n") + CLOCK.format("uart", ""), [1], []),
        (SENSOR, [], [0]),
    ],
    ids=["nothing", "one clock of two may be set, no sensors", "trip points without intervals, no clocks"],
)
async def test_any_board_will_do(more: str, settable: list[int], chased: list[int], tmp_path: Path) -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, net_window=0, scmi_workers=2, drain_seconds=5.0)
    board = tmp_path / "board.toml"
    board.write_text(BOARD + more)
    mesh.board = str(board)
    await mesh.start()
    work = mesh.load.scmi
    assert list(work._known.clocks) == settable
    assert list(work._known.chased) == chased
    work.start()
    await until(lambda: work.books.completed > 50)
    await within(work.stop())
    assert (work.books.corrupted, work.books.failed, work.books.timed_out) == (0, 0, 0)
    assert await mesh.stop() == [0] * 4


async def test_it_runs_and_is_notified(mesh: Mesh) -> None:
    work = mesh.load.scmi
    work.start()
    await until(lambda: work.books.completed > 200 and work.books.notifications)
    await within(work.stop())
    books = work.books
    assert balance(mesh) == 0
    assert (books.corrupted, books.failed, books.timed_out, books.refused_after_reset) == (0, 0, 0, 0)
    assert 0 < books.polled < books.completed
    assert books.rtt.count
    await within(work.stop())  # there is nothing to stop


async def test_it_is_notified_again_by_a_platform_that_restarted(mesh: Mesh) -> None:
    work = mesh.load.scmi
    work.start()
    await until(lambda: work.books.notifications)
    await mesh.restart("scmi")
    await until(lambda: mesh.guest.scmi_bus.restarts == 1)
    before = work.books.notifications
    await until(lambda: work.books.notifications > before)
    await within(work.stop())
    assert work.books.corrupted == 0


@pytest.mark.parametrize(
    ("number", "trip_point", "size"),
    [(99, 0, 12), (None, 0xFF, 12), (None, 0, 4)],
    ids=["no such sensor", "no such trip point", "too short"],
)
async def test_wrong_notifications_are_noticed(mesh: Mesh, number: int | None, trip_point: int, size: int) -> None:
    work = mesh.load.scmi
    about = min(work._known.chased) if number is None else number
    payload = sensor.TRIP_POINT_EVENT.pack(0, about, trip_point)[:size]
    work.start()
    word = header.pack(0x15, 0, 0, header.NOTIFICATION)
    assert mesh.guest.agent.notifications.notify(word, header.notification(0x15, 0, payload)) == QUEUED
    await until(lambda: work.books.completed > 10)
    await within(work.stop())
    assert work.books.corrupted == 1
    work.start()
    await within(work.stop())
    assert work.books.corrupted == 1


async def test_wrong_answers_are_noticed(mesh: Mesh) -> None:
    work = mesh.load.scmi
    clock = min(work._known.clocks)
    assert await work._rate_set(clock, work._known.clocks[clock][0], False)
    assert await work._rate_get(clock, True)
    work._rates[clock] += 1
    assert not await work._rate_get(clock, False)
    del work._rates[clock]
    assert await work._rate_get(clock, False), "one that it sets, or the default"
    work._known.clocks[clock], work._known.defaults[clock] = [1, 2], 3
    assert not await work._rate_get(clock, False)
    work._known.vendor += "x"
    await work._do("vendor", work._vendor, False)
    assert work.books.corrupted == 1
    assert balance(mesh) == 0


async def test_a_rate_that_a_restart_made_uncertain_is_not_held_against_the_platform(mesh: Mesh) -> None:
    work = mesh.load.scmi
    clock = min(work._known.clocks)
    rate = next(r for r in work._known.clocks[clock] if r != work._known.defaults[clock])
    await work._rate_set(clock, rate, False)
    await mesh.restart("scmi")
    await until(lambda: mesh.guest.scmi_bus.restarts == 1)
    assert await within(work._rate_get(clock, False))
    assert work._rates == {}


async def test_one_in_so_many_commands_is_asynchronous(mesh: Mesh) -> None:
    work = mesh.load.scmi
    assert work._known.slow
    work.start()
    stats = mesh.guest.agent.stats
    await until(lambda: stats.delayed_response_ok > 20)
    await within(work.stop())
    assert work.books.completed / 24 < stats.delayed_response_ok < work.books.completed / 8
    assert balance(mesh) == work.books.corrupted == 0
    assert (work._async_rates, work._async_readings) == (0, 0)


async def test_no_more_asynchronous_commands_than_the_platform_takes(mesh: Mesh) -> None:
    work = mesh.load.scmi
    clock = min(work._known.clocks)
    work._async_readings = work._known.async_readings
    assert await within(work._do_async(0, clock)), "a rate change instead"
    assert not await within(work._do_async(0, None))
    work._async_readings, work._async_rates = 0, work._known.async_rates
    assert await within(work._do_async(1, clock)), "a reading instead"
    assert (work.books.completed, work.books.corrupted, work.books.rtt.count) == (2, 0, 0)


async def test_a_wrong_delayed_response_is_noticed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    work = mesh.load.scmi

    async def other(_client: object, clock: int, rate: int) -> tuple[int, int]:
        return clock, rate + 1

    monkeypatch.setattr(type(mesh.guest.agent.clock), "rate_set_async", other)
    assert await work._do_async(1, min(work._known.clocks))
    assert work.books.corrupted == 1


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("mine", [True, False])
async def test_a_delayed_response_that_is_lost_with_the_platform_is_refused(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, mine: bool, taken: bool
) -> None:
    """Whether the driver has taken the response itself before the platform goes, or it waits on the ring."""
    work, later = mesh.load.scmi, Platform.later

    def much_later(platform: Any, agent: Any, request: bytes, _seconds: float, *rest: Any) -> bool:
        return later(platform, agent, request, 600.0, *rest)

    monkeypatch.setattr(Platform, "later", much_later)
    clock = min(work._known.clocks) if mine else None
    line = mesh.guest.vcpus.lines[CMDQ]
    await until(mesh.guest.vcpus.settled)
    delivered = line.delivered
    if not taken:
        line.handler = lambda: None
    task = asyncio.get_running_loop().create_task(work._do_async(1, clock))
    in_flight = mesh.guest.agent.in_flight
    await until(lambda: line.delivered > delivered)
    assert any(in_flight[token].awaits_delayed for token in in_flight) == taken
    await mesh.restart("scmi")
    await within(task, 5.0)
    assert (work.books.sent, work.books.completed, work.books.refused_after_reset) == (1, 1, 1)
    mesh.guest.scmi_port.queues[CMDQ].again_sent = 2
    report = books([mesh.load])["scmi"]
    assert (report["refused_after_reset"], report["re_executed"], report["timed_out"]) == (1, 2, 0)
    assert (report["lost"], report["duplicated"], report["corrupted"]) == (0, 0, 0)


TROUBLES: list[tuple[Callable[[], Exception], dict[str, int]]] = [
    (lambda: ScmiError("trip", Status.COMMS_ERROR), {"refused_after_reset": 1}),
    (lambda: ScmiError("trip", Status.DENIED), {"corrupted": 1}),
    (lambda: XferTimeoutError("trip", 1.0), {"timed_out": 1}),
    (lambda: ChannelBusyError("full"), {}),
]


@pytest.mark.parametrize(("trouble", "counted"), TROUBLES)
@pytest.mark.parametrize("which", ["reading_get", "trip_point_config"])
async def test_the_books_balance_whichever_of_two_commands_fails(
    mesh: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[], Exception],
    counted: dict[str, int],
    which: str,
) -> None:
    work, sensor = mesh.load.scmi, mesh.guest.agent.sensor

    async def fail(*_args: Any, **_kwargs: Any) -> None:
        raise trouble()

    monkeypatch.setattr(type(sensor), which, fail)
    await work._move(next(iter(work._known.chased.values())))
    assert balance(mesh) == 0
    books = work.books
    for key in ("refused_after_reset", "corrupted", "timed_out"):
        assert getattr(books, key) == counted.get(key, 0)


async def test_a_command_that_nobody_answers_for_is_lost(mesh: Mesh) -> None:
    work = mesh.load.scmi

    async def gone(_poll: bool) -> bool:
        raise LinkDownError("scmi", "x")

    await work._do("x", gone, False)
    assert work.books.failed == 1
    assert balance(mesh) == 1


async def test_a_platform_without_sensors_and_clocks(mesh: Mesh) -> None:
    work = mesh.load.scmi
    work._known.clocks.clear()
    work._known.sensors.clear()
    work._known.chased.clear()
    work._known.slow.clear()
    work.start()
    await until(lambda: work.books.completed > 40)
    await within(work.stop())
    assert balance(mesh) == work.books.corrupted == 0


async def test_a_worker_that_dies_is_heard_of(mesh: Mesh) -> None:
    work = mesh.load.scmi

    async def broken(_poll: bool) -> bool:
        raise ZeroDivisionError

    work._vendor = broken
    work.start()
    await asyncio.sleep(0.05)
    with pytest.raises(ZeroDivisionError):
        await within(work.stop())


async def test_a_wrong_name_is_noticed(mesh: Mesh) -> None:
    work = mesh.load.scmi
    assert await work._clock_name(1, False)
    assert await work._clock_name(1, True)
    assert work._known.names[0] != work._known.names[1]
    work._known.names[1] = work._known.names[0]
    assert not await work._clock_name(1, False)


@pytest.mark.parametrize("later", [False, True])
async def test_a_rate_whose_change_timed_out_is_not_held_against_the_platform(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """Carried out or not, and, where it is asynchronous, when."""
    work, client = mesh.load.scmi, type(mesh.guest.agent.clock)
    clock = min(work._known.clocks)
    first, second = work._known.clocks[clock][:2]
    assert await work._rate_set(clock, first, False)

    async def silent(*_args: Any, **_kwargs: Any) -> None:
        raise XferTimeoutError("rate_set", 1.0)

    name = "rate_set_async" if later else "rate_set"
    with monkeypatch.context() as patch:
        patch.setattr(client, name, silent)
        if later:
            await work._do(name, lambda _poll: work._rate_set_async(clock, second), False, later=True)
        else:
            await work._do(name, lambda poll: work._rate_set(clock, second, poll), False)
    books = work.books
    assert (books.sent, books.timed_out, books.later, balance(mesh)) == (1, 1, int(later), 0)
    assert clock not in work._rates
    assert await work._rate_get(clock, False)
    assert await work._rate_set(clock, first, False)
    # a change that takes effect in the order of the ring is behind that one; the other may still come
    assert (work._rates.get(clock) is None) == later
    await mesh.guest.agent.clock.rate_set(clock, second)
    assert await work._rate_get(clock, False) == later
    work._unsure.clear()
    await work._rate_set(clock, first, False)
    assert work._rates[clock] == first


async def test_a_broken_queue_ends_the_workers_and_is_told_once(mesh: Mesh) -> None:
    work, port = mesh.load.scmi, mesh.guest.scmi_port
    work.start()
    await until(lambda: work.books.completed > 20)
    port._push(port.queues[CMDQ], port.queues[CMDQ].ring, [(255, 0)])
    await until(lambda: mesh.guest.agent.stats.channels_broken)
    await within(asyncio.wait(work._workers[:3]))
    assert 1 <= work.books.failed <= 4
    assert balance(mesh) == work.books.failed
    assert work._told == {"RingError"}
    assert work.census.stats.violations == 0
    await within(work.stop())


async def test_a_message_that_the_worker_never_gets_is_noticed_at_the_end(mesh: Mesh) -> None:
    work, tx = mesh.load.scmi, mesh.guest.scmi.tx_channel
    work._config.drain_seconds = 0.1
    work.start()
    # a worker that has been told already would take it
    await until(lambda: work.books.completed > 20 and not tx.deferred_tx_wq._items)
    msg = tx.get_free_msg()
    tx.pending_cmds_list.append(msg)
    tx.deferred_tx_work.pending.store(1)  # nobody can queue it
    await within(work.stop())
    assert work.census.stats.violations == 1
    tx.pending_cmds_list.remove(msg)
    tx.msg_release(msg)
