"""The NIC rig with several queue pairs, a control queue and receive buffers of any size.

Imported as ``tests.services.vdpa_nic.pairs_rig``.
"""

from __future__ import annotations

from functools import partial
from typing import Final, Self

from common.virtio.features import Feature, mask
from common.virtio.net_ctrl import CTRL_HEADER, VQ_PAIRS, CtrlClass, MqCommand
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_pair import BUFFER_BYTES, NetPair
from services.vdpa_nic.backends.backend import Backend
from tests.services.vdpa_nic.nic_rig import Rig
from tests.services.vdpa_nic.wire_rig import IOVA

CTRL: Final = mask(Feature.NET_CTRL_VQ, Feature.NET_CTRL_RX, Feature.NET_CTRL_MAC_ADDR)
CTRL_SIZE: Final = 4


class PairsRig(Rig):
    """One NIC with ``pairs`` queue pairs, all of which the driver has set up, and a control queue behind them; without
    MQ among the ``features`` that the driver takes beside CTRL the first pair alone. ``rx_bytes`` is the size of a
    receive buffer."""

    def __init__(
        self,
        *,
        pairs: int = 2,
        features: int = Feature.NET_MQ.bit,
        size: int = 8,
        rx_bytes: int = BUFFER_BYTES,
        backend: Backend | None = None,
        mtu: int = 1500,
    ) -> None:
        super().__init__(size=size, backend=backend, pairs=pairs, mtu=mtu)
        self.features |= CTRL | features
        used = pairs if self.features & Feature.NET_MQ.bit else 1
        self.ctrl_queue = 2 * used
        self.irqs = [0] * 9
        self.pending = [False] * 9
        for index in range(2, 2 * used + 1):
            self.add_ring(CTRL_SIZE if index == self.ctrl_queue else size)
        #: frames received, by pair
        self.got_on: list[list[bytes]] = [[] for _ in range(used)]
        self.nets = []
        for pair in range(used):
            pools = []
            for room in (rx_bytes, BUFFER_BYTES):
                pools.append(BufferPool(self.memory, room))
                pools[-1].add_bank(self.layout.alloc(size * room), size * room)
            self.nets.append(
                NetPair(
                    (self.rings[2 * pair], self.rings[2 * pair + 1]),
                    (pools[0], pools[1]),
                    iova=IOVA,
                    notify=self.port.doorbell,
                    receive=partial(self._receive, pair),
                    index=pair,
                    mergeable=bool(features & Feature.NET_MRG_RXBUF.bit),
                )
            )
        self.net = self.nets[0]
        self._command = self.layout.alloc(4096)

    def _receive(self, pair: int, frames: list[bytes]) -> None:
        self.got_on[pair] += frames

    def interrupts(self) -> None:
        super().interrupts()
        self.pending[self.ctrl_queue] = False

    def start(self) -> Self:
        self.bring_up()
        for net in self.nets:
            net.start()
        self.settle()
        return self

    def ask(self, cls: int, command: int, data: bytes) -> None:
        """Put one control command into the control queue."""
        at = self._command
        whole = CTRL_HEADER.pack(cls, command) + data
        self.memory.write(at, whole)
        self.memory.write(at + 2048, b"\xee")
        self.rings[self.ctrl_queue].add([(at + IOVA, len(whole))], [(at + 2048 + IOVA, 1)], "ctrl")
        self.port.doorbell(self.ctrl_queue)

    def answer(self) -> int:
        """The ack of the last command, which the device must have used."""
        assert self.rings[self.ctrl_queue].get_buf() == ("ctrl", 1)
        return self.memory.read(self._command + 2048, 1)[0]

    def command(self, cls: int, command: int, data: bytes) -> int:
        """Carry one control command out over the wire; its ack."""
        self.ask(cls, command, data)
        self.settle()
        return self.answer()

    def use_pairs(self, pairs: int) -> int:
        return self.command(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, VQ_PAIRS.pack(pairs))
