"""The agent-to-platform channel of virtio-scmi: Linux's ``arm_scmi/virtio.c`` as it stands after its fixes.

A polling loop cannot ask the ring for *its* reply, so it dequeues whatever came: its own message ends the loop, a
message that another loop polls for is marked POLL_DONE, anything else waits on the pending list for the deferred
worker. Whoever dequeues a message takes over the ring's use of it: the callback and the worker give it back
themselves, a polling loop leaves it to :meth:`TxChannel.mark_txdone` of the message's poller by POLL_DONE.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from common.errors import ChannelBusyError, LocalError, RingError, RingmeshError
from common.scmi.header import HEADER
from common.virtio.split_driver import SplitDriver
from common.workqueue import Work, WorkQueue
from common.world import Array, Fifo, Memory, World
from services.guest_driver.scmi_channel import RxCallback, VioChannel
from services.guest_driver.scmi_message import (
    MAX_MSG_SIZE,
    MAX_PDU_SIZE,
    NOT_POLLED,
    POLL_DONE,
    POLL_TIMEOUT,
    POLLING,
    PROT_OVERHEAD,
    Layout,
    VioMsg,
)

#: A message in flight takes one descriptor each way.
DESCRIPTORS: Final = 2
_ALIGN: Final = 8


class Transfer(Protocol):
    """What the transport wants of an xfer. ``priv`` must be a watched field: a polling loop reads it without a lock."""

    #: the message that the xfer polls for, None before and after
    priv: VioMsg | None

    @property
    def request(self) -> bytes:
        """The whole message: header and payload."""
        ...

    @property
    def expect(self) -> int:
        """Bytes of return values expected behind the status word."""
        ...

    @property
    def poll(self) -> bool:
        """Polled, or told by interrupt?"""
        ...


class TxChannel(VioChannel):
    """The cmdq: ``world.new(TxChannel, world, memory, vqueue, layout, notify, rx_callback, workqueue)``.

    ``rx_callback`` is given replies to commands that are not polled, and late ones. ``workqueue`` is the channel's own:
    the caller has its worker running, :meth:`close` ends it. Messages are *free*, on the ring, *pending* (dequeued,
    waiting for the worker) or held by a poller; there are ``max_msg`` of them, always.

    ``polling``: can replies be polled for at all? ``atomic_enabled``: may drivers choose by themselves to poll, where
    they must not sleep (Linux: ``atomic_enabled`` of the transport)?
    """

    __slots__ = ("atomic_enabled", "deferred_tx_work", "deferred_tx_wq", "free_list", "free_lock", "max_msg",
                 "messages", "pending_cmds_list", "pending_lock", "polling")  # fmt: skip

    polling: Final[bool]
    atomic_enabled: Final[bool]
    max_msg: Final[int]
    messages: Final[Array[VioMsg]]
    free_list: Final[Fifo[VioMsg]]
    free_lock: Final[AbstractContextManager[Any]]
    pending_cmds_list: Final[Fifo[VioMsg]]
    pending_lock: Final[AbstractContextManager[Any]]
    deferred_tx_work: Final[Work]
    deferred_tx_wq: Final[WorkQueue]

    def __init__(
        self,
        world: World,
        memory: Memory,
        vqueue: SplitDriver,
        layout: Layout,
        notify: Callable[[], None],
        rx_callback: RxCallback,
        workqueue: WorkQueue,
        *,
        max_msg: int | None = None,
        polling: bool = True,
        atomic_enabled: bool = True,
    ) -> None:
        super().__init__(world, memory, vqueue, notify, rx_callback)
        self.polling = polling
        self.atomic_enabled = atomic_enabled
        most = vqueue.size // DESCRIPTORS
        self.max_msg = most if max_msg is None else max_msg
        if not 0 < self.max_msg <= most:
            raise LocalError(f"max_msg {self.max_msg}: a queue of {vqueue.size} holds 1 to {most}")
        self.free_list = world.queue()
        self.free_lock = world.spinlock()
        self.pending_cmds_list = world.queue()
        self.pending_lock = world.spinlock()
        self.deferred_tx_wq = workqueue
        self.deferred_tx_work = world.new(Work, world, self.deferred_tx_worker)
        self.messages = world.array(self.max_msg)
        for i in range(self.max_msg):
            request, reply = layout.alloc(MAX_PDU_SIZE, _ALIGN), layout.alloc(MAX_PDU_SIZE, _ALIGN)
            self.messages[i] = world.new(VioMsg, world, request, reply)
            self.free_list.append(self.messages[i])

    # --- messages -----------------------------------------------------------------------------------------------------

    def get_free_msg(self) -> VioMsg | None:
        """A message with one user, the ring's to be; None where all are taken."""
        with self.free_lock:
            if not self.free_list:
                return None
            msg = self.free_list.popleft()
        # nobody else knows the message yet: no poll_lock
        msg.poll_status = NOT_POLLED
        msg.users.store(1)
        return msg

    def msg_release(self, msg: VioMsg) -> bool:
        """Give one use of ``msg`` back. True: it was the last, the message is free."""
        if msg.users.add(-1):
            return False
        with self.free_lock:
            self.free_list.append(msg)
        return True

    def finalize(self, msg: VioMsg) -> None:
        self.msg_release(msg)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_message(self, xfer: Transfer) -> None:
        """Put the command on the ring and ring the doorbell. Nothing was sent where this raises: ChannelBusyError
        (no free message, or the channel is closing), LocalError (too long), RingError (the queue is broken)."""
        request = xfer.request
        size = len(request) - HEADER.size
        if size > MAX_MSG_SIZE or xfer.expect > MAX_MSG_SIZE:
            raise LocalError(f"SCMI payload of {size} bytes, {xfer.expect} expected: {MAX_MSG_SIZE} at most")
        if not self.acquire():
            raise ChannelBusyError("the SCMI channel is closing")
        msg = self.get_free_msg()
        if msg is None:
            self.release()
            raise ChannelBusyError(f"all {self.max_msg} messages of the SCMI channel are in flight")
        self.memory.write(msg.request, request)
        vqueue = self.vqueue
        poll = xfer.poll
        try:
            with self.lock:
                if poll:
                    # the reference is taken before the buffer can be used
                    msg.poll_idx = vqueue.enable_cb_prepare()
                    msg.poll_status = POLLING
                    msg.users.add(1)
                    # the poller looks at the ring between two entries: it is inside until mark_txdone()
                    self.users.add(1)
                    # poll_done() and mark_txdone() read it without a lock: initialised first, then bound, then sent
                    xfer.priv = msg
                    if self._mb is not None:
                        self._mb()
                try:
                    vqueue.add(((msg.request, len(request)),), ((msg.input, PROT_OVERHEAD + xfer.expect),), msg)
                except RingmeshError:
                    self._unsend(xfer, msg)
                    raise
                if vqueue.kick_prepare():
                    self.notify()
        finally:
            self.release()

    def _unsend(self, xfer: Transfer, msg: VioMsg) -> None:
        """The ring did not take ``msg``: nobody else knows it."""
        xfer.priv = None
        if self._mb is not None:
            self._mb()
        if xfer.poll:
            self.msg_release(msg)
            self.release()
        self.msg_release(msg)

    # --- polling ------------------------------------------------------------------------------------------------------

    def poll_done(self, xfer: Transfer) -> bool:
        """Is the wait of this polled ``xfer`` over? True too where the channel is closing.

        Callbacks stay enabled while somebody polls: suppression is a matter of the whole queue, and a reply that the
        interrupt brings ends the loop as well. Raises RingError where the device broke the ring.
        """
        msg = xfer.priv
        if msg is None:
            return True
        # the poller's use keeps the message; another loop may have dequeued it
        if msg.poll_status == POLL_DONE:
            if self._rmb is not None:
                self._rmb()
            return True
        if self.closing:
            return True
        vqueue = self.vqueue
        # Has anything come at all? Up to here a loop that waits only reads, so that it disturbs nobody.
        if not vqueue.poll(msg.poll_idx):
            return False
        if not self.acquire():
            return True
        found = prefetched = pending = False
        try:
            with self.lock:
                vqueue.disable_cb()
                while (used := vqueue.get_buf()) is not None:
                    next_msg, length = used
                    next_msg.rx_len = length
                    # the length must be visible to a loop that sees POLL_DONE without the lock
                    if self._wmb is not None:
                        self._wmb()
                    with next_msg.poll_lock:
                        polled = next_msg.poll_status == POLLING
                        if polled:
                            next_msg.poll_status = POLL_DONE
                    if next_msg is msg:
                        found = True
                        break
                    if not polled:
                        prefetched = True
                        with self.pending_lock:
                            self.pending_cmds_list.append(next_msg)
                if found:
                    pending = not vqueue.enable_cb()
                else:
                    msg.poll_idx = vqueue.enable_cb_prepare()
                    pending = vqueue.poll(msg.poll_idx)
            return found
        except RingError as error:
            self.broke(error)
            raise
        finally:
            # also where the ring turned out broken: what was dequeued for others before that is theirs
            if prefetched or pending:
                self.deferred_tx_wq.queue_work(self.deferred_tx_work)
            self.release()

    def deferred_tx_worker(self) -> None:
        """Hand over what polling loops dequeued for others, then look at the ring as the callback would."""
        if not self.acquire():
            return
        try:
            while True:
                with self.pending_lock:
                    msg = self.pending_cmds_list.popleft() if self.pending_cmds_list else None
                if msg is None:
                    break
                # late replies too: whoever gave up waiting learns that the platform has let go
                self.rx_callback(msg)
                self.msg_release(msg)
        finally:
            self.release()
        try:
            self.complete_cb()
        except RingError:
            return  # on_broken has heard of it; the worker has other items to run

    def mark_txdone(self, timed_out: bool, xfer: Transfer) -> bool:
        """The sender is through with ``xfer``. True: the device still owns the message (a late reply will come).

        The ring's use is the poller's to give back only where a polling loop dequeued the message. That is decided
        by the message's state alone: a poller that was told by the interrupt must not take the use that the callback
        still holds, and one that stopped early (``timed_out``, or a delayed response that overtook) must not free
        what the device may still write to.
        """
        msg = xfer.priv
        if msg is None:
            return timed_out
        # unbound before the message can be anybody else's
        xfer.priv = None
        if self._mb is not None:
            self._mb()
        # all while the poller's own use still keeps the message from being sent with again
        with msg.poll_lock:
            done = msg.poll_status == POLL_DONE
            if not done:
                msg.poll_status = POLL_TIMEOUT
        if done:
            self.msg_release(msg)
        free = self.msg_release(msg)
        self.release()
        return not free

    # --- shutdown -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """As :meth:`VioChannel.close`; then the worker ends. A polled command is a user from the time it is sent until
        :meth:`mark_txdone`, so no loop looks at the ring or kicks the worker after they have gone, and a worker that
        starts late finds the channel closing."""
        await super().close()
        await self.deferred_tx_wq.stop()

    def reclaim(self) -> None:
        """After :meth:`close` and the device's reset: take back every message that the device never answered."""
        while (msg := self.vqueue.detach_unused()) is not None:
            self.msg_release(msg)
        while self.pending_cmds_list:
            self.msg_release(self.pending_cmds_list.popleft())
