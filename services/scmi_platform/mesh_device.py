"""The virtio SCMI device of a guest of the mesh: :class:`ScmiCore` on remote queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.memory import ACCESS_RW, Mapping, MemoryKey, MemoryMap
from common.virtio.device import VirtioDevice
from common.virtio.device_core import Transport
from common.virtio.features import DeviceId
from common.virtio.msi_source import MsiSource
from common.virtio.policy import PortPolicy
from common.wire.messages import Chain, Message
from services.scmi_platform.core import CMDQ, FEATURES, QUEUE_SIZE, ScmiCore

#: No IOMMU stands in front of the device: addresses are guest addresses.
IDENTITY: Final = MemoryKey(MemoryMap((Mapping(0, 1 << 64, 0, ACCESS_RW),)), 0)


class ScmiDevice(VirtioDevice):
    """The device of one guest; ``make_core`` is given it as the core's transport. The rest as VirtioDevice."""

    device_id = DeviceId.SCMI

    def __init__(
        self,
        make_core: Callable[[Transport], ScmiCore],
        *,
        send: Callable[[Message], None],
        msi: MsiSource,
        clock: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        super().__init__(
            send=send, msi=msi, clock=clock, offered=FEATURES, queue_sizes=[QUEUE_SIZE, QUEUE_SIZE], log=log
        )
        self.core: Final = make_core(self)

    def key(self, _queue: int) -> MemoryKey:
        return IDENTITY

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        self.core.on_chains(queue, chains)

    def on_reset(self) -> None:
        self.core.on_reset()

    def tick(self, now: float) -> None:
        if self.core.tick(now):
            self.batch_end()

    def op_set_vq_num(self, index: int, size: int) -> None:
        self.core.check_size(index, size)
        super().op_set_vq_num(index, size)

    def start(self) -> None:
        # a fault plan that comes at run time may double an answer, and a port is told only here to let that pass
        self.queues[CMDQ].policy |= PortPolicy.UNCHECKED
        super().start()
