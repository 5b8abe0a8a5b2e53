"""The address spaces of a vDPA device: which memory map each holds, and which groups of queues use which.

The operations are those of Linux's ``struct vdpa_config_ops``. None of them changes a map: they *propose* the next one
of an address space, the device changes to it, and :meth:`AddressSpaces.commit` says that it is in force. A change that
fails is simply forgotten, and the next proposal starts from what stands.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from common.errors import LocalError, MemoryFaultError
from common.memory import ACCESS_RO, ACCESS_RW, ACCESS_WO, Mapping, MemoryMap
from common.virtio.vdpa_ops import Refusal

#: The map of an address space in which nothing is mapped.
EMPTY: Final = MemoryMap()

Range = tuple[int, int, int, int]
"""``(iova, size, guest address, permission)``: bytes; rights as vhost numbers them (1 read, 2 write, 3 both)."""

_END: Final = 1 << 64


class AddressSpaces:
    """``asids`` address spaces, used by ``groups`` groups of queues; at most ``limit`` ranges in each map.

    Every operation raises :class:`Refusal`, with EINVAL if not said otherwise, and has changed nothing then. A device
    changes one address space at a time: what was proposed before another commit is out of date.
    """

    __slots__ = ("_asids", "_in_force", "limit")

    def __init__(self, asids: int, groups: int, limit: int) -> None:
        if asids < 1 or groups < 1 or limit < 1:
            raise LocalError(f"{asids} address spaces, {groups} groups, {limit} ranges: at least one of each")
        self.limit: Final = limit
        self._in_force = [EMPTY] * asids
        #: by group
        self._asids = [0] * groups

    # --- groups -------------------------------------------------------------------------------------------------------

    def asid_of(self, group: int) -> int:
        """The address space that the queues of ``group`` use: 0 until somebody says otherwise, as in vhost-vdpa."""
        return self._asids[self._group(group)]

    def set_group_asid(self, group: int, asid: int) -> None:
        """Let the queues of ``group`` use ``asid``, from the next time that they are created on."""
        self._asids[self._group(group)] = self._asid(asid)

    def reset_groups(self) -> None:
        """The device was reset: every group uses address space 0 again.

        Maps outlive a reset, as vhost-vdpa promises with VHOST_BACKEND_F_IOTLB_PERSIST; reset_map() drops them.
        """
        self._asids = [0] * len(self._asids)

    # --- maps ---------------------------------------------------------------------------------------------------------

    def in_force(self, asid: int) -> MemoryMap:
        """The map of ``asid`` as it stands. One without mappings is as good as none: mlx5 makes no memory key of it."""
        return self._in_force[self._asid(asid)]

    def set_map(self, asid: int, ranges: Sequence[Range]) -> MemoryMap | None:
        """Propose a map of ``ranges`` and nothing else. None if that is what stands: a call that is repeated after a
        lost link costs nothing.

        E2BIG for more ranges than the limit, as vhost answers a memory table that is too long.
        """
        stands = self.in_force(asid)
        if len(ranges) > self.limit:
            raise Refusal(errno.E2BIG, f"ranges {len(ranges)}: limit {self.limit}")
        try:
            proposed = MemoryMap(Mapping(*r) for r in ranges)
        except MemoryFaultError as fault:
            raise Refusal(errno.EINVAL, str(fault)) from None
        return None if proposed == stands else proposed

    def dma_map(self, asid: int, iova: int, size: int, addr: int, perm: int) -> MemoryMap | None:
        """Propose the map with ``size`` bytes at ``iova`` added. None if this very mapping stands.

        EEXIST if any of the bytes is mapped otherwise, as vhost-vdpa answers. ENOSPC for one range more than the
        limit: VFIO's answer; vhost has none, as it either drops its oldest range or has no limit.
        """
        stands = self.in_force(asid)
        _check("iova", iova, size)
        _check("addr", addr, size)
        if perm not in (ACCESS_RO, ACCESS_WO, ACCESS_RW):
            raise Refusal(errno.EINVAL, f"perm {perm}: limit {ACCESS_RW}, at least {ACCESS_RO}")
        added = Mapping(iova, size, addr, perm)
        clash = stands.overlapping(iova, size)
        if clash == (added,):
            return None
        if clash:
            raise Refusal(errno.EEXIST, f"iova {iova:#x}, {size} bytes: overlaps {_name(clash[0])}, which is mapped")
        if len(stands.mappings) >= self.limit:
            raise Refusal(errno.ENOSPC, f"ranges {len(stands.mappings) + 1}: limit {self.limit}")
        return MemoryMap((*stands.mappings, added))

    def dma_unmap(self, asid: int, iova: int, size: int) -> MemoryMap | None:
        """Propose the map without the mappings that lie in the ``size`` bytes at ``iova``. None if there are none.

        EINVAL if a mapping lies there only in part, as VFIO (type 1, version 2) answers. vhost takes such mappings
        away whole (vhost_iotlb_del_range), which pulls memory that nobody named from under a device at work.
        """
        stands = self.in_force(asid)
        _check("iova", iova, size)
        gone = stands.overlapping(iova, size)
        for m in gone[:1] + gone[-1:]:
            if m.iova < iova or m.iova + m.size > iova + size:
                raise Refusal(errno.EINVAL, f"iova {iova:#x}, {size} bytes: cuts {_name(m)}, unmap all of it or none")
        if not gone:
            return None
        first = stands.mappings.index(gone[0])
        return MemoryMap(stands.mappings[:first] + stands.mappings[first + len(gone) :])

    def reset_map(self, asid: int) -> MemoryMap | None:
        """Propose the map that stands when a device is made: nothing is mapped. None if that is so.

        Linux leaves to the driver what this is. mlx5 goes back to a key over all of the host's memory in address
        space 0, for virtio_vdpa, where the kernel itself is the driver; a guest's device must not reach anything
        that its VMM has not mapped.
        """
        return EMPTY if self.in_force(asid).mappings else None

    def commit(self, asid: int, memory_map: MemoryMap) -> None:
        """``memory_map``, as proposed for ``asid``, is in force."""
        self._in_force[self._asid(asid)] = memory_map

    # --- checks -------------------------------------------------------------------------------------------------------

    def _asid(self, asid: int) -> int:
        if not 0 <= asid < len(self._in_force):
            raise Refusal(errno.EINVAL, f"asid {asid}: limit {len(self._in_force) - 1}")
        return asid

    def _group(self, group: int) -> int:
        if not 0 <= group < len(self._asids):
            raise Refusal(errno.EINVAL, f"group {group}: limit {len(self._asids) - 1}")
        return group


def _name(m: Mapping) -> str:
    return f"{m.size} bytes at {m.iova:#x}"


def _check(field: str, start: int, size: int) -> None:
    if size <= 0:
        raise Refusal(errno.EINVAL, f"size {size}: limit 1, at least")
    if start < 0 or start + size > _END:
        raise Refusal(errno.EINVAL, f"{field} {start:#x}, {size} bytes: limit {_END:#x}")
