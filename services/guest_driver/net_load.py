"""The network load of one guest: frames on all queue pairs of its NIC, and the books of each pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from common.histogram import Histogram
from common.virtio.flow import flow_hash
from services.guest_driver.config import WorkloadConfig
from services.guest_driver.guest_nic import GuestNic
from services.guest_driver.net_ledger import NetLedger
from services.guest_driver.net_pair import TX
from services.guest_driver.replay_ledger import ReplayLedger


class NetLoad:
    """Keeps ``config.net_window`` frames in flight, as many on each pair; ``clock`` gives nanoseconds. It takes the
    hooks of ``nic``."""

    def __init__(
        self, nic: GuestNic, config: WorkloadConfig, frames: Sequence[bytes], clock: Callable[[], int]
    ) -> None:
        self._nic: Final = nic
        self._config: Final = config
        self._frames: Final = frames
        self._clock: Final = clock
        self.running = False
        #: seconds, all pairs together
        self.rtt: Final = Histogram()
        #: one a queue pair
        self.ledgers: Sequence[NetLedger | ReplayLedger] = []
        self._windows: list[int] = []
        self._open(1)
        nic.on_pairs = self._open
        nic.receive = self._received
        nic.after_tx = self._top_up
        nic.on_restart = self._restarted
        nic.on_carrier = self._carrier
        nic.quiet = self.quiet

    def _open(self, pairs: int) -> None:
        """The NIC is driven with so many pairs: nothing was sent or received yet."""
        frames, window = self._frames, self._config.net_window
        self._windows = [window // pairs + (pair < window % pairs) for pair in range(pairs)]
        if self._config.net != "replay":
            self.ledgers = [NetLedger(frames, self.rtt, pair) for pair in range(pairs)]
            return
        lanes: list[list[bytes]] = [[] for _ in range(pairs)]
        for frame in frames:
            lanes[flow_hash(frame) % pairs].append(frame)
        self.ledgers = [ReplayLedger(lane, self.rtt, frames) for lane in lanes]

    def pairs(self) -> int:
        """Queue pairs that frames go over."""
        return len(self.ledgers)

    async def prepare(self) -> None:
        """What the NIC must be told before load: nothing."""

    # --- frames -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.running = True
        self._fill()

    def _fill(self) -> None:
        for pair in range(len(self.ledgers)):
            self._top_up(pair)

    def _received(self, pair: int, frames: list[bytes]) -> None:
        self.ledgers[pair].came(frames, self._clock())
        self._top_up(pair)

    def _top_up(self, pair: int) -> None:
        """Keep the window of ``pair`` full."""
        if not self.running or not self._may_send(pair):
            return
        net, ledger = self._nic.net.pairs[pair], self.ledgers[pair]
        in_flight = ledger.outstanding if self._config.net != "replay" else net.rings[TX].in_flight
        count = min(self._windows[pair] - in_flight, net.room)
        if count > 0:
            net.transmit(ledger.make(count, self._clock()))

    def _may_send(self, pair: int) -> bool:
        nic = self._nic
        # what a device has for a receive queue that is being reset is dropped: it shall have nothing
        return nic.carrier and pair not in nic.resets.under_way

    def quiet(self, pair: int) -> bool:
        """Is nothing to be received on ``pair``?"""
        ledger = self.ledgers[pair]
        return not ledger.outstanding if isinstance(ledger, NetLedger) else ledger.empty

    def store(self, queue: int) -> int:
        """One frame into the transmit ring ``queue``, without a doorbell (a Driver for port_holds)."""
        net = self._nic.net.pairs[queue >> 1]
        if not net.room or net.rings[TX].broken:
            return 0
        return net.transmit(self.ledgers[queue >> 1].make(1, self._clock()), xmit_more=True)

    def kick(self, queue: int) -> bool:
        """The doorbell of what store() put there."""
        return self._nic.net.pairs[queue >> 1].kick_tx()

    # --- the NIC ------------------------------------------------------------------------------------------------------

    def _restarted(self) -> None:
        for ledger in self.ledgers:
            ledger.device_reset()
        # the frames put in doubt do not fill the window; what is sent now waits in the ring for the new NIC
        self._fill()

    def _carrier(self, up: bool) -> None:
        """A NIC without its cable drops what it has, and what it is given."""
        if not up:
            for ledger in self.ledgers:
                ledger.device_reset()
        self._fill()

    # --- the books ----------------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Frames sent that may still come back, those a reset put in doubt aside."""
        return self.total("outstanding")

    @property
    def tx(self) -> int:
        return self.total("tx")

    @property
    def rx(self) -> int:
        return self.total("rx")

    def total(self, key: str) -> int:
        """An entry of the books, all pairs together."""
        return sum(getattr(ledger, key) for ledger in self.ledgers)

    def close(self) -> int:
        """After the drain: how many frames are lost."""
        self.running = False
        return sum(ledger.close() for ledger in self.ledgers)
