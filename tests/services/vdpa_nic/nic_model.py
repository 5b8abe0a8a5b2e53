"""What a VMM and a driver may rely on, as plain as can be, and the maps that a VMM tries.

Imported as ``tests.services.vdpa_nic.nic_model``.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from common.memory import ACCESS_RO, ACCESS_RW
from tests.services.vdpa_nic.mesh_rig import WHOLE, Queue
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW

Ranges = list[tuple[int, int, int, int]]

HALF: Final = BYTES // 2
PAGE: Final = 0x1000
#: Where the VMM plugs and unplugs pages.
PAGES: Final = tuple((WINDOW[0] + IOVA + i * PAGE, PAGE, WINDOW[0] + i * PAGE, ACCESS_RW) for i in range(4))
#: Maps that serve, all of guest memory at the same addresses.
MAPS: Final[tuple[Ranges, ...]] = (
    WHOLE,
    [(RAM + IOVA, HALF, RAM, ACCESS_RW), (RAM + IOVA + HALF, HALF, RAM + HALF, ACCESS_RW)],
    [*WHOLE, PAGES[0], PAGES[2]],
    [*WHOLE, (1 << 20, PAGE, WINDOW[0], ACCESS_RO)],
)
#: Maps that must be refused, and how.
BAD: Final[tuple[tuple[Ranges, int], ...]] = (
    ([*WHOLE, (RAM + IOVA + PAGE, PAGE, RAM, ACCESS_RW)], errno.EINVAL),  # overlaps
    ([*WHOLE, (0, PAGE, 0, ACCESS_RW)], errno.EFAULT),  # no guest memory: found out by the port
    ([*WHOLE, (0, 0, RAM, ACCESS_RW)], errno.EINVAL),
    ([(i * PAGE, PAGE, RAM, ACCESS_RW) for i in range(1025)], errno.E2BIG),
)


def overlaps(ranges: Ranges, iova: int, size: int) -> Ranges:
    return [r for r in ranges if r[0] < iova + size and iova < r[0] + r[1]]


class Model:
    """What the VMM and the driver may rely on."""

    def __init__(self, queues: int) -> None:
        #: address space → what it maps
        self.maps: dict[int, Ranges] = {0: [], 1: []}
        #: group → address space
        self.asids = [0, 0]
        self.suspended = False
        #: queue → get_vq_state where it is not what the used ring says; -1: nobody can know
        self.index: dict[int, int] = {}
        self.ctrl = queues - 1

    def runs(self, queue: Queue) -> bool:
        """Does a queue fetch, on a device that is DRIVER_OK?"""
        return queue.ready and not self.suspended and bool(self.maps[self.asids[queue.index == self.ctrl]])

    def forget(self) -> None:
        """The NIC is another one."""
        self.maps = {0: [], 1: []}
        self.suspended = False
        self.asids = [0, 0]

    def judge(self, op: str, asid: int, *args: Any) -> tuple[set[int], Ranges]:
        """What a change of map may be answered, and the map after it."""
        stands = self.maps[asid]
        if op == "set_map":
            ranges = sorted(args[0])
            for bad, code in BAD:
                if args[0] == bad:
                    return {code}, stands
            return {0}, ranges
        if op == "reset_map":
            # queues that stand need their rings
            return {0} if not stands else {0, errno.EINVAL}, []
        iova, size = args[0], args[1]
        clash = overlaps(stands, iova, size)
        if op == "dma_map":
            if clash:
                return {0 if clash == [args] else errno.EEXIST}, stands
            return {0}, sorted([*stands, args])
        if any(r[0] < iova or r[0] + r[1] > iova + size for r in clash):
            return {errno.EINVAL}, stands
        return {0}, [r for r in stands if r not in clash]
