"""Property: whatever a device does with the rings, in whatever batches, while banks come and go and queues are reset,
every frame arrives once, in order and byte by byte, and no buffer is lost."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.virtio.net_header import NET_HEADER_BYTES, TX_PLAIN
from services.guest_driver.net_pair import BUFFER_BYTES, RX, TX
from tests.common.virtio.ringkit import STATEFUL
from tests.services.guest_driver.net_bench import DIMM, IOVA, Bench, header

SIZE = 8
SMALL = 96
#: places for DIMMs, and bytes of each
PLACES = [DIMM + n * 0x1_0000 for n in range(3)]
DIMM_BYTES = SIZE * BUFFER_BYTES


class Pairs(RuleBasedStateMachine):
    @initialize(small=st.sampled_from([0, SMALL]), event_idx=st.booleans())
    def begin(self, small: int, event_idx: bool) -> None:
        self.bench = Bench(SIZE, event_idx=event_idx, small=small)
        self.net, self.pool = self.bench.net, self.bench.rx_pool
        self.net.start()
        self.banks = {min(self.pool.banks): "used"}
        self.plugged: set[int] = set()
        self.buffers = {bank: len(self.pool.views) for bank in self.banks}
        self.count = 0
        #: transmitted and not yet seen by the device
        self.sent: deque[bytes] = deque()
        #: heads of transmit buffers that the device works on
        self.heads: list[int] = []
        #: placed and not yet received
        self.placed: list[bytes] = []
        self.received = 0

    def frame(self, data: Any) -> bytes:
        self.count += 1
        length = data.draw(st.integers(1, 400))
        return (self.count.to_bytes(4, "little") * 100)[:length]

    # --- transmit -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 10))
    def transmit(self, data: Any, count: int) -> None:
        frames = [self.frame(data) for _ in range(count)]
        room = self.net.room
        taken = self.net.transmit(frames)
        assert taken == min(room, count)
        self.sent += frames[:taken]

    @rule(limit=st.integers(1, 10))
    def device_fetches(self, limit: int) -> None:
        for head, ((addr, length, _),), _ in self.bench.tx.pop_batch(limit):
            assert self.bench.memory.read(addr - IOVA, length) == TX_PLAIN + self.sent.popleft()
            self.heads.append(head)

    @precondition(lambda self: self.heads)
    @rule(data=st.data())
    def device_completes(self, data: Any) -> None:
        """In any order: transmit buffers are the driver's again one by one."""
        done = data.draw(st.lists(st.sampled_from(self.heads), unique=True, min_size=1))
        self.heads = [head for head in self.heads if head not in done]
        self.bench.tx.push_batch([(head, 0) for head in done])

    @rule()
    def tx_interrupt(self) -> None:
        self.net.tx_callback()

    @rule()
    def tx_reset(self) -> None:
        self.net.tx_pause()
        lost = len(self.sent) + len(self.heads)
        assert self.net.tx_reset() == lost
        self.sent.clear()
        self.heads.clear()
        self.bench.tx = self.bench.device(TX)
        self.net.tx_resume()

    # --- receive ------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 5))
    def device_receives(self, data: Any, count: int) -> None:
        for _ in range(count):
            frame = self.frame(data)
            pieces = -(-(len(frame) + NET_HEADER_BYTES) // self.pool.size)
            if self.bench.rx.available() < pieces:
                return
            self.bench.place(header(0, pieces) + frame, pieces)
            self.placed.append(frame)

    @rule()
    def rx_interrupt(self) -> None:
        self.net.rx_callback()
        self.compare()

    @rule()
    def rx_reset(self) -> None:
        self.net.rx_pause()
        self.net.rx_reset()
        self.bench.rx = self.bench.device(RX)
        self.net.rx_resume()
        self.compare()

    def compare(self) -> None:
        frames = self.bench.frames()[self.received :]
        assert frames == self.placed
        self.received += len(frames)
        self.placed = []

    # --- banks --------------------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from(PLACES), buffers=st.integers(1, SIZE))
    def plug(self, place: int, buffers: int) -> None:
        if place not in self.plugged:
            self.bench.memory.add_region(place, DIMM_BYTES)
            self.plugged.add(place)
            self.pool.add_bank(place, buffers * self.pool.size)
            self.buffers[place] = buffers
            self.banks[place] = "used"

    @rule(data=st.data())
    def retire(self, data: Any) -> None:
        used = sorted(bank for bank, state in self.banks.items() if state == "used")
        if len(used) < 2:
            return
        base = data.draw(st.sampled_from(used))
        self.banks[base] = "retiring"

        def gone() -> None:
            del self.banks[base]
            if base in self.plugged:
                self.bench.memory.remove_region(base)
                self.plugged.remove(base)

        self.pool.retire(base, gone)

    @invariant()
    def no_buffer_is_lost(self) -> None:
        rx, tx = self.net.rings
        held = rx.in_flight + (tx.in_flight if self.pool is self.bench.pool else 0)
        leaving = sum(self.pool.outstanding(base) for base, state in self.banks.items() if state == "retiring")
        usable = sum(self.buffers[base] for base, state in self.banks.items() if state == "used")
        assert self.pool.free + held == usable + leaving
        assert rx.num_free == 0 or not self.pool.free, "the receive ring starves beside free buffers"

    @invariant()
    def what_the_banks_say_is_what_the_rings_hold(self) -> None:
        for base in self.banks:
            rx, tx = self.net.held(base, base + self.buffers[base] * self.pool.size)
            assert self.pool.outstanding(base) == rx + tx

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.rx_reset()
        self.tx_reset()
        assert [base for base, state in self.banks.items() if state == "retiring"] == []
        assert self.net.stats.rx_length_errors == 0


TestPairs = Pairs.TestCase
TestPairs.settings = STATEFUL
