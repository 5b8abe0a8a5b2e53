"""The driver's side of a NIC: what it negotiates, its queues and interrupts, changes of the configuration space."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import CallError, RingError
from common.virtio.features import Feature
from common.virtio.net_ctrl import RxCommand
from common.wire.messages import Broken, Irq
from services.guest_driver.guest_nic import FEATURES, IOVA, MAX_PAIRS
from services.guest_driver.net import queue_names
from services.guest_driver.net_pair import RX, TX
from tests.services.guest_driver.nic_mesh import NicMesh
from tests.services.vdpa_nic.wire_rig import MAC


async def works(mesh: NicMesh) -> None:
    mesh.load.start()
    await mesh.go_on(600)
    mesh.load.running = False
    await mesh.settle()
    assert mesh.load.close() == 0
    mesh.spotless()


async def test_bring_up() -> None:
    """virtio 1.3 §3.1.1, §5.1.5; the pairs are switched on when they are ready for it."""
    mesh = await NicMesh(4).start()
    nic, device = mesh.nic, mesh.device
    assert device.status == 15
    assert device.features == nic.bus.features == FEATURES | Feature.NET_MQ.bit
    assert device.core.state.pairs == nic.net.active == len(nic.net.pairs) == 4
    assert nic.config.mac == MAC
    assert nic.config.mtu == 1500
    assert nic.names == ["rx0", "tx0", "rx1", "tx1", "rx2", "tx2", "rx3", "tx3", "ctrl"]
    assert [nic.index_of(name) for name in nic.names] == list(range(9))
    assert device.vectors == list(range(9))
    assert [queue.areas[0] - IOVA >= 1 << 30 for queue in device.queues] == [True] * 9
    assert [queue.in_hand for queue in device.queues] == [16, 0] * 4 + [0]
    assert nic.ctrl is not None
    assert nic.ctrl.commands == 1
    await works(mesh)
    for pair in nic.net.pairs:
        assert pair.stats.tx_interrupts > 0 < pair.stats.rx_interrupts
        assert 0 < pair.stats.tx_kicks <= pair.stats.tx_buffers


@pytest.mark.parametrize(
    ("wanted", "has", "driven", "ctrl"),
    [(1, 1, 1, 2), (1, 4, 1, 2), (2, 4, 2, 8), (4, 2, 2, 4), (3, 1, 1, 2), (2, MAX_PAIRS, 2, 2 * MAX_PAIRS)],
)
async def test_how_many_pairs_and_where_the_control_queue_is(wanted: int, has: int, driven: int, ctrl: int) -> None:
    """§5.1.2: behind all pairs that the device has, if the driver negotiated MQ; else behind the first."""
    mesh = await NicMesh(wanted, max_pairs=has).start()
    nic = mesh.nic
    assert (len(nic.net.pairs), nic.net.active, nic.index_of("ctrl")) == (driven, driven, ctrl)
    assert bool(nic.bus.features & Feature.NET_MQ.bit) == (wanted > 1 and has > 1)
    assert mesh.device.core.state.pairs == driven
    assert nic.names == queue_names(wanted)
    assert mesh.device.vectors[ctrl] == len(nic.names) - 1
    if driven < wanted:
        assert nic.index_of(f"rx{driven}") is None
        assert nic.stranded(f"rx{driven}") == 0
    assert sum(mesh.load._windows) == 32
    await works(mesh)


async def test_a_nic_whose_control_queue_is_out_of_reach_is_driven_with_one_pair() -> None:
    mesh = await NicMesh(2, max_pairs=MAX_PAIRS + 1).start()
    assert not mesh.nic.bus.features & Feature.NET_MQ.bit
    assert (len(mesh.nic.net.pairs), mesh.nic.index_of("ctrl")) == (1, 2)
    await works(mesh)


async def test_a_nic_without_a_control_queue() -> None:
    mesh = NicMesh(2)
    mesh.device.offered &= ~Feature.NET_CTRL_VQ.bit  # type: ignore[misc]
    await mesh.start()
    assert mesh.nic.ctrl is None
    assert not mesh.nic.bus.features & Feature.NET_MQ.bit, "nothing could switch the second pair on"
    assert not mesh.nic.bus.features & Feature.NET_CTRL_RX.bit, "nothing could set it"
    assert mesh.nic.index_of("ctrl") is None
    mesh.restart()
    mesh.device.offered &= ~Feature.NET_CTRL_VQ.bit  # type: ignore[misc]
    mesh.connect()
    await mesh.settle()
    assert mesh.nic.bus.configured
    await works(mesh)


async def test_a_nic_that_does_not_switch_pairs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = NicMesh(4)

    async def refuse(_pairs: int) -> None:
        raise CallError("VQ_PAIRS_SET", 22)

    make = mesh.nic._make_ctrl

    def make_ctrl(queue: int, features: int) -> Any:
        plan = make(queue, features)
        monkeypatch.setattr(type(mesh.nic.ctrl), "set_pairs", lambda _ctrl, pairs: refuse(pairs))
        return plan

    monkeypatch.setattr(mesh.nic, "_make_ctrl", make_ctrl)
    await mesh.start()
    assert mesh.nic.net.active == 1
    assert [line[1] for line in mesh.log.lines] == ["the NIC goes on with one queue pair"]
    assert len(mesh.load.ledgers) == 1
    await works(mesh)


@pytest.mark.parametrize("seed", range(5))
async def test_a_nic_that_restarted_knows_the_pairs_before_it_gets_their_frames(seed: int) -> None:
    """With one pair in use it would give the frames of all to the first."""
    mesh = await NicMesh(4, seed=seed).start()
    nic = mesh.nic
    assert nic.ctrl is not None
    await mesh.run(nic.ctrl.set_rx_mode(RxCommand.ALLMULTI, True))
    mesh.load.start()
    for _ in range(3):
        await mesh.go_on(200 + 37 * seed)
        mesh.restart()
        mesh.connect()
        await mesh.go_on(150)  # and again before it has been told all
        mesh.restart()
        mesh.connect()
    await works(mesh)
    assert nic.bus.configured
    state = mesh.device.core.state
    assert (state.pairs, state.allmulti) == (4, True)
    ledgers = mesh.load.ledgers
    assert mesh.load.tx == mesh.load.rx - mesh.load.total("re_executed") + mesh.load.total("reset_dropped")
    assert all(ledger.rx > 16 for ledger in ledgers)


async def test_settings_that_a_new_nic_refuses_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = await NicMesh(2).start()

    async def refuse(_ctrl: object) -> None:
        raise CallError("VQ_PAIRS_SET", 22)

    monkeypatch.setattr(type(mesh.nic.ctrl), "restore", refuse)
    mesh.restart()
    mesh.connect()
    await mesh.settle()
    assert mesh.nic.bus.configured
    assert "the NIC does not take its settings again" in [line[1] for line in mesh.log.lines]


# --- the cable --------------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_without_a_cable() -> None:
    mesh = await NicMesh(2).start()
    mesh.load.start()
    await mesh.go_on(300)
    mesh.device.core.state.set_link(False)
    await mesh.settle()
    assert [mesh.nic.carrier, mesh.nic.stats.link_downs] == [False, 1]
    tx = mesh.load.tx
    assert mesh.load.outstanding == 0, "what was under way is in doubt"
    await mesh.settle()
    assert mesh.load.tx == tx
    mesh.device.core.state.set_link(True)
    await mesh.go_on(500)
    assert [mesh.nic.carrier, mesh.load.tx > tx] == [True, True]
    await works(mesh)
    assert mesh.load.tx == mesh.load.rx + mesh.load.total("reset_dropped")


async def test_a_cable_that_was_out_for_a_moment_is_noticed_by_the_generation() -> None:
    mesh = await NicMesh(1).start()
    mesh.device.core.state.set_link(False)
    await mesh.settle()
    mesh.device.core.state.set_link(True)
    await mesh.settle()
    mesh.load.start()
    while mesh.load.rx < 100:
        mesh.move()
    mesh.device.core.state.set_link(False)
    mesh.device.batch_end()
    mesh.device.core.state.set_link(True)
    await works(mesh)
    assert mesh.nic.stats.link_downs == 2
    assert mesh.load.tx == mesh.load.rx + mesh.load.total("reset_dropped")


async def test_a_notice_that_went_down_with_the_link_is_made_up_for() -> None:
    mesh = await NicMesh(1).start()
    mesh.cut()
    mesh.device.core.state.set_link(False)
    mesh.connect()
    await mesh.settle()
    seen = [mesh.nic.carrier]
    mesh.restart()  # another NIC, whose cable is in
    mesh.connect()
    await mesh.settle()
    assert [*seen, mesh.nic.carrier] == [False, True]
    await works(mesh)


async def test_an_announcement_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = await NicMesh(1).start()
    state = mesh.device.core.state
    assert state.ask_announce()
    await mesh.settle()
    assert not state.announce
    assert not mesh.nic.config.announce
    assert mesh.nic.stats.announces == 1
    assert mesh.nic.stats.link_downs == 0

    async def refuse(_ctrl: object) -> None:
        raise CallError("ANNOUNCE.ACK", 22)

    monkeypatch.setattr(type(mesh.nic.ctrl), "announce_ack", refuse)
    assert state.ask_announce()
    await mesh.settle()
    assert mesh.log.lines[-1][1] == "announcement not acknowledged"


# --- the indices ------------------------------------------------------------------------------------------------------


async def test_indices_are_compared_and_a_difference_is_told() -> None:
    mesh = await NicMesh(2).start()
    await mesh.run(mesh.nic.check_indices())
    assert (mesh.nic.indices.checked, mesh.nic.indices.wrong) == (5, 0)
    mesh.device.queues[TX].next_idx += 1
    await mesh.run(mesh.nic.check_indices())
    assert mesh.nic.indices.wrong == 1
    assert mesh.log.lines[-1][2]["error"] == "queue 1: the device stands at 1, used were 0, the port fetched 0"
    mesh.device.queues[TX].next_idx -= 1
    mesh.nic.vmm.epoch -= 1  # its link is still at the NIC before
    await mesh.run(mesh.nic.check_indices())
    assert mesh.nic.indices.checked == 10


async def test_an_interrupt_goes_by_the_queues_event() -> None:
    mesh = await NicMesh(2, max_pairs=4).start()
    await works(mesh)
    assert not mesh.pending
    for queue, event in ((RX, 0), (TX, 1), (3, 3), (8, 4)):
        mesh.port.queues[queue].irq_number += 1
        mesh.port.send(Irq(queue, mesh.port.queues[queue].irq_number))
        assert mesh.pending == {event}
        mesh.pending.clear()


async def test_a_command_on_a_control_queue_that_breaks_ends() -> None:
    """Linux breaks the virtqueue, and virtnet_send_command returns."""
    mesh = await NicMesh().start()
    assert mesh.nic.ctrl is not None
    queue = mesh.nic.index_of("ctrl")
    assert queue is not None
    task = asyncio.ensure_future(mesh.nic.ctrl.set_rx_mode(RxCommand.ALLMULTI, True))
    await asyncio.sleep(0)
    mesh.port.frame(Broken(queue, "chain", "the device says so"))
    for command in (task, mesh.nic.ctrl.set_rx_mode(RxCommand.PROMISC, True)):
        with pytest.raises(RingError):
            await command
