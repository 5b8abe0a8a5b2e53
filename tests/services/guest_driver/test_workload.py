"""The default workload against the real services: it runs, stops, and its books say what happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.guest_driver.hotplug import UnplugBusyError
from services.guest_driver.workload import books
from services.vdpa_nic.config import BackendConfig
from tests.services.guest_driver.mesh_rig import GUARD, Mesh, until, within


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh(drain_seconds=6.0)
    await made.start()
    yield made
    assert await made.stop() == [0] * 4


def spotless(report: dict[str, Any]) -> None:
    for part in ("scmi", "net", "irq"):
        assert {key: report[part][key] for key in ("lost", "duplicated", "corrupted")} == {
            "lost": 0, "duplicated": 0, "corrupted": 0,
        }, (part, report[part])  # fmt: skip


async def test_before_it_ran(mesh: Mesh) -> None:
    report = books([mesh.load])
    assert set(report) == {"scmi", "net", "irq", "its"}
    assert set(report["scmi"]) == {
        "sent", "completed", "polled", "notifications", "timed_out", "re_executed", "refused_after_reset", "lost",
        "duplicated", "corrupted", "rtt_us",
    }  # fmt: skip
    assert set(report["net"]) == {
        "tx", "rx", "re_executed", "reset_dropped", "lost", "duplicated", "corrupted", "map_changes", "rtt_us",
    }  # fmt: skip
    assert set(report["irq"]) == {"raised", "delivered", "coalesced", "lost", "duplicated", "corrupted", "latency_us"}
    assert report["scmi"]["rtt_us"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    assert report["net"]["map_changes"] == 1
    spotless(report)


async def test_it_runs_stops_and_runs_again(mesh: Mesh) -> None:
    load = mesh.load
    for turn in (1, 2):
        tx, commands = load.net.tx, mesh.guest.its.stats.commands
        load.start()
        load.start()  # no second one beside it
        await until(lambda tx=tx: load.net.rx > tx + 300 and load.scmi.books.completed > 50)  # type: ignore[misc]
        await until(lambda turn=turn: mesh.guest.nic.vmm.changes > 1 + turn)  # type: ignore[misc]
        await until(lambda commands=commands: mesh.guest.its.stats.commands > commands)  # type: ignore[misc]
        assert books([load])["scmi"]["lost"] == 0, "what is under way is not lost"
        await within(load.stop())
        report = books([load])
        spotless(report)
        assert report["scmi"]["sent"] == report["scmi"]["completed"]
        assert report["net"]["tx"] == report["net"]["rx"]
        assert report["irq"]["raised"] == report["irq"]["delivered"] + report["irq"]["coalesced"]
        assert load.net.rtt.count == load.net.tx
        assert report["net"]["rtt_us"]["p50"] <= report["net"]["rtt_us"]["max"]
    assert report["scmi"]["polled"] > 0


@pytest.mark.parametrize("name", ["nic", "scmi", "its"])
async def test_a_service_is_restarted_under_load(mesh: Mesh, name: str) -> None:
    load = mesh.load
    load.start()
    await until(lambda: load.net.rx > 100 and load.scmi.books.completed > 20)
    await mesh.restart(name)
    rx, done = load.net.rx, load.scmi.books.completed
    await until(lambda: load.net.rx > rx + 100 and load.scmi.books.completed > done + 20)
    await within(load.stop(), 30)
    report = books([load])
    spotless(report)
    net, scmi = report["net"], report["scmi"]
    assert net["tx"] == net["rx"] - net["re_executed"] + net["reset_dropped"]
    assert scmi["sent"] == scmi["completed"] + scmi["timed_out"]
    if name == "its":
        assert mesh.guest.its_link.stats.restores == 1
        assert mesh.guest.its.stats.restores == 0  # the driver did not notice


async def test_what_a_restart_took_along_is_dropped_and_not_lost(mesh: Mesh) -> None:
    load = mesh.load
    load.net.ledgers[0].make(3, 0)  # as if they had been in the NIC
    await mesh.restart("nic")
    await until(lambda: mesh.guest.nic.bus.restarts == 1)
    await within(load.stop())
    net = books([load])["net"]
    assert (net["lost"], net["reset_dropped"], net["tx"]) == (0, 3, 3)


async def test_what_never_comes_back_is_lost(mesh: Mesh) -> None:
    """The books must be able to say so."""
    load = mesh.load
    load.config.drain_seconds = 0.05
    load.net.ledgers[0].make(3, 0)  # never sent
    mesh.guest.vcpus.lines[0].raised += 2
    load.scmi.books.sent += 1
    await within(load.stop())
    report = books([load])
    assert (report["net"]["lost"], report["irq"]["lost"], report["scmi"]["lost"]) == (3, 2, 1)
    mesh.guest.vcpus.lines[0].raised -= 2


async def test_an_action_that_fails_is_put_off(mesh: Mesh) -> None:
    load = mesh.load
    mesh.guest.nic.vmm.calls.detach("test")
    load.start()
    await asyncio.sleep(0.12)
    assert mesh.guest.nic.vmm.changes == 1
    mesh.guest.nic.vmm.calls.attach(mesh.guest._clients[2].link)
    await until(lambda: mesh.guest.nic.vmm.changes > 2)
    await within(load.stop())
    spotless(books([load]))


async def test_a_dimm_whose_buffers_are_in_use_is_put_off_without_a_word(mesh: Mesh) -> None:
    load, hotplug, tries = mesh.load, mesh.guest.nic.hotplug, 0

    async def busy() -> None:
        nonlocal tries
        tries += 1
        raise UnplugBusyError("3 buffers")

    hotplug.change = busy
    load.start()
    await until(lambda: tries > 2)
    await within(load.stop())
    spotless(books([load]))


async def test_the_control_queue_is_used_while_maps_change(mesh: Mesh) -> None:
    load, ctrl, state = mesh.load, mesh.guest.nic.ctrl, mesh.services["nic"].attachments["guest0"].device.core.state
    load.start()
    seen: set[bool] = set()
    async with asyncio.timeout(GUARD):
        while seen != {False, True}:
            await asyncio.sleep(0.005)
            seen.add(state.allmulti)
    commands = ctrl.commands
    async with ctrl._mutex:  # one is under way: no others wait behind it
        await until(lambda: load._commanding)
        changes = mesh.guest.nic.vmm.changes
        await until(lambda: mesh.guest.nic.vmm.changes > changes + 2)
    await until(lambda: ctrl.commands > commands)
    await within(load.stop())
    assert ctrl.refused == 0
    spotless(books([load]))


async def test_a_command_that_the_nic_refuses_is_logged_and_no_end(mesh: Mesh) -> None:
    load, ctrl = mesh.load, mesh.guest.nic.ctrl
    mesh.services["nic"].attachments["guest0"].device.core._control._features = 0
    load.start()
    await until(lambda: ctrl.refused > 1)
    await within(load.stop())
    spotless(books([load]))


async def test_indices_that_disagree_make_the_run_wrong(mesh: Mesh) -> None:
    load = mesh.load
    await within(load.stop())
    mesh.guest.nic.indices.wrong += 1
    assert books([load])["net"]["corrupted"] == 1


async def test_a_nic_that_replays(mesh: Mesh) -> None:
    """What it plays must be the capture, before and after it restarts; what is sent is not expected back."""
    await mesh.stop("guest", "nic")
    mesh.backend = BackendConfig(kind="replay", rate=4000.0)
    mesh.workload["net"] = "replay"
    await mesh.start("nic", "guest")
    load = mesh.load
    load.start()
    await until(lambda: load.net.rx > 500)
    await mesh.restart("nic")
    rx, tx = load.net.rx, load.net.tx
    await until(lambda: load.net.rx > rx + 500 and load.net.tx > tx + 100)
    await within(load.stop())
    spotless(books([load]))


async def test_a_replay_of_another_capture_is_noticed(mesh: Mesh) -> None:
    await mesh.stop("guest", "nic")
    mesh.backend = BackendConfig(kind="replay", rate=4000.0)
    mesh.workload |= {"net": "replay", "net_window": 0}
    await mesh.start("nic", "guest")
    mesh.load.net.ledgers[0]._where.clear()
    mesh.load.net.ledgers[0]._frames[:] = [b"other"] * len(mesh.load.net.ledgers[0]._frames)
    await until(lambda: mesh.load.net.total("corrupted"))


async def test_second_copies_that_the_platform_is_told_to_send_are_not_held_against_it(mesh: Mesh) -> None:
    load, agent = mesh.load, mesh.guest.agent.stats
    await within(load.stop())
    load.scmi.books.later = 3
    agent.err_msg_unexpected += 2
    agent.err_msg_invalid += 1
    report = books([load])["scmi"]
    assert (report["duplicated"], report["corrupted"]) == (2, 1), "nobody told it to"
    mesh.guest.config.faults.delayed_twice = 0.5
    spotless(books([load]))
    agent.err_msg_invalid += 1
    report = books([load])["scmi"]
    assert (report["duplicated"], report["corrupted"]) == (1, 0), "each asynchronous command may have one"
    mesh.guest.config.faults.delayed_twice = 0.0


async def test_a_message_that_leaks_makes_the_run_wrong(mesh: Mesh) -> None:
    load = mesh.load
    load.start()
    await until(lambda: load.scmi.books.completed > 20)
    assert load.scmi.census.stats.violations == 0
    assert mesh.guest.scmi.tx_channel.get_free_msg() is not None
    await until(lambda: load.scmi.census.stats.violations == 1)
    await within(load.stop())
    assert books([load])["scmi"]["corrupted"] == 1
    metrics = mesh.services["guest"].metrics
    assert metrics.value("ringmesh_scmi_census_violations_total", guest="guest0") == 1
    where = {
        state: metrics.value("ringmesh_scmi_messages", guest="guest0", state=state)
        for state in ("free", "ring", "pending", "poller")
    }
    assert where == {"free": 127, "ring": 0, "pending": 0, "poller": 0}
    assert metrics.value("ringmesh_scmi_max_msg", guest="guest0") == 128


async def test_an_action_that_dies_is_heard_of_and_the_books_are_closed_all_the_same(mesh: Mesh) -> None:
    load, died = mesh.load, asyncio.Event()

    async def broken() -> None:
        died.set()
        raise ZeroDivisionError

    mesh.guest.inv = broken
    load.start()
    await until(lambda: load.net.rx > 100 and load.scmi.books.completed > 20)
    await within(died.wait())
    with pytest.raises(ZeroDivisionError):
        await within(load.stop())
    assert load.net.outstanding == load.lost_frames == 0
    spotless(books([load]))
    await within(load.stop())
