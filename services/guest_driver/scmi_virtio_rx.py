"""The platform-to-agent channel of virtio-scmi: notifications and delayed responses come by the eventq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.virtio.split_driver import SplitDriver
from common.world import Array, Memory, World
from services.guest_driver.scmi_channel import RxCallback, VioChannel
from services.guest_driver.scmi_message import MAX_PDU_SIZE, Layout, VioMsg

_ALIGN: Final = 8


class RxChannel(VioChannel):
    """``world.new(RxChannel, world, memory, vqueue, layout, notify, rx_callback)``; then :meth:`start`.

    ``max_msg`` buffers of MAX_PDU_SIZE bytes, as many as the queue has entries, one device-writable descriptor each.
    A message is fed back as soon as the callback has read it, with one doorbell a burst.
    """

    __slots__ = ("max_msg", "messages")

    max_msg: Final[int]
    messages: Final[Array[VioMsg]]

    def __init__(
        self,
        world: World,
        memory: Memory,
        vqueue: SplitDriver,
        layout: Layout,
        notify: Callable[[], None],
        rx_callback: RxCallback,
    ) -> None:
        super().__init__(world, memory, vqueue, notify, rx_callback)
        self.max_msg = vqueue.size
        self.messages = world.array(vqueue.size)
        for i in range(vqueue.size):
            self.messages[i] = world.new(VioMsg, world, 0, layout.alloc(MAX_PDU_SIZE, _ALIGN))

    def start(self) -> None:
        """Give every buffer to the device: one doorbell for all."""
        with self.lock:
            for i in range(self.max_msg):
                self.vqueue.add((), ((self.messages[i].input, MAX_PDU_SIZE),), self.messages[i])
            if self.vqueue.kick_prepare():
                self.notify()

    def finalize(self, msg: VioMsg) -> None:
        """Feed the buffer back; the device hears of it when the callback has emptied the ring. Raises RingError where
        the device broke it."""
        with self.lock:
            self.vqueue.add((), ((msg.input, MAX_PDU_SIZE),), msg)

    def drained(self) -> None:
        # One doorbell for all that was fed back: a burst of notifications costs one frame, not one each. The device
        # cannot starve meanwhile: what it has used up is what the callback is taking.
        if self.vqueue.num_added and self.vqueue.kick_prepare():
            self.notify()
