"""``send_message`` and ``poll_done`` of the shipping channel taken apart, so that a variant replaces one piece.

A test holds :class:`Pieces` to :class:`~services.guest_driver.scmi_virtio.TxChannel`: same schedules, same steps.
"""

from __future__ import annotations

from common.errors import ChannelBusyError
from services.guest_driver.scmi_message import POLL_DONE, POLLING, PROT_OVERHEAD, VioMsg
from services.guest_driver.scmi_virtio import Transfer, TxChannel


class Pieces(TxChannel):
    """The channel as it ships. Left out: commands that are too long, and what a broken queue needs."""

    __slots__ = ()

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_message(self, xfer: Transfer) -> None:
        if not self.acquire():
            raise ChannelBusyError("the SCMI channel is closing")
        msg = self.get_free_msg()
        if msg is None:
            self.release()
            raise ChannelBusyError("all messages are in flight")
        request = xfer.request
        self.memory.write(msg.request, request)
        poll = xfer.poll
        with self.lock:
            if poll:
                self.before_add(xfer, msg)
            self.vqueue.add(((msg.request, len(request)),), ((msg.input, PROT_OVERHEAD + xfer.expect),), msg)
            if poll:
                self.after_add(xfer, msg)
            if self.vqueue.kick_prepare():
                self.notify()
        if poll:
            self.after_unlock(xfer, msg)
        self.release()

    def before_add(self, xfer: Transfer, msg: VioMsg) -> None:
        self.bind(xfer, msg)

    def after_add(self, xfer: Transfer, msg: VioMsg) -> None:
        """Nothing."""

    def after_unlock(self, xfer: Transfer, msg: VioMsg) -> None:
        """Nothing."""

    def bind(self, xfer: Transfer, msg: VioMsg) -> None:
        """Make ``msg`` the one that ``xfer`` polls for."""
        msg.poll_idx = self.reference()
        msg.poll_status = POLLING
        msg.users.add(1)
        self.users.add(1)
        xfer.priv = msg

    def reference(self) -> int:
        """What the polling loop compares with."""
        return self.vqueue.enable_cb_prepare()

    # --- polling ------------------------------------------------------------------------------------------------------

    def poll_done(self, xfer: Transfer) -> bool:
        msg = xfer.priv
        if msg is None or msg.poll_status == POLL_DONE or self.closing:
            return True
        vqueue = self.vqueue
        if not vqueue.poll(msg.poll_idx):
            return False
        if not self.acquire():
            return True
        found = prefetched = False
        with self.lock:
            vqueue.disable_cb()
            while (used := vqueue.get_buf()) is not None:
                next_msg, length = used
                next_msg.rx_len = length
                with next_msg.poll_lock:
                    polled = self.is_polled(next_msg)
                    if polled:
                        next_msg.poll_status = POLL_DONE
                if next_msg is msg:
                    found = True
                    break
                if not polled:
                    prefetched = True
                    with self.pending_lock:
                        self.pending_cmds_list.append(next_msg)
            pending = self.leave() if found else self.rearm(msg)
        if prefetched or pending:
            self.kick_worker()
        self.release()
        return found

    def is_polled(self, msg: VioMsg) -> bool:
        """Is ``msg``, just dequeued, its poller's? Else it is the worker's."""
        return msg.poll_status == POLLING

    def leave(self) -> bool:
        """The loop has found its own message. True: more has come."""
        return not self.vqueue.enable_cb()

    def rearm(self, msg: VioMsg) -> bool:
        """The loop has not. True: more has come."""
        msg.poll_idx = self.vqueue.enable_cb_prepare()
        return self.vqueue.poll(msg.poll_idx)

    def kick_worker(self) -> None:
        self.deferred_tx_wq.queue_work(self.deferred_tx_work)
