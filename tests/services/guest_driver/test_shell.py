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


async def ask(mesh: Mesh, method: str, path: str) -> tuple[int, Any]:
    port = mesh.services["guest"].admin.port
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.request(method, f"http://127.0.0.1:{port}{path}", json={} if method == "POST" else None) as answer,
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
    assert value("ringmesh_net_tx_total", guest="guest1") > 100
    assert value("ringmesh_port_kicks_total", guest="guest0", device="nic") > 0
    assert value("ringmesh_vdpa_map_generation", guest="guest0") >= 1
    assert value("ringmesh_queue_depth", queue="rx0") > 0
    status, report = await within(ask(mesh, "POST", "/workload/stop"))
    assert status == 200
    assert report == (await ask(mesh, "GET", "/report"))[1]
    for part in ("scmi", "net", "irq"):
        assert report[part]["lost"] == report[part]["duplicated"] == report[part]["corrupted"] == 0
    assert report["net"]["tx"] == report["net"]["rx"] > 200
    text = service.metrics.render().decode()
    for queue in ("cmdq", "rx0", "tx0"):
        assert f'ringmesh_poll_latency_seconds_count{{queue="{queue}",service="guest"}}' in text
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
