"""One message of the virtio-scmi transport: the buffers of one transaction, and who still holds them.

Named as in Linux's ``scmi_vio_msg``. A message has up to two users: the *ring* (from send until whoever dequeued it is
through with it) and the *poller*. It goes back to the free list when the last of them lets go, so nobody else's
command can be written into a buffer that somebody still reads, or that the device still owns.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from common.world import Atomic, World

#: Largest payload, of a command behind its header, of a reply behind header and status, in bytes
#: (Linux: VIRTIO_SCMI_MAX_MSG_SIZE).
MAX_MSG_SIZE: Final = 128
#: Header and status word.
PROT_OVERHEAD: Final = 8
#: Largest message with both: the size of every buffer.
MAX_PDU_SIZE: Final = MAX_MSG_SIZE + PROT_OVERHEAD

# poll_status
NOT_POLLED: Final = 0
#: the poller gave up; whoever dequeues the message hands it to the deferred worker
POLL_TIMEOUT: Final = 1
POLLING: Final = 2
#: dequeued by a polling loop: the ring's use of it is the poller's to give back
POLL_DONE: Final = 3


class Layout(Protocol):
    """Hands out guest memory."""

    def alloc(self, size: int, align: int, /) -> int:
        """Guest address of ``size`` bytes, aligned to ``align``, that nobody else has."""
        ...


class VioMsg:
    """``world.new(VioMsg, world, request, input)``: guest addresses of a buffer of MAX_PDU_SIZE bytes each way.

    A message of the eventq has no request (0).
    """

    __slots__ = ("input", "poll_idx", "poll_lock", "poll_status", "request", "rx_len", "users")

    request: Final[int]
    input: Final[int]
    poll_lock: Final[AbstractContextManager[Any]]
    users: Final[Atomic]

    def __init__(self, world: World, request: int, input_: int) -> None:
        self.request = request
        self.input = input_
        #: bytes that the device wrote, header included
        self.rx_len = 0
        #: snapshot of the ring for the poller (Linux: 16 bits; here the full count, so it never aliases)
        self.poll_idx = 0
        self.poll_status = NOT_POLLED
        #: guards poll_status
        self.poll_lock = world.spinlock()
        self.users = world.atomic(0)
