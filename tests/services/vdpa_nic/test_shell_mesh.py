"""The NIC service in the whole mesh: the guest service as its driver and VMM, interrupts through the ITS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.vdpa_nic.config import BackendConfig
from tests.services.guest_driver.mesh_rig import Mesh, stop_all, until, within


@pytest.fixture(autouse=True)
async def no_mesh_is_left() -> AsyncIterator[None]:
    yield
    await stop_all()


async def test_two_guests_restarts_and_metrics() -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0)
    mesh.guests = 2
    await mesh.start()
    nic = mesh.services["nic"]
    assert sorted(nic.attachments) == ["guest0", "guest1"]
    macs = {name: bytes(a.device.op_get_config(0, 6)) for name, a in nic.attachments.items()}
    assert len(set(macs.values())) == 2
    load = mesh.load
    load.start()
    await until(lambda: load.net.rx > 200)
    metrics = nic.metrics
    assert metrics.value("ringmesh_nic_tx_frames_total", guest="guest0") > 100
    assert metrics.value("ringmesh_device_chains_total", guest="guest1") >= 64, "receive buffers"
    await within(load.stop())

    # the guests start anew: fresh devices, the same MACs, and a third guest gets one of its own
    before = nic.attachments["guest0"].device
    mesh.guests = 3
    await mesh.restart("guest")
    assert nic.attachments["guest0"].device is not before
    again = {name: bytes(a.device.op_get_config(0, 6)) for name, a in nic.attachments.items()}
    assert {name: again[name] for name in macs} == macs
    assert len(set(again.values())) == 3
    assert await mesh.stop() == [0] * 4


async def test_a_vmm_whose_link_breaks_says_its_map_again() -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0)
    await mesh.start()
    guest = mesh.guest
    device = mesh.services["nic"].attachments["guest0"].device
    client = next(client for client in guest._clients if client.hello.role == "vmm")
    before = client.link
    assert before is not None
    mesh.cut("nic", "vmm")
    await until(lambda: client.link is not None and client.link is not before)
    changes = device.vdpa_stats.map_changes
    await within(guest.nic.vmm.change_map())
    assert device.vdpa_stats.map_changes == changes + 1
    assert await mesh.stop() == [0] * 4


async def test_replay() -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0, net_window=0, net="replay")
    mesh.backend = BackendConfig(kind="replay", rate=2000.0)
    await mesh.start()
    load = mesh.load
    load.start()
    await until(lambda: load.net.rx > 300)
    await within(load.stop())
    assert load.net.total("corrupted") == 0
    assert await mesh.stop() == [0] * 4
