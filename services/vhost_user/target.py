"""What a vhost-user session drives: a device whose virtqueues lie in memory that the front end shares.

The session owns the protocol (negotiation, the memory table, file descriptors); the target owns the device. A target
never closes a file descriptor of a :class:`Vring`, and touches shared memory only through what it was last handed in
:meth:`Target.memory_set`.

Of one ring the session promises: ``vring_start`` comes only when size and addresses are set; ``call`` may be there
before, come later or change; nothing of the ring is used after ``vring_stop`` returned; after a ``vring_stop`` another
``vring_start`` may follow, with ``base`` where the driver wants to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.vhost_user.memory import SharedMemory


@dataclass(slots=True)
class Vring:
    """One virtqueue as the front end described it. Written by the session only.

    ``desc``, ``avail`` and ``used`` are front-end virtual addresses (:meth:`SharedMemory.guest_address` turns them into
    guest addresses); None until SET_VRING_ADDR.
    """

    index: int
    #: entries; 0 until SET_VRING_NUM
    size: int = 0
    #: avail index (u16) at which the device goes on
    base: int = 0
    desc: int | None = None
    avail: int | None = None
    used: int | None = None
    #: where used-ring writes would be logged (guest address); kept, never used: logging is not offered
    log_addr: int = 0
    #: event file descriptors, or None
    kick: int | None = None
    call: int | None = None
    err: int | None = None
    #: started without a kick descriptor: the device has to look at the ring by itself
    polling: bool = False
    #: a ring that is started but not enabled must not process requests; a net receive or transmit queue may drop them
    enabled: bool = False
    started: bool = False


class Target(Protocol):
    """The device behind a session. Every method is plain: what it starts in an event loop is its own affair.

    Methods raise RemoteError (nothing else) to refuse a request; they must leave the device as it was then.
    """

    @property
    def device_features(self) -> int:
        """Feature bits that the device offers (u64), without bit 30: that one is the session's."""
        ...

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Largest size of each virtqueue; its length is the number of virtqueues."""
        ...

    def features_set(self, features: int) -> None:
        """The driver took ``features``: a subset of what is offered, without bit 30. No ring is started."""
        ...

    def memory_set(self, memory: SharedMemory) -> None:
        """The memory table changed: ``memory`` replaces the one before (empty at the end of a session).

        Comes before the front end has its answer. Rings that are started must find their areas again in ``memory``;
        a RemoteError refuses the change, and the device then goes on with the table that it had.
        """
        ...

    def vring_start(self, vring: Vring) -> None:
        """Begin at ``vring.base``. Wait on ``vring.kick`` (an eventfd, non-blocking), or look by yourself where
        ``vring.polling`` says so. Look once without any kick: the driver may have kicked the old descriptor.
        Process nothing while ``vring.enabled`` is false. RemoteError: the ring does not lie in memory.
        """
        ...

    def vring_stop(self, index: int) -> int:
        """Stop: touch neither ring nor buffers nor descriptors afterwards. Returns the next avail index (u16): chains
        taken before it have been given back as used, or are lost to the driver."""
        ...

    def vring_enable(self, index: int, on: bool) -> None:
        """``vring.enabled`` of a started or stopped ring changed."""
        ...

    def call_set(self, vring: Vring) -> None:
        """``vring.call`` changed, maybe to None; an interrupt that is due may have gone to the old one: send one
        again. The old descriptor is closed right after."""
        ...

    def status_set(self, status: int) -> None:
        """The driver wrote device status (virtio 1.3 §2.1, u8), other than 0: that one comes as :meth:`reset`."""
        ...

    def reset(self) -> None:
        """The device as after power-on. All rings were stopped and disabled before. Memory stays."""
        ...

    def config_get(self, offset: int, size: int) -> bytes:
        """``size`` bytes of configuration space; RemoteError if it has fewer."""
        ...

    def config_set(self, offset: int, data: bytes) -> None:
        """The driver wrote configuration space; RemoteError if that may not be written."""
        ...
