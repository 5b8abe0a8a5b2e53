"""10,000 changes of the NIC's memory map under full load on four queue pairs, with DIMMs coming and going.

Whenever the queues stand, device, port and ring memory must have the same indices, and every buffer must be somewhere
once. ``RINGMESH_MAP_CHANGES`` says how many changes there are.
"""

from __future__ import annotations

import os

import pytest

from services.guest_driver.hotplug import PLUGGED
from tests.services.guest_driver.mesh_rig import GUARD
from tests.services.guest_driver.nic_mesh import NicMesh

CHANGES = int(os.environ.get("RINGMESH_MAP_CHANGES", "2000"))


class Checked(NicMesh):
    """Looks at everything in the middle of each change: no queue object stands, the new key is about to be made."""

    stops = 0

    def look(self, point: str, _queue: int) -> None:
        if point == "mkey_created":
            self.stops += 1
            self.agree()
            self.conserved()
            self.spotless()


@pytest.mark.parametrize("op", ["set_map", "dma_map"])
async def test_nothing_is_lost_however_often_the_map_changes(op: str) -> None:
    mesh = Checked(map_op=op)
    await mesh.start()
    mesh.nic.hotplug._patience = GUARD  # type: ignore[misc]
    mesh.port.hook = mesh.look
    mesh.load.start()

    async def changes() -> None:
        for _ in range(CHANGES // 2):
            await mesh.nic.hotplug.change()
            await mesh.nic.check_indices()

    await mesh.run(changes(), 1 << 62)
    mesh.load.running = False
    await mesh.settle()
    mesh.agree()
    mesh.conserved()
    mesh.spotless()
    assert mesh.load.close() == 0
    assert mesh.load.tx == mesh.load.rx
    for ledger in mesh.load.ledgers:
        assert ledger.rx > CHANGES
        assert ledger.outstanding == ledger.reset_dropped == ledger.re_executed == 0
    assert mesh.stops == mesh.device.vdpa_stats.map_changes - 1 == CHANGES // 2
    stats = mesh.nic.hotplug.stats
    assert stats.plugged + stats.unplugged == CHANGES // 2
    assert PLUGGED <= stats.plugged - stats.unplugged <= PLUGGED + 1
    assert mesh.device.vdpa_stats.chains_handed_back > CHANGES, "receive buffers were in the NIC at each change"
    assert mesh.nic.indices.checked > CHANGES
