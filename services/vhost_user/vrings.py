"""The rings of a session: their description, their states, and the descriptors that they own.

A descriptor given to a ring is closed when it is replaced, when the ring stops (kick) or when the session ends (call,
err), each time after the target was told. A method that raises has not taken the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.virtio.features import MAX_QUEUE_SIZE
from services.vhost_user.requests import Refusal, RefusedError
from services.vhost_user.target import Target, Vring

#: Alignment of descriptor table, available ring, used ring (virtio 1.3 §2.7).
_ALIGN: Final = (16, 2, 4)


class Vrings:
    """One :class:`Vring` a virtqueue of ``target``; ``close(fd)`` closes a descriptor.

    Methods raise RefusedError, and whatever RemoteError the target refuses with.
    """

    __slots__ = ("_close", "_target", "rings")

    def __init__(self, target: Target, close: Callable[[int], None]) -> None:
        self._target: Final = target
        self._close: Final = close
        self.rings: Final = tuple(Vring(index) for index in range(len(target.queue_sizes)))

    @property
    def any_started(self) -> bool:
        return any(ring.started for ring in self.rings)

    def size_set(self, index: int, size: int) -> None:
        """SET_VRING_NUM: a power of two (virtio 1.3 §2.7), at most what the device has."""
        most = min(self._target.queue_sizes[index], MAX_QUEUE_SIZE)
        if not 0 < size <= most or size & (size - 1):
            raise RefusedError(Refusal.VALUE, "vring.num", size, most, "not a power of two, or too large")
        self.rings[index].size = size

    def addresses_set(self, index: int, flags: int, desc: int, used: int, avail: int, log_addr: int) -> None:
        """SET_VRING_ADDR: user addresses; whether they lie in memory shows when the ring starts."""
        if flags:
            raise RefusedError(Refusal.FEATURE, "vring.flags", hex(flags), 0, "logging was not negotiated")
        for field, addr, align in zip(("desc", "avail", "used"), (desc, avail, used), _ALIGN, strict=True):
            if addr % align:
                raise RefusedError(Refusal.VALUE, f"vring.{field}", hex(addr), align, "not a multiple")
        ring = self.rings[index]
        ring.desc, ring.avail, ring.used, ring.log_addr = desc, avail, used, log_addr

    def base_set(self, index: int, base: int) -> None:
        """SET_VRING_BASE: the next avail index of a split ring."""
        if base > 0xFFFF:
            raise RefusedError(Refusal.VALUE, "vring.base", base, 0xFFFF)
        self.rings[index].base = base

    def start(self, index: int, kick: int | None) -> None:
        """SET_VRING_KICK. A ring that runs is stopped first and goes on with the new descriptor."""
        ring = self.rings[index]
        if not ring.size or ring.desc is None:
            raise RefusedError(Refusal.RING, "vring", index, None, "no size or no addresses yet")
        if ring.started:
            self.stop(index)
        ring.kick, ring.polling, ring.started = kick, kick is None, True
        try:
            self._target.vring_start(ring)
        except BaseException:
            ring.kick, ring.polling, ring.started = None, False, False
            raise

    def stop(self, index: int) -> int:
        """GET_VRING_BASE: where the driver would go on; a ring that does not run says what it was told."""
        ring = self.rings[index]
        if ring.started:
            ring.started = False
            try:
                ring.base = self._target.vring_stop(index)
            finally:
                kick, ring.kick, ring.polling = ring.kick, None, False
                self._drop(kick)
        return ring.base

    def enable(self, index: int, on: bool) -> None:
        ring = self.rings[index]
        if ring.enabled != on:
            ring.enabled = on
            try:
                self._target.vring_enable(index, on)
            except BaseException:
                ring.enabled = not on
                raise

    def enable_all(self, on: bool) -> None:
        for ring in self.rings:
            self.enable(ring.index, on)

    def call_set(self, index: int, call: int | None) -> None:
        ring = self.rings[index]
        old, ring.call = ring.call, call
        try:
            self._target.call_set(ring)
        except BaseException:
            ring.call = old
            raise
        self._drop(old)

    def err_set(self, index: int, err: int | None) -> None:
        ring = self.rings[index]
        old, ring.err = ring.err, err
        self._drop(old)

    def reset(self) -> None:
        """All rings stopped, disabled and not described; call and err stay, front ends set them once (QEMU)."""
        for ring in self.rings:
            self.stop(ring.index)
            self.enable(ring.index, False)
            ring.size = ring.base = ring.log_addr = 0
            ring.desc = ring.avail = ring.used = None

    def release(self) -> None:
        """Close whatever is left. The target must not be asked for anything of the rings afterwards."""
        for ring in self.rings:
            fds = ring.kick, ring.call, ring.err
            ring.kick = ring.call = ring.err = None
            for fd in fds:
                self._drop(fd)

    def _drop(self, fd: int | None) -> None:
        if fd is not None:
            self._close(fd)
