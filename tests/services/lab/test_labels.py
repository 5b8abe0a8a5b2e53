"""Ring fields by name: checked against the views that both halves index."""

from __future__ import annotations

from typing import Any

from common.virtio.split_layout import SplitLayout, SplitViews
from services.lab.labels import label_split_ring
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld


def test_every_cell_has_the_name_of_its_field() -> None:
    world = LabWorld(Run(Replay([]), 10))
    memory = world.memory(0x1000)
    layout = SplitLayout.packed_at(0, 4)
    label_split_ring(world, memory, layout)
    views = SplitViews(memory, layout)

    def name(view: Any, index: int) -> str:
        return world.name_of((memory.lab_name, view._locate(index)))

    for i in range(4):
        assert name(views.addr, 2 * i) == f"desc[{i}].addr"
        assert name(views.length, 4 * i + 2) == f"desc[{i}].len"
        assert name(views.half, 8 * i + 6) == f"desc[{i}].flags"
        assert name(views.half, 8 * i + 7) == f"desc[{i}].next"
        assert name(views.avail, 2 + i) == f"avail.ring[{i}]"
        assert name(views.used_ring, 2 * i) == f"used.ring[{i}].id"
        assert name(views.used_ring, 2 * i + 1) == f"used.ring[{i}].len"
    assert [name(views.avail, i) for i in (0, 1, 6)] == ["avail.flags", "avail.idx", "avail.used_event"]
    assert [name(views.used, i) for i in (0, 1)] == ["used.flags", "used.idx"]
    assert name(views.avail_event, 0) == "used.avail_event"
