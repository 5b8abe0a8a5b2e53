"""The guest service: readiness, routes, metrics, ordered stop; two guests against the real services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.errors import ConfigError
from common.runtime.config import PeerConfig
from services.guest_driver.config import GuestConfig, WorkloadConfig
from services.guest_driver.shell import GuestService
from tests.services.guest_driver.mesh_rig import TOKEN, Mesh, stop_all, until, within


@pytest.fixture(autouse=True)
async def no_mesh_is_left() -> AsyncIterator[None]:
    yield
    await stop_all()


async def ask(mesh: Mesh, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    port = mesh.services["guest"].admin.port
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.request(
            method, f"http://127.0.0.1:{port}{path}", json=(body or {}) if method == "POST" else None
        ) as answer,
    ):
        kind = answer.content_type
        return answer.status, await (answer.json() if kind == "application/json" else answer.text())


async def test_routes_and_metrics() -> None:
    mesh = Mesh()
    mesh.guests = 2
    await mesh.start()
    service = mesh.services["guest"]
    assert (await ask(mesh, "GET", "/report"))[1]["net"]["tx"] == 0
    assert await ask(mesh, "POST", "/workload/start") == (200, {"guests": 2})
    await until(lambda: all(load.net.rx > 100 and load.scmi.books.completed > 20 for load in service.loads))
    value = service.metrics.value
    assert value("ringmesh_net_tx_total", guest="guest1", pair="0") > 100
    assert value("ringmesh_port_kicks_total", guest="guest0", device="nic") > 0
    assert value("ringmesh_net_pair_tx_kicks_total", guest="guest1", pair="0") > 0
    assert value("ringmesh_net_pair_rx_buffers_total", guest="guest1", pair="0") > 100
    assert value("ringmesh_vdpa_stranded_buffers", guest="guest0", queue="ctrl") == 0
    assert value("ringmesh_queue_depth", queue="rx0") > 0
    for protocol in ("0x10", "0x14", "0x15"):
        assert value("ringmesh_scmi_events_dropped_total", guest="guest1", protocol=protocol) == 0
    await until(lambda: value("ringmesh_scmi_xfers_inflight", guest="guest1") > 0)
    assert value("ringmesh_scmi_notify_unhandled_total", guest="guest0") == 0
    assert value("ringmesh_scmi_notify_enable_failed_total", guest="guest0") == 0
    status, report = await within(ask(mesh, "POST", "/workload/stop"))
    assert status == 200
    assert report == (await ask(mesh, "GET", "/report"))[1]
    for part in ("scmi", "net", "irq"):
        assert report[part]["lost"] == report[part]["duplicated"] == report[part]["corrupted"] == 0
    assert value("ringmesh_scmi_xfers_inflight", guest="guest1") == 0
    assert report["net"]["tx"] == report["net"]["rx"] > 200
    text = service.metrics.render().decode()
    for queue in ("cmdq", "rx0", "tx0", "ctrl"):
        assert f'ringmesh_poll_latency_seconds_count{{queue="{queue}",service="guest"}}' in text
    assert await mesh.stop() == [0] * 4


async def test_tracing() -> None:
    mesh = Mesh()
    await mesh.start()
    assert (await ask(mesh, "GET", "/tracing"))[1]["guests"] == {"guest0": []}
    assert (await ask(mesh, "POST", "/tracing", {"enable": True, "event": []}))[0] == 400
    status, said = await ask(mesh, "POST", "/tracing", {"enable": True, "events": ["scmi_fc_call"]})
    assert status == 400
    assert "events" in str(said)
    status, state = await ask(mesh, "POST", "/tracing", {"enable": True, "events": ["scmi_msg_dump"]})
    assert (status, state["guests"]) == (200, {"guest0": ["scmi_msg_dump"]})
    assert await within(mesh.guest.agent.base.vendor())
    held = (await ask(mesh, "GET", "/tracing/trace"))[1]["lines"]
    assert any("scmi_msg_dump: id=0 ch=10 pt=10 t=CMND msg_id=03 seq=" in line for line in held)
    assert all(line.startswith("          guest0-0 ") for line in held)
    assert (await ask(mesh, "POST", "/tracing", {"enable": False}))[1]["guests"] == {"guest0": []}
    assert (await ask(mesh, "POST", "/tracing/pipe"))[1] == {"lines": held, "overwritten": 0}
    assert (await ask(mesh, "GET", "/tracing/trace"))[1] == {"lines": [], "overwritten": 0}
    value = mesh.services["guest"].metrics.value
    assert value("ringmesh_scmi_trace_recorded_total") == len(held)
    assert value("ringmesh_scmi_trace_overwritten_total") == 0
    assert await mesh.stop() == [0] * 4


async def test_autostart_and_a_stop_that_drains() -> None:
    mesh = Mesh(autostart=True)
    await mesh.start()
    load = mesh.load
    await until(lambda: load.net.rx > 100)
    assert await mesh.stop("guest") == [0]
    assert not load.running
    assert load.lost_frames == load.net.outstanding == 0
    assert not mesh.services["guest"].guests[0].ready
    assert await mesh.stop() == [0] * 3


async def test_before_the_guests_are_up() -> None:
    """No service is there: the guest waits, says so, starts no load, and stops when told to."""
    mesh = Mesh()
    mesh.ports = {"its": 1, "scmi": 1, "nic": 1}
    service = mesh._make("guest")
    mesh.services["guest"] = service
    mesh.tasks["guest"] = asyncio.get_running_loop().create_task(service.run())
    await until(lambda: not service._phase)
    assert "guests are not up" in service.not_ready()
    status, said = await ask(mesh, "POST", "/workload/start")
    assert status >= 400
    assert "not up yet" in str(said)
    assert await mesh.stop() == [0]


@pytest.mark.parametrize("content", [None, b"no capture"])
def test_a_capture_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "frames.pcap"
    if content is not None:
        path.write_bytes(content)
    peer = PeerConfig(port=1)
    with pytest.raises(ConfigError) as caught:
        GuestService(GuestConfig(scmi=peer, nic=peer, its=peer, workload=WorkloadConfig(pcap=str(path))))
    assert caught.value.key == "workload.pcap"


def test_queue_pairs_for_which_memory_is_too_small() -> None:
    peer = PeerConfig(port=1)
    with pytest.raises(ConfigError, match="64 queue pairs of 512 entries need"):
        GuestService(GuestConfig(scmi=peer, nic=peer, its=peer, net_pairs=64))


async def test_four_pairs_and_their_metrics() -> None:
    mesh = Mesh(net_window=32, map_seconds=0.001)
    mesh.pairs = 4
    await mesh.start()
    service, load = mesh.services["guest"], mesh.load
    assert (await ask(mesh, "POST", "/workload/start"))[0] == 200
    await until(lambda: min(ledger.rx for ledger in load.net.ledgers) > 50 and mesh.guest.nic.vmm.changes > 20)
    value = service.metrics.value
    await until(lambda: value("ringmesh_hotplug_unplugged_total", guest="guest0") > 5)
    assert value("ringmesh_vq_state_checked_total", guest="guest0") > 50
    for pair in "0123":
        for name in ("tx_kicks", "tx_buffers", "tx_interrupts", "rx_kicks", "rx_buffers", "rx_interrupts"):
            assert value(f"ringmesh_net_pair_{name}_total", guest="guest0", pair=pair) > 0, name
    text = service.metrics.render().decode()
    for queue in ("rx0", "tx3", "ctrl"):
        assert f'ringmesh_queue_depth{{queue="{queue}",service="guest"}}' in text
    body = {"guest": "guest0", "queue": "tx3", "store": "saved", "kick": "created"}
    status, state = await ask(mesh, "POST", "/holds", body)
    assert (status, list(state["guest0"])) == (200, ["tx3"])
    await until(lambda: not mesh.guest.nic_port.hook)
    status, said = await ask(mesh, "POST", "/holds", body | {"queue": "tx4"})
    assert status == 400
    assert "tx0, tx1, tx2, tx3" in str(said)
    status, report = await within(ask(mesh, "POST", "/workload/stop"))
    assert status == 200
    net = report["net"]
    assert (net["lost"], net["duplicated"], net["corrupted"], net["tx"]) == (0, 0, 0, net["rx"])
    assert await mesh.stop() == [0] * 4
