"""The NIC as a service over real sockets, with the guest service as its driver."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import CallError, ConfigError, RemoteError
from common.runtime.config import PeerConfig
from common.runtime.link import Link
from common.wire.messages import VERSION, Hello
from services.vdpa_nic.config import BackendConfig, NicConfig
from services.vdpa_nic.shell import NicService, VmmLink
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
    assert all(mac[0] & 3 == 2 for mac in macs.values()), "locally administered, no group"
    load = mesh.load
    load.start()
    await until(lambda: load.net.rx > 200)
    metrics = nic.metrics
    assert metrics.value("ringmesh_nic_tx_frames_total", guest="guest0") > 100
    assert metrics.value("ringmesh_device_chains_total", guest="guest1") == 64
    assert metrics.value("ringmesh_queue_depth", queue="rx0") > 64
    assert 'ringmesh_poll_latency_seconds_count{queue="tx0",service="nic"}' in metrics.render().decode()
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


async def test_the_vmm_is_answered_over_its_own_link() -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0)
    await mesh.start()
    guest = mesh.guest
    assert await within(guest.vmm.calls.call("get_generation")) == 1
    with pytest.raises(CallError) as caught:
        await within(guest.nic_bus.calls.call("set_map", 2, []))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(CallError) as caught:
        await within(guest.vmm.calls.call("no_such_thing"))
    assert caught.value.errno == errno.EPERM
    mesh.cut("nic", "vmm")
    device = mesh.services["nic"].attachments["guest0"].device
    await until(lambda: guest._clients[2].link is None)
    device.answer_vmm(None)  # nobody hears it
    await until(lambda: guest._clients[2].link is not None)
    await within(guest.vmm.change_map())
    assert await mesh.stop() == [0] * 4


def test_a_vmm_in_its_own_process_takes_the_nic_that_stands() -> None:
    service = NicService(NicConfig(its=PeerConfig(port=1)))
    guest = service.accept(Hello(VERSION, "guest", "", 111, "vm"))
    device = service.attachments["vm"].device
    service.attachments["vm"].link_up(object.__new__(Link))
    vmm = service.accept(Hello(VERSION, "vmm", "", 222, "vm"))
    assert isinstance(vmm, VmmLink)
    assert vmm._device_of() is device is service.attachments["vm"].device
    assert service.accept(Hello(VERSION, "guest", "", 111, "vm")) is guest
    with pytest.raises(RemoteError, match="is connected from another process"):
        service.accept(Hello(VERSION, "guest", "", 112, "vm"))
    service.attachments["vm"].link = None
    again = service.accept(Hello(VERSION, "guest", "", 112, "vm"))
    assert again is not guest
    service.attachments["vm"].link_up(object.__new__(Link))
    assert vmm._device_of() is service.attachments["vm"].device is not device


async def test_a_vmm_connects_again_when_its_guest_started_anew() -> None:
    """The new NIC has no map: the VMM says its map when it connects."""
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0)
    await mesh.start()
    nic = mesh.services["nic"]
    client = mesh.guest._clients[2]
    before = client.link
    assert before is not None
    to_guest = nic.attachments["guest0"].link
    nic.attachments["guest0"].link = None
    nic.accept(Hello(VERSION, "guest", "", 1, "guest0"))
    nic.attachments["guest0"].link = to_guest  # it is there; otherwise its VMM would have to wait for it
    device = nic.attachments["guest0"].device
    await until(lambda: device.op_get_generation() == 1)
    assert client.link is not before
    assert await mesh.stop() == [0] * 4


async def test_replay() -> None:
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=0, net_window=0)
    mesh.backend = BackendConfig(kind="replay", rate=5000.0)
    await mesh.start()
    got: list[bytes] = []
    mesh.guest.receive = got.extend
    frames = mesh.services["nic"]._frames
    await until(lambda: len(got) > 300)
    # what the back end played before the driver was there is gone; from some frame on it goes round and round
    whole = frames * (300 // len(frames) + 2)
    assert any(got[:300] == whole[start : start + 300] for start in range(len(frames)))
    assert await mesh.stop() == [0] * 4


@pytest.mark.parametrize("content", [None, b"", b"no capture at all"])
def test_a_capture_that_cannot_be_replayed(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "frames.pcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        NicService(NicConfig(its=PeerConfig(port=1), backend=BackendConfig(kind="replay", pcap=str(path))))
    assert caught.value.key == "backend.pcap"
    NicService(NicConfig(its=PeerConfig(port=1), backend=BackendConfig(kind="echo", pcap=str(path))))
