"""The NIC as a service over real sockets: guests, their VMMs, the cable, back ends, metrics."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from common.errors import CallError, ConfigError, LinkDownError, RemoteError
from common.pcap import read_capture
from common.runtime.config import PeerConfig
from common.runtime.link import Link
from common.virtio.features import Feature
from common.virtio.net_ctrl import AnnounceCommand, CtrlClass
from common.wire.messages import VERSION, Hello, Notice, Return
from services.vdpa_nic.config import BackendConfig, NicConfig
from services.vdpa_nic.map_change import State
from services.vdpa_nic.shell import NicService, VmmLink
from tests.services.guest_driver.mesh_rig import until, within
from tests.services.vdpa_nic.served import Served, Serving
from tests.services.vdpa_nic.wire_rig import WINDOW


def frame(to: bytes, source: bytes, fill: int, size: int = 60) -> bytes:
    return to + source + b"\x88\xb5" + bytes([fill]) * (size - 14)


def mac(guest: Served) -> bytes:
    return bytes(guest.nic.op_get_config(0, 6))


# --- traffic ----------------------------------------------------------------------------------------------------------


async def test_guests_have_nics_and_macs_of_their_own() -> None:
    async with Serving() as serving:
        a, b = await serving.guest("a"), await serving.guest("b")
        assert sorted(serving.service.attachments) == ["a", "b"]
        assert mac(a) != mac(b)
        assert all(mac(guest)[0] & 3 == 2 for guest in (a, b)), "locally administered, no group"
        sent = [frame(mac(b), mac(a), n, 60 + n) for n in range(40)]
        await a.transmit(0, sent)
        await until(lambda: len(a.got_on[0]) == 40)
        assert a.got_on[0] == sent
        assert b.got_on[0] == [], "each has an echo of its own"
        metrics = serving.service.metrics
        assert metrics.value("ringmesh_nic_tx_frames_total", guest="a") == 40
        assert metrics.value("ringmesh_nic_tx_frames_total", guest="b") == 0
        assert metrics.value("ringmesh_nic_ctrl_commands_total", guest="a") == 0
        assert metrics.value("ringmesh_vdpa_map_changes_total", guest="b") == 1
        assert metrics.value("ringmesh_device_chains_total", guest="b") == 32, "receive buffers of two pairs"
        assert metrics.value("ringmesh_queue_depth", queue="rx0") > 16
        text = metrics.render().decode()
        for queue in ("rx0", "tx0", "rx1", "tx1", "ctrl"):
            assert f'ringmesh_poll_latency_seconds_count{{queue="{queue}",service="nic"}}' in text


async def test_a_guest_that_starts_anew_gets_a_fresh_nic_with_its_mac() -> None:
    async with Serving() as serving:
        a = await serving.guest("a")
        before, address = a.nic, mac(a)
        await a.gone()
        await until(lambda: serving.service.attachments["a"].link is None)
        again = await serving.guest("a", epoch=2)
        assert again.nic is not before
        assert mac(again) == address
        other = await serving.guest("c")
        assert mac(other) != address
        again.net.transmit([frame(address, address, 1)])
        await until(lambda: again.got_on[0])
        assert serving.service.metrics.value("ringmesh_nic_tx_frames_total", guest="a") == 1


async def test_a_switch_between_two_guests() -> None:
    async with Serving(backend=BackendConfig(kind="switch")) as serving:
        a, b = await serving.guest("a"), await serving.guest("b")
        hello = frame(b"\xff" * 6, mac(a), 0)
        a.net.transmit([hello])
        await until(lambda: b.got_on[0])
        sent = [frame(mac(a), mac(b), n, 60 + n) for n in range(30)]
        await b.transmit(0, sent)
        await until(lambda: len(a.got_on[0]) == 30)
        back = [frame(mac(b), mac(a), 100 + n) for n in range(30)]
        await a.transmit(1, back)
        await until(lambda: len(b.got_on[0]) == 31)
        assert a.got_on == [sent, []]
        assert b.got_on == [[hello, *back], []]
        metrics = serving.service.metrics
        assert metrics.value("ringmesh_switch_forwarded_total") == 60
        assert metrics.value("ringmesh_switch_flooded_total") == 1


async def test_a_wake_of_a_guest_that_is_not_there() -> None:
    async with Serving(backend=BackendConfig(kind="switch")) as serving:
        a = await serving.guest("a")
        serving.service._plugs.plug("nobody").backlog  # noqa: B018  (a port whose guest has no device)
        a.net.transmit([frame(b"\xff" * 6, mac(a), 0)])
        await until(lambda: a.net.room == 16)
        assert serving.service.metrics.value("ringmesh_switch_flooded_total") == 1


async def test_replay() -> None:
    async with Serving(backend=BackendConfig(kind="replay", rate=5000.0)) as serving:
        a = await serving.guest("a", pairs=1, features=0)
        got = a.got_on[0]
        frames = serving.service._plugs._frames
        await until(lambda: len(got) > 300)
        # what the back end played before the driver was there is gone; from some frame on it goes round and round
        whole = frames * (300 // len(frames) + 2)
        assert any(got[:300] == whole[start : start + 300] for start in range(len(frames)))


async def test_everything_is_recorded_until_the_service_stops(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    async with Serving(backend=BackendConfig(record=str(path))) as serving:
        a = await serving.guest("a")
        sent = [frame(mac(a), mac(a), n) for n in range(5)]
        await a.transmit(0, sent)
        await until(lambda: len(a.got_on[0]) == 5)
        assert serving.service.metrics.value("ringmesh_record_packets_total") == 10
        file = serving.service._plugs._file
        assert file is not None
    assert file.closed
    with path.open("rb") as recording:
        captured = [data for _, data in read_capture(recording, 1514)]
    assert sorted(captured) == sorted(sent * 2)


def test_a_service_with_a_capture_that_cannot_be_replayed_is_not_made(tmp_path: Path) -> None:
    path = str(tmp_path / "no such file")
    with pytest.raises(ConfigError) as caught:
        NicService(NicConfig(its=PeerConfig(port=1), backend=BackendConfig(kind="replay", pcap=path)))
    assert caught.value.key == "backend.pcap"


# --- the cable --------------------------------------------------------------------------------------------------------


async def test_the_cable_is_pulled_and_plugged() -> None:
    async with Serving() as serving:
        a, b = await serving.guest("a"), await serving.guest("b")
        assert await serving.ask("/nic/link", {"guest": "a", "up": False}) == (
            200,
            {"guest": "a", "up": False, "generation": 1},
        )
        await until(lambda: a.notices)
        assert a.notices == [Notice("config", "generation 1")]
        assert await within(a.bus.calls.call("get_config", 6, 2)) == b"\0\0"
        assert await within(a.bus.calls.call("get_generation")) == 1
        a.net.transmit([frame(mac(a), mac(a), 1)])
        b.net.transmit([frame(mac(b), mac(b), 1)])
        await until(lambda: a.net.room == 16 and b.got_on[0])
        assert a.got_on[0] == []
        assert serving.service.metrics.value("ringmesh_nic_tx_link_down_total", guest="a") == 1
        assert await serving.ask("/nic/link", {"guest": "a", "up": False}) == (
            200,
            {"guest": "a", "up": False, "generation": 1},
        ), "is so"
        assert (await serving.ask("/nic/link", {"guest": "a", "up": True}))[1]["generation"] == 2
        assert await within(a.bus.calls.call("get_config", 6, 2)) == b"\1\0"
        a.net.transmit([frame(mac(a), mac(a), 2)])
        await until(lambda: a.got_on[0])


async def test_a_driver_is_asked_to_announce_itself() -> None:
    async with Serving() as serving:
        a = await serving.guest("a", features=Feature.NET_MQ.bit | Feature.NET_GUEST_ANNOUNCE.bit)
        await serving.guest("b")
        assert await serving.ask("/nic/announce", {"guest": "a"}) == (
            200,
            {"guest": "a", "asked": True, "generation": 1},
        )
        assert await within(a.bus.calls.call("get_config", 6, 2)) == b"\3\0"
        assert await a.commanded(CtrlClass.ANNOUNCE, AnnounceCommand.ACK, b"") == 0
        assert await within(a.bus.calls.call("get_config", 6, 2)) == b"\1\0"
        assert (await serving.ask("/nic/announce", {"guest": "b"}))[1]["asked"] is False, "did not negotiate it"


async def test_requests_that_are_refused() -> None:
    async with Serving() as serving:
        status, said = await serving.ask("/nic/link", {"guest": "a", "up": False})
        assert (status, said) == (400, {"error": "guest = 'a': there are none", "field": "guest"})
        for name in ("c", "b"):
            await serving.guest(name)
        status, said = await serving.ask("/nic/announce", {"guest": "a"})
        assert (status, said) == (400, {"error": "guest = 'a': there are b, c", "field": "guest"})
        for body in ({"guest": "b"}, {"guest": "b", "up": "no"}, {"guest": "b", "up": True, "far": 1}, {"up": True}):
            assert (await serving.ask("/nic/link", body))[0] == 400


# --- the VMM ----------------------------------------------------------------------------------------------------------


async def test_the_vmm_is_answered_over_its_own_link() -> None:
    async with Serving() as serving:
        a = await serving.guest("a")
        call = a.vmm_side.calls.call
        assert await within(call("get_vq_group", a.ctrl_queue)) == 1
        for side, op, args in (
            (a.bus.calls, "set_map", (0, [])), (a.vmm_side.calls, "set_status", (0,)),
        ):  # fmt: skip
            with pytest.raises(CallError) as caught:
                await within(side.call(op, *args))
            assert caught.value.errno == errno.EPERM
        with pytest.raises(CallError) as caught:
            await within(call("no_such_thing"))
        assert caught.value.errno == errno.EOPNOTSUPP
        await a.transmit(0, [frame(mac(a), mac(a), n) for n in range(20)])
        a.space.add(*WINDOW)
        await a.say_map()
        await within(call("suspend"))
        await within(call("resume"))
        await until(lambda: len(a.got_on[0]) == 20)
        assert serving.service.metrics.value("ringmesh_vdpa_map_changes_total", guest="a") == 2


async def test_a_vmm_that_loses_its_link() -> None:
    """The call fails, the change goes on, and the answer to it reaches nobody who asked for something else."""
    async with Serving() as serving:
        a = await serving.guest("a")
        client, device = a.clients[1], a.nic
        a.held = []
        a.space.add(*WINDOW)
        changing = asyncio.get_running_loop().create_task(a.vmm_side.calls.call("set_map", 0, a.space.ranges()))
        await until(lambda: device.changes.machine.state is State.SUSPENDING)
        before = client.link
        assert before is not None
        before.close("test")
        with pytest.raises(LinkDownError):
            await within(_result(changing))
        await until(lambda: client.link is not None and client.link is not before)
        answered = len(a.vmm_side.returned)
        a.let_go()
        await a.say_map()
        assert len(a.vmm_side.returned) == answered + 1
        assert device.vdpa_stats.map_changes == 2
        assert device.changes.machine.idle


async def _result(task: asyncio.Task[object]) -> object:
    return await task


async def test_a_vmm_connects_again_when_its_guest_started_anew() -> None:
    """The new NIC has no map: the VMM says its map when it connects."""
    async with Serving() as serving:
        a = await serving.guest("a")
        client = a.clients[1]
        before = client.link
        assert before is not None
        to_guest = serving.service.attachments["a"].link
        serving.service.attachments["a"].link = None
        serving.service.accept(Hello(VERSION, "guest", "", 999, "a"))
        serving.service.attachments["a"].link = to_guest  # it is there; otherwise its VMM would have to wait for it
        await until(lambda: client.link is not None and client.link is not before)
        a.space.add(*WINDOW)
        assert a.nic.key(0) is None
        asking = asyncio.get_running_loop().create_task(a.say_map())
        await until(lambda: a.nic.changes.machine.state is State.KEYING)
        asking.cancel()


def test_a_vmm_in_its_own_process_takes_the_nic_that_stands() -> None:
    service = NicService(NicConfig(its=PeerConfig(port=1)))
    guest = service.accept(Hello(VERSION, "guest", "", 111, "vm"))
    device = service.attachments["vm"].device
    service.attachments["vm"].link_up(object.__new__(Link))
    vmm = service.accept(Hello(VERSION, "vmm", "", 222, "vm"))
    assert isinstance(vmm, VmmLink)
    assert vmm._device_of() is device is service.attachments["vm"].device
    link = vmm._link = object.__new__(Link)
    vmm.link_down(object.__new__(Link), "an older one")
    assert vmm._link is link
    vmm.link_down(link, "test")
    assert getattr(vmm, "_link") is None  # noqa: B009  (not what mypy remembers)
    vmm.send(Return(1, 0))  # nobody hears it
    assert service.accept(Hello(VERSION, "guest", "", 111, "vm")) is guest
    with pytest.raises(RemoteError, match="is connected from another process"):
        service.accept(Hello(VERSION, "guest", "", 112, "vm"))
    service.attachments["vm"].link = None
    again = service.accept(Hello(VERSION, "guest", "", 112, "vm"))
    assert again is not guest
    service.attachments["vm"].link_up(object.__new__(Link))
    assert vmm._device_of() is service.attachments["vm"].device is not device
