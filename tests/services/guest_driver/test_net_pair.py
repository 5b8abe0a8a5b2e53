"""One queue pair on its rings: batches, refill, suppression, merged buffers, checksum fields, buffers that come back
odd."""

from __future__ import annotations

import pytest

from common.errors import LocalError, RingError
from common.memory import GuestMemory
from common.virtio.net_header import (
    HDR_F_DATA_VALID,
    HDR_F_NEEDS_CSUM,
    MAX_ETHERNET,
    NET_HEADER,
    NET_HEADER_BYTES,
    TX_PLAIN,
)
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_pair import BUFFER_BYTES, NAPI_BUDGET, RX, TX, NetPair
from tests.services.guest_driver.net_bench import BANK, DIMM, IOVA, Bench, header

SIZE = 4
SMALL = 64


@pytest.fixture
def bench() -> Bench:
    made = Bench(SIZE)
    made.net.start()
    return made


@pytest.fixture
def merging() -> Bench:
    made = Bench(8, small=SMALL)
    made.net.start()
    return made


def test_a_buffer_holds_a_frame() -> None:
    assert BUFFER_BYTES % 64 == 0
    assert BUFFER_BYTES - 64 < NET_HEADER_BYTES + MAX_ETHERNET <= BUFFER_BYTES


def test_pools_of_too_small_buffers_are_refused() -> None:
    bench = Bench(SIZE)
    memory = GuestMemory(1 << 16)
    big, small, tiny = (BufferPool(memory, size) for size in (BUFFER_BYTES, SMALL, NET_HEADER_BYTES))
    for pools, mergeable in (((small, big), False), ((big, small), True), ((tiny, big), True)):
        with pytest.raises(LocalError, match="hold no frame"):
            NetPair(
                bench.net.rings, pools, iova=0, notify=bench.bells.append, receive=bench.got.append, mergeable=mergeable
            )


def test_start_gives_every_buffer_and_kicks_once(bench: Bench) -> None:
    assert bench.bells == [RX]
    popped = bench.rx.pop_batch(SIZE)
    assert [segments[0][0] for _, segments, _ in popped] == [IOVA + BANK + n * BUFFER_BYTES for n in range(SIZE)]
    assert bench.net.stats.rx_kicks == 1
    assert bench.net.rings[RX].num_free == 0


def test_transmit_takes_what_fits(bench: Bench) -> None:
    frames = [bytes([n]) * (14 + n) for n in range(SIZE + 2)]
    assert bench.net.transmit([]) == 0
    assert bench.net.transmit(frames) == SIZE
    assert bench.net.room == 0
    assert bench.net.transmit(frames) == 0
    assert (bench.net.stats.tx_kicks, bench.net.stats.tx_buffers, bench.bells) == (1, SIZE, [RX, TX])
    assert bench.sent(3) == [TX_PLAIN + frame for frame in frames[:3]]
    assert bench.net.tx_callback() == 3
    assert bench.net.room == 3
    assert bench.net.tx_callback() == 0
    assert bench.net.stats.tx_interrupts == 2


def test_what_completes_during_the_callback_is_taken_too(bench: Bench) -> None:
    """Between the last look and switching interrupts on again: no interrupt comes for it."""
    bench.net.transmit([b"a" * 20, b"b" * 20])
    bench.sent(1)
    bench.pool.when_free(lambda: bench.sent(1))
    assert bench.net.tx_callback() == 2


def test_room_is_what_pool_and_ring_have(bench: Bench) -> None:
    taken = bench.pool.take_batch(2)
    assert (bench.net.rings[TX].num_free, bench.net.room) == (SIZE, 2)
    assert bench.net.transmit([b"x" * 20] * 3) == 2
    bench.pool.give_batch(taken)
    assert bench.net.room == 2


def test_a_frame_that_is_too_long_sends_nothing(bench: Bench) -> None:
    with pytest.raises(LocalError, match=f"{BUFFER_BYTES + 1} bytes"):
        bench.net.transmit([b"a" * 20, b"b" * (BUFFER_BYTES - NET_HEADER_BYTES + 1)])
    assert bench.net.room == SIZE
    assert bench.sent() == []


def test_a_broken_transmit_ring_keeps_no_buffers(bench: Bench) -> None:
    bench.net.rings[TX].broken = True
    with pytest.raises(RingError):
        bench.net.transmit([b"a" * 20])
    assert bench.pool.free == SIZE


def test_checksum_fields_are_sent(bench: Bench) -> None:
    assert bench.net.transmit_csum([(b"f" * 60, 34, 16), (b"g" * 70, 14, 6)]) == 2
    assert bench.sent() == [
        NET_HEADER.pack(HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 16, 0) + b"f" * 60,
        NET_HEADER.pack(HDR_F_NEEDS_CSUM, 0, 0, 0, 14, 6, 0) + b"g" * 70,
    ]


def test_one_doorbell_for_what_is_sent_with_more_to_come(bench: Bench) -> None:
    bench.net.transmit([b"a" * 20], xmit_more=True)
    bench.net.transmit([b"b" * 20], xmit_more=True)
    assert (bench.bells, bench.tx.available()) == ([RX], 2)
    assert bench.net.kick_tx()
    assert not bench.net.kick_tx(), "nothing since"
    assert (bench.bells, bench.net.stats.tx_kicks) == ([RX, TX], 1)


def test_no_doorbell_where_the_device_wants_none() -> None:
    bench = Bench(SIZE, event_idx=False)
    bench.tx.disable_notify()
    bench.net.transmit([b"x" * 20])
    assert (bench.bells, bench.net.stats.tx_kicks) == ([], 0)


def test_receive_in_order_and_refill(bench: Bench) -> None:
    for n in range(3):
        bench.fill(bytes([n]) * (20 + n))
    assert bench.net.rx_callback() == 3
    assert bench.got == [[bytes([n]) * (20 + n) for n in range(3)]]
    assert bench.net.rings[RX].num_free == 0, "refilled"
    for n in range(9):  # round the ring
        bench.fill(bytes([n]) * 60)
        assert bench.net.rx_callback() == 1
    assert len(bench.got) == 10
    assert bench.net.rx_callback() == 0
    assert (bench.net.stats.rx_buffers, bench.net.stats.rx_interrupts) == (12, 11)
    assert bench.pool.free == SIZE


def test_what_arrives_during_the_callback_is_taken_too(bench: Bench) -> None:
    """Between the last look and switching interrupts on again: no interrupt comes for it."""
    bench.fill(b"a" * 20)
    plain = bench.net._receive

    def receive(frames: list[bytes]) -> None:
        plain(frames)
        if len(bench.got) < 3:
            bench.fill(b"b" * 20)

    object.__setattr__(bench.net, "_receive", receive)
    assert bench.net.rx_callback() == 3
    assert len(bench.got) == 3


@pytest.mark.parametrize("length", [0, 5, NET_HEADER_BYTES, BUFFER_BYTES + 1])
def test_a_length_that_cannot_be_is_counted_and_the_buffer_goes_back(bench: Bench, length: int) -> None:
    bench.fill(b"a" * 20)
    bench.fill(b"", length, HDR_F_DATA_VALID)
    bench.fill(b"c" * 20)
    assert bench.net.rx_callback() == 2
    assert bench.got == [[b"a" * 20, b"c" * 20]]
    assert bench.net.stats.rx_length_errors == 1
    assert bench.net.stats.rx_csum_valid == 0
    assert bench.net.rings[RX].num_free == 0


def test_the_shortest_and_the_longest_that_can_be(bench: Bench) -> None:
    frames = [b"a", b"z" * (BUFFER_BYTES - NET_HEADER_BYTES)]
    for frame in frames:
        bench.fill(frame)
    assert bench.net.rx_callback() == 2
    assert bench.frames() == frames


@pytest.mark.parametrize("small", [0, SMALL])
def test_checksum_flags_are_counted(small: int) -> None:
    bench = Bench(8, small=small)
    bench.net.start()
    for flags in (HDR_F_NEEDS_CSUM, HDR_F_DATA_VALID, HDR_F_DATA_VALID, 0, 0x80):
        bench.fill(b"a" * 20, flags=flags)
    assert bench.net.rx_callback() == 5
    assert (bench.net.stats.rx_csum_partial, bench.net.stats.rx_csum_valid) == (1, 2)


# --- mergeable buffers ------------------------------------------------------------------------------------------------


def test_pieces_are_put_together(merging: Bench) -> None:
    frames = [b"one", bytes(range(200)), b"three" * 20, b"4" * (SMALL - NET_HEADER_BYTES)]
    for frame in frames:
        merging.merge(frame, HDR_F_DATA_VALID)
    assert merging.net.rx_callback() == 4
    assert merging.frames() == frames
    stats = merging.net.stats
    assert (stats.rx_merged, stats.rx_buffers, stats.rx_length_errors, stats.rx_csum_valid) == (2, 8, 0, 4)
    assert merging.net.rings[RX].num_free == 0


def test_a_packet_that_the_budget_cuts() -> None:
    bench = Bench(128, small=SMALL)
    bench.net.start()
    frames = [bytes([n]) * 20 for n in range(NAPI_BUDGET - 1)] + [bytes(range(160)), b"last"]
    for frame in frames:
        bench.merge(frame)
    assert bench.net.rx_callback() == NAPI_BUDGET + 1
    assert bench.frames() == frames
    assert [len(batch) for batch in bench.got] == [NAPI_BUDGET, 1]
    assert bench.net.rings[RX].num_free == 0


@pytest.mark.parametrize("count", [0, 9, 0xFFFF])
def test_a_number_of_buffers_that_cannot_be(merging: Bench, count: int) -> None:
    merging.place(header(0, count) + b"x" * 20)
    merging.fill(b"next")
    assert merging.net.rx_callback() == 1
    assert merging.frames() == [b"next"]
    assert merging.net.stats.rx_length_errors == 1


def test_pieces_that_are_missing(merging: Bench) -> None:
    """What the device shows is taken for the packet's, as Linux does; what it shows later is a packet again."""
    merging.place(header(0, 3) + b"x" * 80, 2)
    assert merging.net.rx_callback() == 0
    assert merging.net.stats.rx_length_errors == 1
    merging.fill(b"next")
    assert merging.net.rx_callback() == 1
    assert merging.net.rings[RX].num_free == 0


@pytest.mark.parametrize("length", [0, SMALL + 1])
def test_a_piece_of_a_length_that_cannot_be(merging: Bench, length: int) -> None:
    merging.place(header(HDR_F_DATA_VALID, 2) + b"x" * 80, 2, {1: length})
    merging.merge(b"y" * 80)
    assert merging.net.rx_callback() == 1
    assert merging.frames() == [b"y" * 80]
    assert (merging.net.stats.rx_length_errors, merging.net.stats.rx_csum_valid) == (1, 0)


def test_a_lie_behind_the_budget_loses_nothing_before_it() -> None:
    bench = Bench(128, small=SMALL)
    bench.net.start()
    for _ in range(NAPI_BUDGET - 1):
        bench.fill(b"a" * 20)
    bench.place(header(0, 2) + b"b" * 20)
    bench.rx.push_batch([(128, 20)])  # no such descriptor
    with pytest.raises(RingError, match=r"used\.id"):
        bench.net.rx_callback()
    assert len(bench.frames()) == NAPI_BUDGET - 1
    assert bench.net.stats.rx_length_errors == 1


# --- too few buffers --------------------------------------------------------------------------------------------------


def test_a_receive_ring_that_finds_too_few_buffers_gets_them_later(bench: Bench) -> None:
    poor = Bench(SIZE)
    kept = poor.pool.take_batch(2 * SIZE - 1)
    poor.net.start()
    assert (poor.net.stats.rx_oom, poor.net.rings[RX].in_flight) == (1, 1)
    poor.fill(b"a" * 20)
    assert poor.net.rx_callback() == 1
    assert poor.net.stats.rx_oom == 1, "it waits already"
    poor.pool.give_batch(kept[:2])
    assert poor.net.rings[RX].in_flight == 3
    assert poor.net.stats.rx_oom == 2
    poor.pool.give_batch(kept[2:])
    assert poor.net.rings[RX].in_flight == SIZE
    assert poor.bells == [RX] * len(poor.bells)
    assert poor.rx.available() == SIZE
    assert poor.pool.free == SIZE


def test_who_waits_for_buffers_with_a_broken_ring_gets_none() -> None:
    bench = Bench(SIZE)
    kept = bench.pool.take_batch(2 * SIZE)
    bench.net.start()
    bench.net.rings[RX].broken = True
    bench.pool.give_batch(kept)
    assert bench.pool.free == 2 * SIZE


# --- banks that come and go -------------------------------------------------------------------------------------------


def test_a_new_bank_is_used_at_the_next_refill(bench: Bench) -> None:
    bench.memory.add_region(DIMM, 1 << 15)
    bench.pool.add_bank(DIMM, SIZE * BUFFER_BYTES)
    assert bench.fill(b"a" * 20) < DIMM
    bench.net.rx_callback()
    assert bench.net.held(DIMM, DIMM + (1 << 15)) == (1, 0)
    bench.net.transmit([b"x" * 20])
    assert bench.net.held(DIMM, DIMM + (1 << 15)) == (1, 1)
    for _ in range(3):
        assert bench.fill(b"b" * 20) < DIMM
    assert bench.fill(b"c" * 20) == DIMM
    bench.net.rx_callback()
    assert bench.frames() == [b"a" * 20, *[b"b" * 20] * 3, b"c" * 20]


def test_a_bank_that_retires_is_used_up_by_traffic(bench: Bench) -> None:
    bench.memory.add_region(DIMM, 1 << 15)
    bench.pool.add_bank(DIMM, SIZE * BUFFER_BYTES)
    gone: list[int] = []
    assert bench.pool.retire(BANK, lambda: gone.append(1)) == SIZE
    for left in (3, 2, 1, 0):
        assert not gone
        bench.fill(b"a" * 20)
        bench.net.rx_callback()
        assert bench.pool.outstanding(BANK) == left
    assert gone
    assert bench.net.held(0, DIMM) == (0, 0)
    assert bench.net.rings[RX].num_free == 0


def test_a_ring_that_a_bank_left_too_few_buffers_for(bench: Bench) -> None:
    """What the transmit queue gives back fills it again."""
    bench.memory.add_region(DIMM, 1 << 15)
    bench.pool.add_bank(DIMM, 2 * BUFFER_BYTES)
    bench.net.transmit([b"x" * 20] * 2)
    bench.pool.retire(BANK)
    bench.fill(b"a" * 20)
    bench.net.rx_callback()
    assert (bench.net.rings[RX].in_flight, bench.net.stats.rx_oom) == (SIZE - 1, 1)
    bench.sent()
    bench.net.tx_callback()
    assert (bench.net.rings[RX].in_flight, bench.pool.free) == (SIZE, 1)
