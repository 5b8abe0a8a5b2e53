"""One connection of a front end, as a pure core: a whole message in, the reply's bytes out.

Nothing that a front end sends makes :meth:`Session.handle` raise: what the table of requests or the device refuses is
counted by kind, logged once a kind and request, and answered as :mod:`services.vhost_user.requests` says.
Every descriptor that comes in is closed exactly once, at the latest by :meth:`Session.close`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from common.errors import LocalError, MemoryFaultError, RemoteError
from services.vhost_user.memory import DEFAULT_SLOTS, MAX_REGIONS, MapFd, SharedMemory, SharedRegion
from services.vhost_user.messages import (
    ALL_PROTOCOL_FEATURES,
    CONFIG,
    F_PROTOCOL_FEATURES,
    MAX_CONFIG,
    MEM_REG,
    MEM_TABLE,
    REGION,
    U64,
    VRING_ADDR,
    VRING_INDEX_MASK,
    VRING_NOFD,
    VRING_STATE,
    Header,
    ProtocolFeature,
    reply,
    request_name,
)
from services.vhost_user.requests import TABLE, Phase, Refusal, RefusedError, Rings, Rule
from services.vhost_user.target import Target, Vring
from services.vhost_user.vrings import Vrings

_DONE: Final = U64.pack(0)
_FAILED: Final = U64.pack(1)


@dataclass(slots=True)
class SessionStats:
    """Counts over all sessions of a back end. Labels are closed sets (Request and ``unknown``; Refusal)."""

    requests: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Session:
    """The protocol's state beside ``target``.

    ``offered``: protocol features; none means that bit 30 is not offered either. ``map_fd``: see
    :data:`services.vhost_user.memory.MapFd`. ``close(fd)`` closes a descriptor. ``check_event(fd)`` raises RemoteError
    unless the descriptor is one to be kicked by or to interrupt with, and makes it non-blocking. ``slots``: regions
    that a table may grow to with ADD_MEM_REG. ``log(event, **fields)`` writes a warning.
    """

    def __init__(
        self,
        target: Target,
        *,
        map_fd: MapFd,
        close: Callable[[int], None],
        check_event: Callable[[int], None],
        log: Callable[..., None],
        offered: ProtocolFeature = ALL_PROTOCOL_FEATURES,
        slots: int = DEFAULT_SLOTS,
        stats: SessionStats | None = None,
    ) -> None:
        self.target: Final = target
        self.offered: Final = offered
        self.slots: Final = slots
        self.stats: Final = SessionStats() if stats is None else stats
        self.phase = Phase.FRESH
        #: what the driver took, without bit 30
        self.features = 0
        self.protocol_features = ProtocolFeature(0)
        #: SET_PROTOCOL_FEATURES came or bit 30 was taken: rings are enabled by request
        self.protocol_spoken = False
        self.status = 0
        self.memory = SharedMemory()
        self.closed = False
        self._vrings: Final = Vrings(target, close)
        self._map_fd: Final = map_fd
        self._close: Final = close
        self._check_event: Final = check_event
        self._log: Final = log
        #: descriptors of the message in hand that nobody took yet
        self._fds: list[int] = []
        self._said: Final[set[tuple[str, str]]] = set()
        self._handlers: Final[dict[int, Callable[[bytes], bytes | None]]] = {
            request: getattr(self, f"_{rule.handler}") for request, rule in TABLE.items()
        }

    @property
    def vrings(self) -> tuple[Vring, ...]:
        return self._vrings.rings

    # --- messages ----------------------------------------------------------------------------------------------------

    def handle(self, header: Header, payload: bytes, fds: Sequence[int], *, truncated: bool = False) -> bytes:
        """Carry out one request; returns its reply, or nothing. The descriptors ``fds`` are the session's from now on.

        ``truncated``: there were more descriptors, which are lost. Raises LocalError if the session is closed or
        ``payload`` is not of the header's size; any other exception is a fault of the target.
        """
        self._fds = list(fds)
        rule = TABLE.get(header.request)
        answer: bytes | None = None
        refused = False
        try:
            if self.closed or len(payload) != header.size:
                raise LocalError(f"session closed, or {len(payload)} bytes of {header.size}")
            self.stats.requests[request_name(header.request)] += 1
            self._check(header, rule, payload, truncated)
            answer = self._handlers[header.request](payload)
        except RemoteError as error:
            refused = True
            self._refuse(header, error)
        finally:
            for fd in self._fds:
                self._close(fd)
            self._fds = []
        if rule is not None and rule.replies:
            return reply(header.request, answer or b"")
        if header.need_reply and self.protocol_features & ProtocolFeature.REPLY_ACK:
            return reply(header.request, _FAILED if refused else _DONE)
        return b""

    def close(self) -> None:
        """The front end went away: rings stop, the device is reset and lets go of memory, descriptors are closed."""
        if self.closed:
            return
        self.closed = True
        try:
            self._reset()
            self.target.memory_set(SharedMemory())
        finally:
            self.memory = SharedMemory()
            self._vrings.release()

    def _check(self, header: Header, rule: Rule | None, payload: bytes, truncated: bool) -> None:
        if rule is None:
            raise RefusedError(Refusal.UNKNOWN, "request", header.request, None, "not supported")
        had = self.offered if rule.offered else self.protocol_features
        if rule.feature & had != rule.feature:
            raise RefusedError(Refusal.FEATURE, "protocol feature", rule.feature.name, None, "not negotiated")
        if not self.phase & rule.phase:
            raise RefusedError(Refusal.PHASE, "phase", self.phase.name, None, "the request is not legal yet, or again")
        least, most = rule.size
        if not least <= header.size <= most:
            raise RefusedError(Refusal.SIZE, "header.size", header.size, most if header.size > most else least)
        if truncated or len(self._fds) not in rule.fds:
            raise RefusedError(Refusal.FDS, "descriptors", len(self._fds), rule.fds.stop - 1, "too many or too few")
        if rule.index_bits:
            index = int.from_bytes(payload[:4], "little") & ((1 << rule.index_bits) - 1)
            if index >= len(self.vrings):
                raise RefusedError(Refusal.VALUE, "vring.index", index, len(self.vrings) - 1)
            if rule.rings == Rings.STOPPED and self.vrings[index].started:
                raise RefusedError(Refusal.RING, "vring", index, None, "it is started")

    def _refuse(self, header: Header, error: RemoteError) -> None:
        if isinstance(error, RefusedError):
            kind = error.kind
        else:
            kind = Refusal.MEMORY if isinstance(error, MemoryFaultError) else Refusal.DEVICE
        name = request_name(header.request)
        self.stats.refused[kind.value] += 1
        if (kind, name) not in self._said:
            self._said.add((kind, name))
            self._log("request_refused", request=name, number=header.request, kind=kind.value, error=str(error))

    # --- negotiation -------------------------------------------------------------------------------------------------

    @property
    def _features_offered(self) -> int:
        return self.target.device_features | (F_PROTOCOL_FEATURES if self.offered else 0)

    def _get_features(self, _payload: bytes) -> bytes:
        return U64.pack(self._features_offered)

    def _set_features(self, payload: bytes) -> None:
        (bits,) = U64.unpack(payload)
        if extra := bits & ~self._features_offered:
            raise RefusedError(Refusal.FEATURE, "features", hex(extra), hex(self._features_offered), "not offered")
        features = bits & ~F_PROTOCOL_FEATURES
        if not self._vrings.any_started:
            self.target.features_set(features)
        elif features != self.features:
            raise RefusedError(Refusal.RING, "features", hex(bits), None, "rings are started")
        self.features = features
        self.phase = Phase.READY
        if bits & F_PROTOCOL_FEATURES:
            self.protocol_spoken = True
        else:
            self._vrings.enable_all(True)

    def _get_protocol_features(self, _payload: bytes) -> bytes:
        return U64.pack(self._protocol_offered())

    def _set_protocol_features(self, payload: bytes) -> None:
        (bits,) = U64.unpack(payload)
        if extra := bits & ~self._protocol_offered():
            raise RefusedError(Refusal.FEATURE, "protocol features", hex(extra), hex(self.offered), "not offered")
        if self._vrings.any_started and bits != self.protocol_features:
            raise RefusedError(Refusal.RING, "protocol features", hex(bits), None, "rings are started")
        self.protocol_features = ProtocolFeature(bits)
        self.protocol_spoken = True

    def _protocol_offered(self) -> ProtocolFeature:
        if not self.offered:
            raise RefusedError(Refusal.FEATURE, "features", hex(F_PROTOCOL_FEATURES), None, "not offered")
        return self.offered

    def _get_queue_num(self, _payload: bytes) -> bytes:
        return U64.pack(len(self.vrings))

    def _set_owner(self, _payload: bytes) -> None:
        self.phase = Phase.OWNED

    def _reset_owner(self, _payload: bytes) -> None:
        """Deprecated: disables the rings, no more (as the specification recommends)."""
        self._vrings.enable_all(False)

    # --- the device --------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._vrings.reset()
        self.features = 0
        self.status = 0
        if self.phase == Phase.READY:
            self.phase = Phase.OWNED
        self.target.reset()

    def _reset_device(self, _payload: bytes) -> None:
        self._reset()

    def _set_status(self, payload: bytes) -> None:
        (status,) = U64.unpack(payload)
        if status > 0xFF:
            raise RefusedError(Refusal.VALUE, "status", status, 0xFF)
        if status == 0:
            self._reset()
        else:
            self.target.status_set(status)
            self.status = status

    def _get_status(self, _payload: bytes) -> bytes:
        return U64.pack(self.status)

    def _config_range(self, payload: bytes, flags_most: int) -> tuple[int, int, int]:
        offset, size, flags = CONFIG.unpack_from(payload)
        if len(payload) != CONFIG.size + size:
            raise RefusedError(Refusal.SIZE, "config.size", size, len(payload) - CONFIG.size)
        if offset + size > MAX_CONFIG:
            raise RefusedError(Refusal.VALUE, "config.offset", offset, MAX_CONFIG - size)
        if flags > flags_most:
            raise RefusedError(Refusal.VALUE, "config.flags", flags, flags_most)
        return offset, size, flags

    def _get_config(self, payload: bytes) -> bytes:
        offset, size, flags = self._config_range(payload, 1)
        data = self.target.config_get(offset, size)
        if len(data) != size:
            raise LocalError(f"config_get gave {len(data)} bytes of {size}")
        return CONFIG.pack(offset, size, flags) + data

    def _set_config(self, payload: bytes) -> None:
        # flag 1 is live migration's, which is not offered
        offset, _, _ = self._config_range(payload, 0)
        self.target.config_set(offset, payload[CONFIG.size :])

    # --- memory ------------------------------------------------------------------------------------------------------

    def _memory_change(self, memory: SharedMemory) -> None:
        self.target.memory_set(memory)
        self.memory = memory

    def _set_mem_table(self, payload: bytes) -> None:
        count, _ = MEM_TABLE.unpack_from(payload)
        if len(payload) != MEM_TABLE.size + count * REGION.size:
            raise RefusedError(Refusal.SIZE, "regions", count, (len(payload) - MEM_TABLE.size) // REGION.size)
        if len(self._fds) != count:
            raise RefusedError(Refusal.FDS, "descriptors", len(self._fds), count, "one a region")
        memory = SharedMemory()
        regions = REGION.iter_unpack(payload[MEM_TABLE.size :])
        for fd, (guest, size, user, offset) in zip(self._fds, regions, strict=True):
            memory = memory.with_region(SharedRegion(guest, size, user, offset), fd, self._map_fd, MAX_REGIONS)
        self._memory_change(memory)

    def _get_max_mem_slots(self, _payload: bytes) -> bytes:
        return U64.pack(self.slots)

    def _add_mem_reg(self, payload: bytes) -> None:
        _, guest, size, user, offset = MEM_REG.unpack(payload)
        region = SharedRegion(guest, size, user, offset)
        self._memory_change(self.memory.with_region(region, self._fds[0], self._map_fd, self.slots))

    def _rem_mem_reg(self, payload: bytes) -> None:
        _, guest, size, user, offset = MEM_REG.unpack(payload)
        self._memory_change(self.memory.without_region(SharedRegion(guest, size, user, offset)))

    # --- rings -------------------------------------------------------------------------------------------------------

    def _set_vring_num(self, payload: bytes) -> None:
        self._vrings.size_set(*VRING_STATE.unpack(payload))

    def _set_vring_addr(self, payload: bytes) -> None:
        self._vrings.addresses_set(*VRING_ADDR.unpack(payload))

    def _set_vring_base(self, payload: bytes) -> None:
        self._vrings.base_set(*VRING_STATE.unpack(payload))

    def _get_vring_base(self, payload: bytes) -> bytes:
        index, _ = VRING_STATE.unpack(payload)
        return VRING_STATE.pack(index, self._vrings.stop(index))

    def _set_vring_enable(self, payload: bytes) -> None:
        index, on = VRING_STATE.unpack(payload)
        if not self.protocol_spoken:
            raise RefusedError(Refusal.FEATURE, "features", hex(F_PROTOCOL_FEATURES), None, "not negotiated")
        if on > 1:
            raise RefusedError(Refusal.VALUE, "vring.enable", on, 1)
        self._vrings.enable(index, bool(on))

    def _set_vring_kick(self, payload: bytes) -> None:
        self._vring_fd(payload, self._vrings.start)

    def _set_vring_call(self, payload: bytes) -> None:
        self._vring_fd(payload, self._vrings.call_set)

    def _set_vring_err(self, payload: bytes) -> None:
        self._vring_fd(payload, self._vrings.err_set)

    def _vring_fd(self, payload: bytes, take: Callable[[int, int | None], None]) -> None:
        """Hand the message's descriptor, if bit 8 says that there is one, to ``take(index, fd)``."""
        (word,) = U64.unpack(payload)
        if word & ~(VRING_INDEX_MASK | VRING_NOFD):
            raise RefusedError(Refusal.VALUE, "vring", hex(word), hex(VRING_INDEX_MASK | VRING_NOFD))
        if len(self._fds) != (0 if word & VRING_NOFD else 1):
            raise RefusedError(
                Refusal.FDS, "descriptors", len(self._fds), None, "the no-descriptor flag says otherwise"
            )
        fd = self._fds[0] if self._fds else None
        if fd is not None:
            try:
                self._check_event(fd)
            except RemoteError as error:
                raise RefusedError(Refusal.FDS, error.field, error.value, error.limit, error.detail) from error
        take(word & VRING_INDEX_MASK, fd)
        # it is the ring's now
        self._fds = []
