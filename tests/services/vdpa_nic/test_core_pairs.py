"""Several queue pairs, control queue, mergeable buffers, checksum offload, receive filter, MTU: over the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from common.virtio.features import Feature
from common.virtio.net_ctrl import NET_ERR, NET_OK, AnnounceCommand, CtrlClass, MacCommand, RxCommand
from common.virtio.net_header import HDR_F_NEEDS_CSUM, NET_HEADER, NET_HEADER_BYTES, TX_PLAIN
from common.wire.messages import Used
from services.vdpa_nic.backends.backend import Waiting, empty_backlog
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.core import NicStats
from tests.services.vdpa_nic.pairs_rig import PairsRig
from tests.services.vdpa_nic.wire_rig import IOVA, MAC, RAM

MRG = Feature.NET_MRG_RXBUF.bit


def frame(to: bytes, size: int = 60, fill: int = 0x5A) -> bytes:
    return to + b"\2\0\0\0\0\1" + b"\x88\xb5" + bytes([fill]) * (size - 14)


class Line:
    """What is put into its backlog comes out of the cable; what is sent is kept."""

    answers = False

    def __init__(self, max_pairs: int = 1) -> None:
        self.backlog: Sequence[Waiting] = empty_backlog(max_pairs)
        self.pairs = 1
        self.sent: list[tuple[int, bytes]] = []

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        self.sent += [(pair, packet) for packet in packets]

    def tick(self, now: float) -> None:
        pass

    def comes(self, *frames: bytes, header: bytes = TX_PLAIN, pair: int = 0) -> None:
        self.backlog[pair].extend((header + one, 1.0) for one in frames)


# --- queue pairs ------------------------------------------------------------------------------------------------------


def test_each_pair_echoes_on_its_own_queues() -> None:
    rig = PairsRig(pairs=4).start()
    assert rig.use_pairs(4) == NET_OK
    for pair, net in enumerate(rig.nets):
        net.transmit([frame(MAC, fill=pair), frame(MAC, fill=16 + pair)])
    rig.settle()
    assert rig.got_on == [[frame(MAC, fill=pair), frame(MAC, fill=16 + pair)] for pair in range(4)]
    assert {queue for queue, _ in rig.observed} == set(range(8))


def test_a_pair_that_is_not_in_use_receives_on_one_that_is() -> None:
    rig = PairsRig(pairs=4).start()
    assert rig.use_pairs(2) == NET_OK
    rig.nets[3].transmit([frame(MAC, fill=3)])
    rig.nets[2].transmit([frame(MAC, fill=2)])
    rig.settle()
    assert rig.got_on == [[frame(MAC, fill=2)], [frame(MAC, fill=3)], [], []]
    assert [net.room for net in rig.nets] == [rig.size] * 4


def test_what_waits_for_a_pair_that_goes_out_of_use_goes_to_one_in_use() -> None:
    line = Line(4)
    rig = PairsRig(pairs=4, backend=line)
    rig.bring_up()
    assert rig.use_pairs(4) == NET_OK
    assert line.pairs == 4
    for pair in range(4):
        line.comes(frame(MAC, fill=pair), pair=pair)
    assert rig.use_pairs(2) == NET_OK
    assert line.pairs == 2
    for net in rig.nets:
        net.start()
    rig.settle()
    assert rig.got_on == [
        [frame(MAC, fill=0), frame(MAC, fill=2)], [frame(MAC, fill=1), frame(MAC, fill=3)], [], [],
    ]  # fmt: skip
    assert [len(backlog) for backlog in line.backlog] == [0] * 4


@pytest.mark.parametrize("pairs", [0, 5, 0xFFFF])
def test_pairs_that_there_are_not(pairs: int) -> None:
    rig = PairsRig(pairs=4).start()
    assert rig.use_pairs(3) == NET_OK
    assert rig.use_pairs(pairs) == NET_ERR
    assert rig.device.core.state.pairs == 3
    assert rig.device.core.ctrl_stats.ctrl_bad_value == 1


def test_a_driver_without_mq_has_its_control_queue_behind_the_first_pair() -> None:
    rig = PairsRig(pairs=4, features=0).start()
    assert rig.device.core.ctrl_queue == rig.ctrl_queue == 2
    assert rig.use_pairs(2) == NET_ERR
    assert rig.device.core.ctrl_stats.ctrl_not_negotiated == 1
    assert rig.command(CtrlClass.RX, RxCommand.PROMISC, b"\1") == NET_OK
    assert rig.device.op_get_vq_group(2) == 1
    assert [rig.device.op_get_vq_group(index) for index in (0, 1, 3, 8)] == [0, 0, 0, 0]


# --- the control queue ------------------------------------------------------------------------------------------------


def test_commands_are_acknowledged_in_order() -> None:
    rig = PairsRig(pairs=1, features=Feature.NET_GUEST_ANNOUNCE.bit).start()
    mac = b"\2\0\0\0\0\7"
    before = rig.device.op_get_generation()
    assert rig.command(CtrlClass.MAC, MacCommand.ADDR_SET, mac) == NET_OK
    assert rig.device.op_get_config(0, 6) == mac
    assert rig.device.op_get_generation() == before + 1
    assert rig.command(CtrlClass.MAC, MacCommand.ADDR_SET, b"\1" + mac[1:]) == NET_ERR
    assert rig.command(99, 0, b"") == NET_ERR
    stats = rig.device.core.ctrl_stats
    assert (stats.ctrl_commands, stats.ctrl_unknown, stats.ctrl_bad_value) == (3, 1, 1)


def test_an_announcement_is_asked_for_and_acknowledged() -> None:
    rig = PairsRig(pairs=1, features=Feature.NET_GUEST_ANNOUNCE.bit).start()
    state = rig.device.core.state
    before = state.generation
    assert state.ask_announce()
    assert rig.device.op_get_config(6, 2) == b"\3\0"
    assert rig.command(CtrlClass.ANNOUNCE, AnnounceCommand.ACK, b"") == NET_OK
    assert rig.device.op_get_config(6, 2) == b"\1\0"
    assert rig.device.op_get_generation() == before + 2


@pytest.mark.parametrize("writable", [[], [(RAM + IOVA, 0)]])
def test_a_command_without_room_for_its_ack_breaks_the_control_queue_alone(writable: list[tuple[int, int]]) -> None:
    rig = PairsRig(pairs=1, features=0).start()
    rig.rings[2].add([(RAM + IOVA, 3)], writable, "deaf")
    rig.port.doorbell(2)
    rig.settle()
    assert [q.index for q in rig.device.queues if q.broken] == [2]
    rig.net.transmit([frame(MAC)])
    rig.settle()
    assert rig.got_on == [[frame(MAC)]]


def test_a_command_during_a_change_of_map_is_carried_out() -> None:
    rig = PairsRig(pairs=2).start()
    assert rig.set_map() is None
    rig.ask(CtrlClass.RX, RxCommand.ALLMULTI, b"\1")
    rig.settle()
    assert rig.answer() == NET_OK
    assert rig.device.core.state.allmulti
    assert rig.to_vmm[-1].errno == 0
    assert rig.device.core.on_stop(rig.ctrl_queue) == [], "the control queue holds nothing back"


# --- mergeable receive buffers ----------------------------------------------------------------------------------------


def merging(rx_bytes: int, size: int = 8) -> tuple[PairsRig, Line]:
    line = Line()
    rig = PairsRig(pairs=1, features=MRG, rx_bytes=rx_bytes, size=size, backend=line)
    rig.bring_up()
    return rig, line


@pytest.mark.parametrize(
    ("size", "buffers"), [(64 - 12, 1), (64 - 11, 2), (128 - 12, 2), (128 - 11, 3), (192 - 12, 3), (512 - 12, 8)]
)
def test_a_packet_over_several_buffers(size: int, buffers: int) -> None:
    rig, line = merging(64)
    rig.net.start()
    rig.settle()
    sent = frame(MAC, size)
    line.comes(sent)
    rig.device.batch_end()
    (used,) = [m for m in rig.to_port if isinstance(m, Used)]
    assert [len(written) for _, written in used.elems] == [64] * (buffers - 1) + [size + 12 - 64 * (buffers - 1)]
    assert used.elems[0][1][10:12] == buffers.to_bytes(2, "little"), "num_buffers"
    rig.settle()
    assert rig.got_on == [[sent]]
    assert rig.net.stats.rx_merged == (buffers > 1)
    stats = rig.device.core.stats
    assert (stats.rx_frames, stats.rx_buffers, stats.rx_bytes) == (1, buffers, size)


def test_long_and_short_packets_keep_their_order() -> None:
    rig, line = merging(64)
    rig.net.start()
    rig.settle()
    sent = [frame(MAC, size, size & 0xFF) for size in (20, 100, 30, 150, 52, 53)]
    line.comes(*sent)
    rig.settle()
    assert rig.got_on == [sent]
    assert rig.device.core.stats.rx_buffers == 1 + 2 + 1 + 3 + 1 + 2


def test_the_buffers_of_a_packet_are_shown_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answers do not fit one frame, no packet is parted by its end (§5.1.6.4.1)."""
    monkeypatch.setattr("common.virtio.remote_queue._FRAME_PAYLOAD", 250)
    rig, line = merging(64)
    rig.net.start()
    rig.settle()
    sent = [frame(MAC, 100, n) for n in range(4)]
    line.comes(*sent)
    rig.device.batch_end()
    used = [[head for head, _ in m.elems] for m in rig.to_port if isinstance(m, Used)]
    assert [len(heads) for heads in used] == [2, 2, 2, 2]
    rig.settle()
    assert rig.got_on == [sent]


def test_a_packet_waits_for_enough_buffers() -> None:
    rig, line = merging(64)
    ring, at = rig.rings[0], RAM + 0x20000
    sent = frame(MAC, 150)
    line.comes(sent, frame(MAC, 20))
    for count in (1, 2):
        ring.add([], [(at + IOVA, 64)], at)
        rig.port.doorbell(0)
        rig.step("device")
        assert len(line.backlog[0]) == 2, f"{count} buffers are too few, and packets keep their order"
        at += 64
    ring.add([], [(at + IOVA, 64)], at)
    rig.port.doorbell(0)
    rig.step("device")
    assert len(line.backlog[0]) == 1
    assert rig.device.core.stats.rx_frames == 1


def test_a_packet_that_all_buffers_together_cannot_hold_is_dropped() -> None:
    """The whole ring is given and does not hold it: waiting for more would be waiting for ever."""
    rig, line = merging(64, size=2)
    rig.net.start()
    rig.settle()
    line.comes(frame(MAC, 200), frame(MAC, 100), frame(MAC, 117))
    rig.settle()
    assert rig.got_on == [[frame(MAC, 100)]]
    assert rig.device.core.stats.rx_too_long == 2
    assert not line.backlog[0]


def test_buffers_of_several_descriptors_fill_the_ring_too() -> None:
    rig, line = merging(64, size=4)
    ring, at = rig.rings[0], RAM + 0x20000
    for n in range(2):
        ring.add([], [(at + IOVA, 32), (at + 32 + IOVA, 32)], n)
        at += 64
        rig.port.doorbell(0)
        line.comes(frame(MAC, 300))
        rig.step("device")
        assert len(line.backlog[0]) == (n == 0)
    assert rig.device.core.stats.rx_too_long == 2


def test_an_echo_does_not_pile_up_packets_that_do_not_fit() -> None:
    """One small buffer, and a driver that transmits on and on: what is sent waits on its own queue."""
    rig = PairsRig(pairs=1, features=MRG, rx_bytes=64)
    rig.bring_up()
    at = RAM + 0x20000
    rig.rings[0].add([], [(at + IOVA, 64)], at)
    rig.port.doorbell(0)
    for _ in range(5):
        rig.nets[0].transmit([frame(MAC, 200)] * 8)
        rig.settle()
    core = rig.device.core
    assert len(core.backend.backlog[0]) == 1
    assert len(core.pairs[0].waiting) + rig.net.room == rig.size
    for n in range(1, 4):
        rig.rings[0].add([], [(at + 64 * n + IOVA, 64)], at)
        rig.port.doorbell(0)
        rig.step("device")
    assert core.stats.rx_frames == 1, "212 bytes need four buffers"
    assert len(core.backend.backlog[0]) == 0
    assert len(core.pairs[0].waiting) + rig.net.room == rig.size


def test_a_packet_longer_than_a_frame_is_dropped() -> None:
    rig, line = merging(1024)
    rig.net.start()
    rig.settle()
    line.comes(frame(MAC, 1519), frame(MAC, 1518))
    rig.settle()
    assert rig.got_on == [[frame(MAC, 1518)]]
    assert rig.device.core.stats.rx_too_long == 1


def test_the_mtu_bounds_what_is_received_where_it_was_negotiated() -> None:
    for features, longest in ((0, 1518), (Feature.NET_MTU.bit, 618)):
        line = Line()
        rig = PairsRig(pairs=1, features=features, backend=line, mtu=600).start()
        line.comes(frame(MAC, longest + 1), frame(MAC, longest))
        rig.settle()
        assert rig.got_on == [[frame(MAC, longest)]]


# --- offloads and the receive filter ----------------------------------------------------------------------------------

UDP = frame(MAC, 14) + bytes(20) + bytes.fromhex("0035 0035 000c 0000") + b"data"
NEEDS_CSUM = NET_HEADER.pack(HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 6, 0)


@pytest.mark.parametrize("guest_csum", [False, True])
def test_a_checksum_that_is_to_be_computed(guest_csum: bool) -> None:
    """With GUEST_CSUM the request is passed on; without, the NIC computes it (§5.1.6.4)."""
    features = Feature.NET_CSUM.bit | (Feature.NET_GUEST_CSUM.bit if guest_csum else 0)
    rig = PairsRig(pairs=1, features=features).start()
    assert rig.net.transmit_csum([(UDP, 34, 6)]) == 1
    rig.step("device")
    (used,) = [m for m in rig.to_port if isinstance(m, Used) and m.queue == 0]
    packet = used.elems[0][1]
    assert packet[10:12] == b"\1\0", "num_buffers"
    if guest_csum:
        assert packet[:10] == NEEDS_CSUM[:10]
        assert packet[NET_HEADER_BYTES:] == UDP
    else:
        assert packet[:10] == bytes(10)
        summed = sum(int.from_bytes(packet[i : i + 2], "big") for i in range(NET_HEADER_BYTES + 34, len(packet), 2))
        assert summed % 0xFFFF == 0
        assert packet[NET_HEADER_BYTES + 40 : NET_HEADER_BYTES + 42] != b"\0\0"
    rig.settle()
    assert rig.net.stats.rx_csum_partial == guest_csum


@pytest.mark.parametrize("promisc", [b"\0", b"\1"])
def test_what_a_header_says_without_a_flag(promisc: bytes) -> None:
    """Lengths and offsets mean nothing then, and num_buffers is the NIC's in any case."""
    line = Line()
    rig = PairsRig(pairs=1, features=0, backend=line).start()
    assert rig.command(CtrlClass.RX, RxCommand.PROMISC, promisc) == NET_OK
    line.comes(UDP, header=NET_HEADER.pack(0, 0, 14, 99, 1, 2, 7))
    rig.device.batch_end()
    (used,) = [m for m in rig.to_port if isinstance(m, Used)]
    packet = used.elems[0][1]
    assert packet[:2] == b"\0\0"
    assert packet[10:12] == b"\1\0"
    assert packet[NET_HEADER_BYTES:] == UDP


def test_a_guest_offload_that_is_turned_off() -> None:
    features = Feature.NET_CSUM.bit | Feature.NET_GUEST_CSUM.bit | Feature.NET_CTRL_GUEST_OFFLOADS.bit
    rig = PairsRig(pairs=1, features=features).start()
    assert rig.command(CtrlClass.GUEST_OFFLOADS, 0, bytes(8)) == NET_OK
    rig.net.transmit_csum([(UDP, 34, 6)])
    rig.settle()
    assert rig.net.stats.rx_csum_partial == 0


def test_a_checksum_outside_the_frame_is_malformed() -> None:
    rig = PairsRig(pairs=1, features=Feature.NET_CSUM.bit).start()
    rig.net.transmit_csum([(UDP, 40, 6), (UDP, 34, 6)])
    rig.settle()
    assert rig.device.core.stats.tx_malformed == 1
    assert len(rig.got_on[0]) == 1


def test_the_receive_filter() -> None:
    line = Line()
    rig = PairsRig(pairs=1, features=0, backend=line).start()
    other = b"\2\0\0\0\0\x42"
    line.comes(frame(MAC), frame(other), frame(b"\xff" * 6))
    rig.settle()
    assert len(rig.got_on[0]) == 3, "promiscuous after reset"
    assert rig.command(CtrlClass.RX, RxCommand.PROMISC, b"\0") == NET_OK
    line.comes(frame(MAC), frame(other), frame(b"\xff" * 6))
    rig.settle()
    assert rig.got_on[0][3:] == [frame(MAC), frame(b"\xff" * 6)]
    assert rig.device.core.stats.rx_filtered == 1
    assert rig.command(CtrlClass.MAC, MacCommand.ADDR_SET, other) == NET_OK
    line.comes(frame(MAC), frame(other))
    rig.settle()
    assert rig.got_on[0][5:] == [frame(other)]


def test_a_reset_takes_the_filter_and_the_pairs_back() -> None:
    rig = PairsRig(pairs=2).start()
    rig.use_pairs(2)
    rig.command(CtrlClass.RX, RxCommand.PROMISC, b"\0")
    rig.driver("set_status", 0)
    state = rig.device.core.state
    assert (state.pairs, state.promisc, rig.device.core.ctrl_queue) == (1, True, -1)
    assert rig.device.op_get_vq_group(4) == 1, "where it is before anything is negotiated"


def test_counters_begin_at_nothing() -> None:
    assert all(value == 0 for value in (getattr(NicStats(), name) for name in NicStats.__slots__))
    assert isinstance(Echo(2).backlog[1], deque)
