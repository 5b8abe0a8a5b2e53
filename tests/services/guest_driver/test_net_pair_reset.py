"""Reset of one queue of a pair: what was received is handed on, every buffer comes back, the ring begins anew."""

from __future__ import annotations

import pytest

from common.errors import LocalError
from services.guest_driver.net_pair import BUFFER_BYTES, RX, TX
from tests.services.guest_driver.net_bench import BANK, DIMM, Bench, header

SIZE = 4


@pytest.fixture
def bench() -> Bench:
    made = Bench(SIZE)
    made.net.start()
    made.bells.clear()
    return made


@pytest.mark.parametrize("small", [0, 64])
def test_receive_queue(small: int) -> None:
    bench = Bench(SIZE, small=small)
    bench.net.start()
    bench.fill(b"a" * 20)
    bench.net.rx_callback()
    bench.bells.clear()
    bench.fill(b"b" * 20)
    bench.net.rx_pause()
    assert bench.net.rx_callback() == 0
    assert bench.net.stats.rx_interrupts == 2
    bench.fill(b"c" * 20)
    assert bench.net.rx_reset() == 2
    assert bench.frames() == [b"a" * 20, b"b" * 20, b"c" * 20]
    assert bench.net.stats.rx_buffers == 3
    assert bench.bells == [], "no doorbell before the queue is enabled"
    assert bench.rx_pool.free == (0 if small else SIZE)
    bench.rx = bench.device(RX)
    bench.net.rx_resume()
    assert bench.bells == [RX]
    assert bench.rx.available() == SIZE
    for n in range(9):
        bench.fill(bytes([n]) * 20)
        assert bench.net.rx_callback() == 1


def test_what_came_before_resume_is_taken(bench: Bench) -> None:
    bench.net.rx_pause()
    bench.net.rx_reset()
    bench.rx = bench.device(RX)
    bench.fill(b"a" * 20)
    bench.net.rx_resume()
    assert bench.frames() == [b"a" * 20]


def test_transmit_queue(bench: Bench) -> None:
    bench.net.transmit([b"a" * 20, b"b" * 20, b"c" * 20])
    bench.bells.clear()
    assert len(bench.sent(1)) == 1
    bench.net.tx_pause()
    assert bench.net.tx_callback() == 0
    assert bench.net.stats.tx_interrupts == 1
    assert (bench.net.room, bench.net.transmit([b"d" * 20])) == (0, 0)
    assert bench.net.tx_reset() == 2
    assert bench.pool.free == SIZE
    bench.tx = bench.device(TX)
    bench.net.tx_resume()
    assert bench.bells == []
    assert bench.net.transmit([bytes([n]) * 20 for n in range(SIZE)]) == SIZE
    assert bench.bells == [TX]
    assert [packet[-1] for packet in bench.sent()] == [0, 1, 2, 3]
    assert bench.net.tx_callback() == SIZE


def test_a_reset_that_is_called_off(bench: Bench) -> None:
    """Interrupts that came meanwhile were looked past: resume looks."""
    bench.net.transmit([b"a" * 20])
    bench.net.tx_pause()
    bench.net.rx_pause()
    bench.sent()
    bench.fill(b"b" * 20)
    bench.net.tx_resume()
    bench.net.rx_resume()
    assert bench.net.room == SIZE
    assert bench.frames() == [b"b" * 20]


def test_a_queue_that_runs_is_not_reset(bench: Bench) -> None:
    with pytest.raises(LocalError, match="not paused"):
        bench.net.rx_reset()
    with pytest.raises(LocalError, match="not paused"):
        bench.net.tx_reset()


def test_a_broken_queue_is_whole_again(bench: Bench) -> None:
    bench.fill(b"a" * 20)
    bench.rx.push_batch([(0, 20)])
    bench.net.rx_pause()
    assert bench.net.rx_reset() == 1
    assert bench.net.rings[RX].num_free == 0
    assert bench.pool.free == SIZE
    bench.rx = bench.device(RX)
    bench.net.rx_resume()
    bench.fill(b"b" * 20)
    assert bench.net.rx_callback() == 1
    assert bench.frames() == [b"a" * 20, b"b" * 20]


def test_a_packet_whose_pieces_the_reset_cut_is_dropped() -> None:
    bench = Bench(SIZE, small=64)
    bench.net.start()
    bench.place(header(0, 2) + b"x" * 20)
    bench.net.rx_pause()
    assert bench.net.rx_reset() == 0
    assert bench.net.stats.rx_length_errors == 1
    assert bench.net.rings[RX].num_free == 0


def test_an_idle_receive_ring_leaves_a_bank_by_a_reset(bench: Bench) -> None:
    bench.memory.add_region(DIMM, 1 << 15)
    bench.pool.add_bank(DIMM, SIZE * BUFFER_BYTES)
    gone: list[int] = []
    bench.pool.retire(BANK, lambda: gone.append(1))
    assert bench.net.held(BANK, DIMM) == (SIZE, 0)
    bench.net.rx_pause()
    bench.net.rx_reset()
    assert gone
    assert bench.net.held(BANK, DIMM) == (0, 0)
    assert bench.net.rings[RX].num_free == 0


def test_buffers_that_come_during_a_reset_ring_no_doorbell() -> None:
    bench = Bench(SIZE)
    kept = bench.pool.take_batch(2 * SIZE)
    bench.net.start()
    bench.bells.clear()
    bench.net.rx_pause()
    bench.net.rx_reset()
    bench.pool.give_batch(kept)
    assert (bench.net.rings[RX].num_free, bench.bells) == (0, [])
    bench.net.rx_resume()
    assert bench.bells == [RX]
