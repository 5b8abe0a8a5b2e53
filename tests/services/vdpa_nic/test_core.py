"""virtio-net on a real transport: packets, headers, malformed chains, waiting for buffers, back ends, the cable."""

from __future__ import annotations

import struct

import pytest

from common.virtio.features import Feature
from common.virtio.net_header import MAX_ETHERNET, NET_HEADER_BYTES, TX_PLAIN
from common.wire.messages import Notice
from services.guest_driver.net_pair import RX, TX
from services.vdpa_nic.backends.replay import Replay, at_rate
from services.vdpa_nic.core import CTRL_QUEUE_SIZE, FEATURES, offered, queue_sizes
from tests.services.vdpa_nic.nic_rig import Rig
from tests.services.vdpa_nic.pairs_rig import PairsRig
from tests.services.vdpa_nic.wire_rig import IOVA, MAC, RAM


def not_listening(rig: Rig) -> Rig:
    """A driver that has given no receive buffer yet."""
    rig.set_map()
    rig.connect()
    rig.settle()
    return rig


def test_frames_come_back_identical_and_in_order() -> None:
    rig = Rig().start()
    sent: list[bytes] = []
    for count in (1, 8, 3, 5):
        frames = [bytes([len(sent) + n]) * (14 + 300 * n % (MAX_ETHERNET - 14)) for n in range(count)]
        frames[-1] = frames[-1][:14] + bytes(MAX_ETHERNET - 14)
        sent += frames
        assert rig.net.transmit(frames) == count
        rig.now += 0.5
        rig.settle()
    assert rig.got == sent
    stats = rig.device.core.stats
    assert (stats.tx_frames, stats.rx_frames, stats.rx_buffers) == (17, 17, 17)
    assert stats.tx_bytes == stats.rx_bytes == sum(map(len, sent))
    assert [queue for queue, _ in rig.observed] == [TX, RX] * (len(rig.observed) // 2)
    assert rig.device.queues[TX].in_hand == 0


def test_the_header_that_the_driver_sees() -> None:
    rig = Rig().start()
    frame = b"\xee" * 60
    rig.net.transmit([frame])
    rig.step("device")
    rig.step("port")
    length = NET_HEADER_BYTES + len(frame)
    addr = rig.rings[RX].tokens[0]
    assert addr is not None
    assert rig.memory.read(addr, length) == struct.pack("<BBHHHHH", 0, 0, 0, 0, 0, 0, 1) + frame, "num_buffers is 1"
    assert bytes(NET_HEADER_BYTES) == TX_PLAIN


def test_what_is_offered() -> None:
    assert offered(4) == FEATURES
    assert offered(1) == FEATURES & ~Feature.NET_MQ.bit, "one pair is no multiqueue"
    assert queue_sizes(2, 256) == (256, 256, 256, 256, CTRL_QUEUE_SIZE)
    device = Rig().device
    assert device.offered == offered(1) | Feature.SUSPEND.bit
    assert [device.op_get_vq_num_max(i) for i in range(3)] == [8, 8, CTRL_QUEUE_SIZE]


def test_the_configuration_space() -> None:
    rig = Rig()
    assert rig.device.op_get_config(0, 8) == MAC + b"\1\0", "MAC and LINK_UP"
    assert rig.device.op_get_device_id() == 1


@pytest.mark.parametrize("length", [0, 1, NET_HEADER_BYTES, NET_HEADER_BYTES + MAX_ETHERNET + 1, 4000])
def test_malformed_chains_are_completed_in_their_turn(length: int) -> None:
    rig = Rig().start()
    ring = rig.rings[TX]
    rig.net.transmit([b"a" * 20])
    ring.add_batch([(RAM + IOVA, length, "odd")], 0)
    rig.net.transmit([b"b" * 20])
    rig.port.doorbell(TX)
    rig.step("device")
    rig.step("port")
    taken = ring.get_bufs(8)
    assert [token == "odd" for token, _ in taken] == [False, True, False]
    rig.net.rx_callback()
    assert rig.got == [b"a" * 20, b"b" * 20]
    stats = rig.device.core.stats
    assert (stats.tx_malformed, stats.tx_frames) == (1, 2)
    assert rig.alarms == []


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<BBHHHHH", 0, 1, 0, 1448, 0, 0, 0),  # TCPV4, which nobody negotiated
        struct.pack("<BBHHHHH", 1, 0, 0, 0, 14, 16, 0),  # NEEDS_CSUM without CSUM
    ],
)
def test_headers_that_ask_for_what_was_not_negotiated(header: bytes) -> None:
    rig = Rig().start()
    at = RAM + 0x30000
    rig.memory.write(at, header + b"x" * 60)
    for _ in range(2):
        rig.rings[TX].add([(at + IOVA, len(header) + 60)], [], "odd")
    rig.port.doorbell(TX)
    rig.step("device")
    rig.step("port")
    assert [token for token, _ in rig.rings[TX].get_bufs(8)] == ["odd", "odd"]
    stats = rig.device.core.stats
    assert (stats.tx_malformed, stats.tx_frames) == (2, 0)
    assert rig.logged == ["packet_refused"], "once"
    assert rig.alarms == []


def test_a_malformed_chain_that_comes_twice_counts_once() -> None:
    """It was fetched, handed back by a change of map, and fetched again."""
    rig = Rig().start()
    rig.set_map()
    rig.rings[TX].add([(RAM + IOVA, 1)], [], "odd")
    rig.port.doorbell(TX)
    rig.step("device")
    rig.step("port")
    rig.step("device")
    assert rig.device.vdpa_stats.chains_handed_back == 1 + rig.size
    rig.step("port")
    rig.step("device")
    rig.step("port")
    rig.step("device")
    assert rig.device.core.stats.tx_malformed == 1


def test_a_receive_buffer_that_is_too_small_costs_the_frame_and_stays() -> None:
    rig = not_listening(Rig(size=2))
    ring = rig.rings[RX]
    buffers = RAM + 0x30000
    ring.add([], [(buffers + IOVA, 12), (buffers + 100 + IOVA, 20)], "small")
    rig.port.doorbell(RX)
    rig.settle()
    rig.net.transmit([b"x" * 21, b"y" * 20])
    rig.step("device")
    rig.step("port")
    assert ring.get_buf() == ("small", 32)
    assert rig.memory.read(buffers + 100, 20) == b"y" * 20
    assert rig.device.core.stats.rx_too_long == 1
    assert rig.net.tx_callback() == 2


def test_a_receive_buffer_without_room_for_a_byte_breaks_the_queue() -> None:
    rig = not_listening(Rig(size=2))
    rig.rings[RX].add([], [(RAM + 0x30000 + IOVA, NET_HEADER_BYTES)], "tiny")
    rig.port.doorbell(RX)
    rig.settle()
    assert rig.device.queues[RX].broken
    assert not rig.device.queues[TX].broken
    assert not rig.device.core.pairs[0].buffers


def test_readable_bytes_of_a_receive_buffer_are_no_room() -> None:
    rig = not_listening(Rig(size=2))
    rig.rings[RX].add([(RAM + IOVA, 100)], [(RAM + 0x30000 + IOVA, 13)], "mixed")
    rig.port.doorbell(RX)
    rig.settle()
    assert [room for _, room, _ in rig.device.core.pairs[0].buffers] == [13]


def test_an_echo_waits_for_a_buffer() -> None:
    rig = not_listening(Rig(size=4))
    rig.send(3)
    rig.settle()
    assert len(rig.device.core.pairs[0].waiting) == 3
    assert rig.net.room == 1
    rig.net.start()
    rig.settle()
    assert rig.ledger.outstanding == 0


def test_how_long_frames_waited_on_each_side() -> None:
    """tx0: from the chain's arrival to the back end; rx0: from the back end to a buffer."""
    rig = not_listening(Rig(size=4, backend=Replay([b"r" * 60], at_rate(10.0), limit=2)))
    rig.send(2)
    rig.now += 0.25
    rig.step("device")
    assert rig.observed == [(TX, 0.0)]
    rig.device.tick(rig.now)
    rig.now += 0.5
    rig.device.tick(rig.now)  # two frames are there, and no buffer
    rig.now += 2.0
    rig.net.start()
    rig.settle()
    assert rig.observed == [(TX, 0.0), (RX, 2.0)]

    rig = not_listening(Rig(size=4))
    rig.send(2)
    rig.settle()
    rig.now += 1.5
    rig.net.start()  # an echo keeps what is sent until there are buffers
    rig.settle()
    assert rig.observed[:2] == [(TX, 1.5), (RX, 0.0)]


def test_a_replay_plays_and_sinks() -> None:
    frames = [bytes([n]) * 60 for n in range(3)]
    replay = Replay(frames, at_rate(100.0), limit=5)
    rig = Rig(size=4, backend=replay).start()
    rig.device.tick(rig.now)
    rig.now += 0.045
    rig.device.tick(rig.now)
    rig.settle()
    assert rig.got == [*frames, frames[0]]
    rig.device.tick(rig.now)  # nothing is due
    rig.net.transmit([b"z" * 60])
    rig.settle()
    assert replay.stats.sunk == 1


def test_a_replay_without_receive_buffers_does_not_hold_up_what_is_sent() -> None:
    rig = not_listening(Rig(size=4, backend=Replay([b"r" * 60], at_rate(100.0), limit=5)))
    rig.device.tick(rig.now)
    rig.now += 1.0
    rig.device.tick(rig.now)
    assert len(rig.device.core.backend.backlog[0]) == 5
    rig.net.transmit([b"z" * 60] * 4)
    rig.settle()
    rig.net.tx_callback()
    assert rig.net.room == 4


def test_what_a_nic_without_a_receive_queue_does() -> None:
    """A driver that sets up the transmit queue alone: frames leave, nothing comes back."""
    rig = Rig(size=4)
    rig.set_map()
    rig.up = True
    rig.device.reconnected()
    rig.port.link_up()
    areas = rig.areas[TX]
    for op, args in (
        ("set_status", [3]), ("set_driver_features", [rig.features]), ("set_status", [11]), ("set_vq_num", [TX, 4]),
        ("set_vq_address", [TX, areas.desc, areas.driver, areas.device]), ("set_vq_cb", [TX, 41]),
        ("set_vq_ready", [TX, True]), ("set_status", [15]),
    ):  # fmt: skip
        answer = rig.driver(op, *args)
        assert answer is not None
        assert answer.errno == 0
    rig.send(4)
    rig.settle()
    rig.net.tx_callback()
    assert rig.net.room == 4
    assert rig.device.core.stats.rx_dropped == 4


def test_a_disabled_receive_queue_holds_up_nothing() -> None:
    rig = Rig(size=4).start()
    assert rig.driver("set_vq_ready", RX, False) is None
    rig.settle()
    assert [answer.errno for answer in rig.said] == [0]
    assert rig.device.op_get_vq_ready(RX) is False
    rig.send(4)
    rig.settle()
    assert rig.device.core.stats.rx_dropped == 4
    assert rig.net.room == 4


# --- the cable --------------------------------------------------------------------------------------------------------


def test_a_cable_that_is_pulled_and_plugged() -> None:
    rig = PairsRig(pairs=1, features=0).start()
    state = rig.device.core.state
    before = rig.device.op_get_generation()
    state.set_link(False)
    assert rig.device.op_get_config(6, 2) == b"\0\0"
    assert rig.device.op_get_generation() == before + 1
    assert rig.notices == [Notice("config", f"generation {before + 1}")]
    assert rig.net.transmit([b"x" * 60, b"y" * 60]) == 2
    rig.settle()
    stats = rig.device.core.stats
    assert rig.net.room == rig.size, "buffers of a NIC without a cable complete"
    assert (stats.tx_link_down, stats.tx_frames) == (2, 0)
    state.set_link(True)
    assert rig.device.op_get_config(6, 2) == b"\1\0"
    assert rig.device.op_get_generation() == before + 2
    rig.net.transmit([b"z" * 60])
    rig.settle()
    assert rig.got_on == [[b"z" * 60]]


def test_nothing_is_received_without_a_cable() -> None:
    replay = Replay([b"r" * 60], at_rate(100.0), limit=5)
    rig = Rig(size=4, backend=replay).start()
    rig.device.core.state.set_link(False)
    rig.device.tick(rig.now)
    rig.now += 0.03
    rig.device.tick(rig.now)
    rig.settle()
    assert rig.got == []
    assert rig.device.core.stats.rx_dropped == 3
    rig.device.core.state.set_link(True)
    rig.now += 0.02
    rig.device.tick(rig.now)
    rig.settle()
    assert len(rig.got) == 2


# --- life -------------------------------------------------------------------------------------------------------------


def test_a_reset_forgets_packets_and_buffers() -> None:
    rig = not_listening(Rig(size=4))
    rig.send(3)
    rig.settle()
    core = rig.device.core
    core.backend.backlog[0].append((b"x" * 60, rig.now))
    core.backend.pairs = 7
    rig.driver("set_status", 0)
    assert not core.pairs[0].waiting
    assert not core.backend.backlog[0]
    assert core.backend.pairs == 1
    assert core.ctrl_queue == -1


def test_a_transport_that_does_not_say_when_features_are_negotiated() -> None:
    device = PairsRig(pairs=2).device
    device.features = Feature.NET_CTRL_VQ.bit | Feature.NET_MQ.bit
    assert device.core.ctrl_queue == -1
    device.core.on_chains(TX, [])
    assert device.core.ctrl_queue == 4


def test_a_paused_nic_moves_nothing() -> None:
    rig = Rig(size=4).start()
    core = rig.device.core
    core.paused = True
    rig.send(2)
    rig.step("device")
    assert len(core.pairs[0].waiting) == 2
    core.finish()
    assert core.paused, "as it was"
    assert not core.pairs[0].waiting
    assert core.stats.rx_frames == 2


@pytest.mark.parametrize("negotiated", [False, True])
def test_a_queue_where_the_control_queue_would_be(negotiated: bool) -> None:
    """A driver enables the queue behind all pairs though nothing that it took says that there is one."""
    rig = PairsRig(pairs=2, features=0)
    if not negotiated:
        rig.features &= ~(Feature.NET_CTRL_VQ.bit | Feature.NET_CTRL_RX.bit | Feature.NET_CTRL_MAC_ADDR.bit)
    rig.bring_up()
    assert rig.device.core.ctrl_queue == (2 if negotiated else -1)
    area = rig.areas[2]
    ring = rig.rings[2]
    for op, *args in (
        ("set_vq_ready", 2, False),
        ("set_vq_num", 4, area.size),
        ("set_vq_address", 4, area.desc, area.driver, area.device),
        ("set_vq_ready", 4, True),
    ):
        rig.driver(op, *args)
        rig.settle()
    ring.add([(RAM + IOVA, 4)], [(RAM + 100 + IOVA, 1)], "nonsense")
    rig.port.doorbell(4)
    rig.settle()
    assert rig.device.queues[4].broken
    assert [q.index for q in rig.device.queues if q.broken] == [4]
    rig.nets[0].start()
    rig.nets[0].transmit([b"x" * 60])
    rig.settle()
    assert rig.got_on[0] == [b"x" * 60], "the others run on"
