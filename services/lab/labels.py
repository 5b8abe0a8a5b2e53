"""Ring fields by the names of the specification (virtio 1.3 §2.7.5, §2.7.6, §2.7.8) in ladders."""

from __future__ import annotations

from common.virtio.split_layout import SplitLayout
from services.lab.memory import LabMemory
from services.lab.world import LabWorld


def label_split_ring(world: LabWorld, memory: LabMemory, layout: SplitLayout) -> None:
    """Name every cell of a split virtqueue: ``desc[i].addr``, ``avail.idx``, ``used.ring[i].id`` and so on."""

    def name(addr: int, text: str) -> None:
        world.label(memory, addr, text)

    for i in range(layout.size):
        for offset, field in ((0, "addr"), (8, "len"), (12, "flags"), (14, "next")):
            name(layout.desc + 16 * i + offset, f"desc[{i}].{field}")
        name(layout.driver + 4 + 2 * i, f"avail.ring[{i}]")
        name(layout.device + 4 + 8 * i, f"used.ring[{i}].id")
        name(layout.device + 8 + 8 * i, f"used.ring[{i}].len")
    for base, area in ((layout.driver, "avail"), (layout.device, "used")):
        name(base, f"{area}.flags")
        name(base + 2, f"{area}.idx")
    name(layout.driver + 4 + 2 * layout.size, "avail.used_event")
    name(layout.device + 4 + 8 * layout.size, "used.avail_event")
