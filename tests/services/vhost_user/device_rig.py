"""A device behind no session at all: an echo core, events that a test rings, memory in plain bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.errors import RemoteError
from common.virtio.device_core import Transport
from common.virtio.features import DESC_F_WRITE
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Chain
from services.vhost_user.device import VhostDevice
from services.vhost_user.memory import SharedMemory, SharedRegion
from services.vhost_user.target import Vring
from services.vhost_user.world import FencedWorld
from tests.services.vhost_user.queue_rig import EVENT_IDX, INDIRECT

#: what user addresses have more than guest addresses
USER = 0x7F00_0000_0000
SIZE = 8
FEATURES = EVENT_IDX | INDIRECT


def table(*regions: tuple[int, int], like: SharedMemory | None = None) -> SharedMemory:
    """Regions ``(guest address, bytes)``; those that ``like`` has at the same address keep their bytes."""
    views = {region.base: region.data for region in like.guest.regions} if like is not None else {}
    return SharedMemory(
        tuple(
            (SharedRegion(base, size, USER + base, 0), views.get(base, memoryview(bytearray(size)))[:size])
            for base, size in regions
        )
    )


class Echo:
    """Queue 0 answers at once, backwards, unless ``holding``; queue 1 keeps its buffers for :meth:`emit`."""

    offered = FEATURES
    queue_sizes = (SIZE, SIZE)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.calls: list[str] = []
        self.batches: list[list[bytes]] = []
        self.holding = False
        self.held: list[tuple[int, bytes]] = []
        self.buffers: list[int] = []
        self.refuse: RemoteError | None = None
        self.tick_answer = False

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.batches.append([request for _, request, _ in chains])
        for head, request, segments in chains:
            if queue == 1:
                self.buffers.append(head)
            elif self.holding:
                self.held.append((head, request))
            else:
                room = sum(length for _, length, flags in segments if flags & DESC_F_WRITE)
                self.transport.queues[0].complete(head, request[::-1][:room])

    def emit(self, message: bytes) -> bool:
        if not self.transport.live(1) or not self.buffers:
            return False
        self.transport.queues[1].complete(self.buffers.pop(0), message)
        self.transport.queues[1].flush()
        return True

    def on_stop(self, queue: int) -> Sequence[int]:
        self.calls.append(f"stop {queue}")
        if queue == 1:
            unused, self.buffers = self.buffers, []
            return unused
        for head, request in self.held:
            self.transport.queues[0].complete(head, request[::-1])
        self.held.clear()
        return []

    def on_reset(self) -> None:
        self.calls.append("reset")

    def check_size(self, queue: int, size: int) -> None:
        if size < 2:
            raise RemoteError("size", size, 2)

    def tick(self, now: float) -> bool:
        self.calls.append(f"tick {now}")
        return self.tick_answer


class Bells:
    """Events that ring when the test says so. Descriptors are any numbers."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.signals: list[int] = []
        self.later: list[Callable[[], None]] = []

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        assert fd not in self.watched
        self.watched[fd] = ready

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def signal(self, fd: int) -> None:
        self.signals.append(fd)

    def soon(self, work: Callable[[], None]) -> None:
        self.later.append(work)

    def turn(self) -> None:
        """Let everything run that waits for its turn now."""
        works, self.later = self.later, []
        for work in works:
            work()


class DeviceRig:
    """The device and the driver's half of both its queues; ring n is kicked by 10+n, calls 20+n, errs 30+n."""

    def __init__(self, start: int = 0) -> None:
        self.world = FencedWorld()
        self.bells = Bells()
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.intact = True
        self.lost = 0
        self.device = VhostDevice(
            Echo, 2, world=self.world, events=self.bells, log=self.log, whole=lambda: self.intact, lost=self.lose
        )
        self.core = self.device.core
        self.memory = table((0, 1 << 16), (1 << 20, 1 << 16))
        self.drivers: list[SplitDriver] = []
        self.vrings: list[Vring] = []
        for index in range(2):
            layout = SplitLayout.packed_at(0x1000 * index, SIZE)
            self.drivers.append(
                SplitDriver(
                    self.world,
                    self.memory.guest,
                    layout,
                    event_idx=True,
                    start=start,
                    indirect=0x4000 + 0x1000 * index,
                    indirect_max=8,
                )
            )
            areas = (USER + layout.desc, USER + layout.driver, USER + layout.device)
            vring = Vring(index, SIZE, start, *areas, enabled=True)
            vring.kick, vring.call, vring.err = 10 + index, 20 + index, 30 + index
            self.vrings.append(vring)

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    def lose(self) -> None:
        self.lost += 1

    def bring_up(self) -> None:
        self.device.features_set(FEATURES)
        self.device.memory_set(self.memory)
        for vring in self.vrings:
            self.device.vring_start(vring)

    def kick(self, index: int = 0) -> None:
        self.bells.watched[10 + index]()

    def add(self, request: bytes, room: int = 8, queue: int = 0, at: int = 1 << 20) -> None:
        """One chain with buffers in the second region; the request at ``at``, the answer 256 bytes above."""
        self.memory.guest.write(at, request)
        outs = [(at, len(request))] if request else []
        self.drivers[queue].add(outs, [(at + 256, room)], at)

    def got(self, queue: int = 0) -> list[bytes]:
        return [self.memory.guest.read(at + 256, length) for at, length in self.drivers[queue].get_bufs(64)]
