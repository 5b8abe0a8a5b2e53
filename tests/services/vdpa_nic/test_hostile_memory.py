"""Descriptors that their owner changes while the port reads them: nothing is used that is not what was checked."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from common.memory import ACCESS_RO, GuestMemory
from common.virtio.features import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from common.virtio.net_header import TX_PLAIN
from tests.services.vdpa_nic.mesh_rig import BUFFER, frame
from tests.services.vdpa_nic.victim import RX, TX, Victim
from tests.services.vdpa_nic.wire_rig import IOVA, WINDOW

N, W, I = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT  # noqa: E741
#: Guest memory that no map holds.
SECRET: Final = WINDOW[0]


class Flipping:
    """Cells of which one shows something else when it is read again."""

    def __init__(self, view: Any, change: dict[int, int], reads: Counter[int]) -> None:
        self.view = view
        self.change = change
        self.reads = reads

    def __getitem__(self, i: int) -> int:
        value = self.view[i]
        self.reads[i] += 1
        if i in self.change:
            self.view[i] = self.change[i]
        return int(value)

    def __setitem__(self, i: int, value: int) -> None:
        self.view[i] = value


class Treacherous(GuestMemory):
    """Guest memory whose owner changes descriptors between two looks at them: ``changes[fmt]`` is cell → value."""

    __slots__ = ("changes", "desc", "reads")

    def __init__(self) -> None:
        super().__init__()
        self.desc = -1
        self.changes: dict[str, dict[int, int]] = {"Q": {}, "I": {}, "H": {}}
        self.reads: dict[str, Counter[int]] = {"Q": Counter(), "I": Counter(), "H": Counter()}

    def view(self, addr: int, count: int, fmt: str, perm: int = ACCESS_RO) -> Any:
        view = super().view(addr, count, fmt, perm)
        return Flipping(view, self.changes[fmt], self.reads[fmt]) if addr == self.desc else view


#: What the second look would find: (format of the view, cell, value).
FLIPS: Final = {
    "addr": ("Q", 0, SECRET),
    "addr, not in memory": ("Q", 0, 2**64 - 1),
    "len": ("I", 2, 0xFFFF_FFFF),
    "flags": ("H", 6, N),
    "flags, indirect": ("H", 6, I),
    "flags, the other direction": ("H", 6, W),
    "next": ("H", 7, 65535),
}


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("index", [RX, TX])
def test_only_what_was_checked_is_used(flip: str, chained: bool, index: int) -> None:
    memory = Treacherous()
    mesh = Victim(memory=memory)
    for region in mesh.memory.regions:
        memory.add_region(region.base, region.size, region.data)
    queue = mesh.queues[index]
    memory.desc = queue.layout.desc
    mesh.start()
    if index == TX:
        mesh.give(0)
        mesh.kick(mesh.queues[RX])
        mesh.settle()
    at = mesh.room + IOVA
    packet = TX_PLAIN + frame(0, 0)
    mesh.memory.write(mesh.room, packet if index == TX else bytes(BUFFER))
    way = W * (index == RX)
    cut = 20 if chained else len(packet)
    whole = BUFFER if index == RX else len(packet)
    pair = [(at, cut, way | N, 1), (at + cut, whole - cut, way, 0)]
    mesh.put(queue.layout.desc, pair if chained else [(at, whole, way, 0)])
    fmt, cell, value = FLIPS[flip]
    memory.changes[fmt][cell] = value
    memory.reads = {name: Counter() for name in memory.reads}
    mesh.offer(queue, [0])
    mesh.settle()
    if index == RX:
        mesh.transmit(0)
        mesh.kick(mesh.queues[TX])
        mesh.settle()
        assert mesh.memory.read(mesh.room, len(packet))[12:] == packet[12:]
    else:
        assert [got for got in mesh.got if got[0] == 0] == [(0, 0, 0)]
    assert mesh.memory.read(SECRET, 64) == bytes(64)
    assert mesh.alarms == []
    mesh.others_run()
