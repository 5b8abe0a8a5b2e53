"""What both channels of the virtio-scmi transport share (Linux: ``struct scmi_vio_channel``): users, lock, callback.

Locks, outer to inner: ``lock`` (the ring), a message's ``poll_lock``, then the list locks; no callback runs under any.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from common.errors import RingError
from common.virtio.split_driver import SplitDriver
from common.world import Atomic, Event, Fence, Memory, World
from services.guest_driver.scmi_message import MAX_PDU_SIZE, VioMsg

RxCallback = Callable[[VioMsg], None]


class VioChannel:
    """A virtqueue with messages. ``rx_callback(msg)`` hears of every message that came, in the order dequeued;
    ``notify()`` rings the queue's doorbell.

    The channel counts its users: everybody inside it, and the owner until :meth:`close`. Who finds it closing leaves
    at once; the last one out sets the shutdown completion. ``on_broken(channel, error)`` hears once that the device
    broke the ring: nothing comes by it any more.
    """

    __slots__ = ("_mb", "_rmb", "_wmb", "broken", "closing", "lock", "memory", "notify", "on_broken", "rx_callback",
                 "shutdown_done", "users", "vqueue")  # fmt: skip

    memory: Final[Memory]
    vqueue: Final[SplitDriver]
    notify: Final[Callable[[], None]]
    rx_callback: Final[RxCallback]
    lock: Final[AbstractContextManager[Any]]
    users: Final[Atomic]
    shutdown_done: Final[Event]
    _wmb: Final[Fence]
    _rmb: Final[Fence]
    _mb: Final[Fence]

    def __init__(
        self, world: World, memory: Memory, vqueue: SplitDriver, notify: Callable[[], None], rx_callback: RxCallback
    ) -> None:
        self.memory = memory
        self.vqueue = vqueue
        self.notify = notify
        self.rx_callback = rx_callback
        #: guards the ring
        self.lock = world.spinlock()
        #: 1 for the owner, 1 for everybody inside
        self.users = world.atomic(1)
        self.closing = False
        self.broken = False
        self.on_broken: Callable[[VioChannel, RingError], None] | None = None
        self.shutdown_done = world.event()
        self._wmb = world.wmb
        self._rmb = world.rmb
        self._mb = world.mb

    # --- users --------------------------------------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Enter the channel. False: it is closing, stay out."""
        # counted before the flag is looked at: close() sets the flag before it gives the owner's count back, so
        # either this user is waited for or it sees the flag
        self.users.add(1)
        if self.closing:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Leave the channel."""
        if self.users.add(-1) == 0:
            self.shutdown_done.set()

    async def close(self) -> None:
        """Let nobody in any more and wait until everybody has left. The device must not use the queue afterwards."""
        if not self.closing:
            self.closing = True
            self.release()
        await self.shutdown_done.wait()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def complete_cb(self) -> None:
        """The virtqueue's callback (Linux: ``scmi_vio_complete_cb``): take what the device used, until there is
        nothing and the callback is enabled again. Raises RingError where the device broke the ring."""
        vqueue = self.vqueue
        cb_enabled = True
        # the channel is left between two messages, so that close() need not wait for a busy device
        while self.acquire():
            try:
                with self.lock:
                    if cb_enabled:
                        vqueue.disable_cb()
                        cb_enabled = False
                    used = vqueue.get_buf()
                    if used is None:
                        self.drained()
                        if vqueue.enable_cb():
                            return
                        cb_enabled = True
                if used is not None:
                    msg, length = used
                    msg.rx_len = length
                    self.rx_callback(msg)
                    self.finalize(msg)
            except RingError as error:
                self.broke(error)
                raise
            finally:
                self.release()

    def broke(self, error: RingError) -> None:
        """The device broke the ring. Called under no lock."""
        if not self.broken:
            self.broken = True
            if self.on_broken is not None:
                self.on_broken(self, error)

    def drained(self) -> None:
        """The callback found the ring empty. Under the lock."""

    def finalize(self, msg: VioMsg) -> None:
        """The callback is through with ``msg``."""
        raise AssertionError("each channel says")

    def read(self, msg: VioMsg) -> bytes:
        """The message that came, header included; ``used.len`` is the only length that there is."""
        return self.memory.read(msg.input, min(msg.rx_len, MAX_PDU_SIZE))
