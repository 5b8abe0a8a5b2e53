"""What session tests hand in: a device that writes down what it is told, and descriptors that count their closings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from common.errors import MemoryFaultError, RemoteError
from common.virtio.split_layout import SplitLayout
from services.vhost_user.memory import SharedMemory
from services.vhost_user.messages import FLAG_NEED_REPLY, HEADER, VERSION, Header
from services.vhost_user.requests import Phase
from services.vhost_user.session import Session, SessionStats
from services.vhost_user.target import Vring

#: Feature bits of the recorder: VERSION_1 and two of a device.
FEATURES = 1 << 32 | 1 << 29 | 1


class Recorder:
    """A Target with rings that only have an address; ``told`` is every call, ``refuse`` names those that refuse."""

    def __init__(self, queue_sizes: Sequence[int] = (256, 64)) -> None:
        self.device_features = FEATURES
        self.queue_sizes = queue_sizes
        self.told: list[tuple[object, ...]] = []
        self.refuse: dict[str, Exception] = {}
        self.memory = SharedMemory()
        self.running: dict[int, Vring] = {}
        self.config = bytearray(range(64))
        #: what vring_stop adds to the base
        self.served = 5

    def _tell(self, name: str, *args: object) -> None:
        if name in self.refuse:
            raise self.refuse[name]
        self.told.append((name, *args))

    @staticmethod
    def _resolve(vring: Vring, memory: SharedMemory) -> SplitLayout:
        assert vring.desc is not None
        assert vring.avail is not None
        assert vring.used is not None
        places = zip((vring.desc, vring.avail, vring.used), SplitLayout.sizes(vring.size), strict=True)
        return SplitLayout(vring.size, *(memory.guest_address(user, length) for user, length in places))

    def features_set(self, features: int) -> None:
        assert not self.running
        self._tell("features_set", features)

    def memory_set(self, memory: SharedMemory) -> None:
        for vring in self.running.values():
            self._resolve(vring, memory)
        self._tell("memory_set", memory.regions)
        self.memory = memory

    def vring_start(self, vring: Vring) -> None:
        assert vring.index not in self.running
        assert vring.started
        self._resolve(vring, self.memory)
        self._tell("vring_start", vring.index, vring.kick)
        self.running[vring.index] = vring

    def vring_stop(self, index: int) -> int:
        vring = self.running.pop(index)
        self._tell("vring_stop", index)
        return (vring.base + self.served) & 0xFFFF

    def vring_enable(self, index: int, on: bool) -> None:
        self._tell("vring_enable", index, on)

    def call_set(self, vring: Vring) -> None:
        self._tell("call_set", vring.index, vring.call)

    def status_set(self, status: int) -> None:
        self._tell("status_set", status)

    def reset(self) -> None:
        assert not self.running
        self._tell("reset")

    def config_get(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.config):
            raise RemoteError("config.offset", offset, len(self.config) - size)
        return bytes(self.config[offset : offset + size])

    def config_set(self, offset: int, data: bytes) -> None:
        self._tell("config_set", offset, data)


class Descriptors:
    """Numbers that stand for open files. ``bad`` ones are no events, ``short`` ones too short for any region."""

    def __init__(self) -> None:
        self.next = 100
        self.open: set[int] = set()
        self.bad: set[int] = set()
        self.short: set[int] = set()
        self.closings: Counter[int] = Counter()

    def new(self, count: int = 1) -> list[int]:
        fds = list(range(self.next, self.next + count))
        self.next += count
        self.open.update(fds)
        return fds

    def close(self, fd: int) -> None:
        self.closings[fd] += 1
        self.open.remove(fd)

    def check_event(self, fd: int) -> None:
        assert fd in self.open
        if fd in self.bad:
            raise RemoteError("event", "pipe", None, "not an eventfd")

    def map_fd(self, fd: int, offset: int, size: int) -> memoryview:
        assert fd in self.open
        if fd in self.short or offset + size > 1 << 24:
            raise MemoryFaultError("region.size", (offset, size), 0, "the file is shorter")
        return memoryview(bytearray(size))


class Bench:
    """A session with its recorder and descriptors, and short ways to speak to it."""

    def __init__(self, **options: object) -> None:
        self.target = Recorder()
        self.files = Descriptors()
        self.logged: list[dict[str, object]] = []
        self.stats = SessionStats()
        self.session = Session(
            self.target,
            map_fd=self.files.map_fd,
            close=self.files.close,
            check_event=self.files.check_event,
            log=lambda event, **fields: self.logged.append({"event": event, **fields}),
            stats=self.stats,
            **options,  # type: ignore[arg-type]
        )

    def send(self, request: int, payload: bytes = b"", fds: int | list[int] = 0, *, need_reply: bool = False) -> bytes:
        """Whole reply, or nothing. ``fds``: descriptors, or how many new ones."""
        header = Header(request, VERSION | (FLAG_NEED_REPLY if need_reply else 0), len(payload))
        return self.session.handle(header, payload, self.files.new(fds) if isinstance(fds, int) else fds)

    def payload(self, request: int, payload: bytes = b"") -> bytes:
        """Payload of the reply; checks the header."""
        answer = self.send(request, payload)
        assert HEADER.unpack_from(answer) == (request, VERSION | 4, len(answer) - HEADER.size)
        return answer[HEADER.size :]

    def refusal(self, request: int, payload: bytes = b"", fds: int | list[int] = 0) -> str | None:
        """The kind as which a request was refused, None if it was carried out."""
        before = self.stats.refused.copy()
        self.send(request, payload, fds)
        new = self.stats.refused - before
        assert new.total() <= 1
        return next(iter(new), None)

    def told(self, name: str) -> list[tuple[object, ...]]:
        return [call for call in self.target.told if call[0] == name]

    @property
    def ready(self) -> bool:
        return self.session.phase == Phase.READY
