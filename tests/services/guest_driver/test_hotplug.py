"""DIMMs come and go under traffic, without traffic, and where the NIC is away or refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import CallError, LinkDownError
from common.virtio.features import Feature
from services.guest_driver.guest_nic import IOVA
from services.guest_driver.hotplug import PLUGGED, SIZES, UnplugBusyError
from services.guest_driver.net_pair import BUFFER_BYTES, RX
from tests.services.guest_driver.mesh_rig import GUARD, within
from tests.services.guest_driver.nic_mesh import NicMesh


async def up(patience: float = 0.0, **kwargs: Any) -> NicMesh:
    mesh = await NicMesh(**kwargs).start()
    mesh.nic.hotplug._patience = patience  # type: ignore[misc]
    return mesh


def mapped(mesh: NicMesh) -> list[tuple[int, int]]:
    """What the NIC has mapped beside RAM: guest address and bytes."""
    return [(m.addr, m.size) for m in mesh.device.spaces.in_force(0).mappings][1:]


def next_goes_one_in_a_receive_ring(mesh: NicMesh) -> int:
    """How many receive rings hold buffers of the DIMM that goes next."""
    dimms = mesh.nic.hotplug.dimms
    while True:
        dimm = dimms[0]
        count = sum(1 for pair in mesh.nic.net.pairs if pair.held(dimm.base, dimm.base + dimm.size)[RX])
        if count:
            return count
        dimms.rotate(1)


async def finish(mesh: NicMesh) -> None:
    """Traffic ends, and nothing is missing."""
    mesh.load.running = False
    await mesh.settle()
    mesh.spotless()
    mesh.conserved()
    assert mesh.load.close() == 0


@pytest.mark.parametrize("op", ["set_map", "dma_map"])
async def test_one_comes_and_one_goes_in_turn(op: str) -> None:
    mesh = await up(GUARD, map_op=op)
    mesh.load.start()
    hotplug = mesh.nic.hotplug
    seen: list[tuple[int, int]] = []
    counts = []
    for _ in range(30):
        before = mapped(mesh)
        await mesh.run(hotplug.change())
        now = mapped(mesh)
        assert now == sorted((dimm.base, dimm.size) for dimm in hotplug.dimms)
        assert [region.base for region in mesh.memory.regions][2:] == [base for base, _ in now]
        seen += set(now) - set(before)
        counts.append(len(now))
    assert counts == [1, 2, 3] + [4, 3] * 13 + [4]
    assert len({base for base, _ in seen}) == len(seen), "at varying addresses"
    assert len({size for _, size in seen}) > 3, "and sizes"
    stats = hotplug.stats
    assert (stats.plugged, stats.unplugged, stats.plug_refused) == (17, 13, 0)
    assert mesh.device.vdpa_stats.map_changes == mesh.nic.vmm.changes == 31
    await finish(mesh)


async def test_buffers_are_placed_in_a_new_dimm_at_once() -> None:
    mesh = await up(pairs=1, max_pairs=1, window=8)
    mesh.load.start()
    await mesh.run(mesh.nic.hotplug.change())
    (dimm,) = mesh.nic.hotplug.dimms
    pair = mesh.nic.net.pairs[0]
    pool = mesh.nic.hotplug._pool
    await mesh.go_on(200)
    assert sum(pair.held(dimm.base, dimm.base + dimm.size)) > 0
    used = {pool.views[a].tobytes() for a in pool.views if dimm.base <= a < dimm.base + dimm.size}
    assert len(used) > SIZES[0] // 2, "packets have been there"
    await finish(mesh)


async def test_what_no_traffic_uses_is_got_back_by_a_reset_of_its_queue() -> None:
    mesh = await up(pairs=2)
    mesh.load.start()
    for _ in range(PLUGGED + 1):
        await mesh.run(mesh.nic.hotplug.change())
    mesh.load.running = False
    await mesh.settle()
    held = next_goes_one_in_a_receive_ring(mesh)
    await mesh.run(mesh.nic.hotplug.change())
    stats = mesh.nic.hotplug.stats
    assert stats.unplugged == 1
    assert stats.queues_reset == mesh.nic.resets.done == mesh.device.vdpa_stats.vq_resets == held
    assert not mesh.nic.resets.under_way
    await mesh.settle()
    mesh.agree()
    mesh.load.start()
    rx = mesh.load.rx
    await mesh.go_on(2000)
    assert mesh.load.rx > rx + 100
    await finish(mesh)


async def test_a_pair_that_owes_frames_is_not_reset() -> None:
    """The NIC would drop them."""
    mesh = await up(pairs=1, max_pairs=1)
    mesh.load.start()
    for _ in range(PLUGGED + 1):
        await mesh.run(mesh.nic.hotplug.change())
    await mesh.go_on(200)
    assert not mesh.load.quiet(0)
    change = asyncio.get_running_loop().create_task(mesh.nic.hotplug.change())
    with pytest.raises(UnplugBusyError, match="in use"):  # the NIC hangs: nothing moves
        await within(change)
    assert mesh.nic.hotplug.stats.unplug_busy == 1
    while True:  # it goes on, and so does the change
        try:
            await mesh.run(mesh.nic.hotplug.change())
            break
        except UnplugBusyError:
            mesh.move()
    assert mesh.nic.hotplug.stats.unplugged == 1
    assert mesh.nic.hotplug.stats.queues_reset == 0
    await finish(mesh)


async def test_without_ring_reset_only_traffic_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = NicMesh(pairs=1, max_pairs=1)
    mesh.device.offered &= ~Feature.RING_RESET.bit  # type: ignore[misc]
    await mesh.start()
    hotplug = mesh.nic.hotplug
    hotplug._patience = 0.0  # type: ignore[misc]
    mesh.load.start()
    for _ in range(PLUGGED + 1):
        await mesh.run(hotplug.change())
    await mesh.go_on(300)
    mesh.load.running = False
    await mesh.settle()
    next_goes_one_in_a_receive_ring(mesh)
    assert mesh.load.quiet(0)
    for _ in range(3):
        with pytest.raises(UnplugBusyError):
            await mesh.run(hotplug.change())
    mesh.load.start()
    while hotplug.stats.unplugged == 0:
        try:
            await mesh.run(hotplug.change())
        except UnplugBusyError:
            await mesh.go_on(20)
    assert hotplug.stats.queues_reset == 0
    await finish(mesh)


async def test_a_dimm_that_the_nic_refuses_is_taken_out_again() -> None:
    mesh = await up(pairs=1)
    limit, mesh.device.spaces.limit = mesh.device.spaces.limit, 1  # type: ignore[misc]
    mesh.load.start()
    hotplug = mesh.nic.hotplug
    with pytest.raises(CallError, match="limit 1"):
        await mesh.run(hotplug.change())
    banks = [len(mesh.memory.regions)]  # it is unplugged when the NIC has confirmed that it does not use it
    await mesh.run(hotplug.change())
    assert [*banks, len(mesh.memory.regions)] == [3, 2]
    assert mapped(mesh) == []
    assert hotplug.stats.plug_refused == 1
    mesh.device.spaces.limit = limit  # type: ignore[misc]
    await mesh.run(hotplug.change())
    assert len(mapped(mesh)) == 1
    await finish(mesh)


async def test_a_reset_that_the_link_broke_off_is_finished_even_if_all_buffers_are_back() -> None:
    """Or its pair would rest for ever."""
    mesh = await up(pairs=1)
    mesh.load.start()
    for _ in range(PLUGGED + 1):
        await mesh.run(mesh.nic.hotplug.change())
    await mesh.go_on(300)
    mesh.load.running = False
    await mesh.settle()
    next_goes_one_in_a_receive_ring(mesh)
    dimm = mesh.nic.hotplug.dimms[0]
    task = asyncio.get_running_loop().create_task(mesh.nic.hotplug.change())
    while not dimm.back.is_set():
        await mesh.go_on(1)
    mesh.cut()
    with pytest.raises(LinkDownError):
        await task
    assert mesh.nic.resets.under_way == {0}
    mesh.connect()
    await mesh.run(mesh.nic.hotplug.change())
    assert not mesh.nic.resets.under_way
    mesh.load.start()
    await mesh.go_on(600)
    assert mesh.nic.hotplug.stats.queues_reset == 1
    await finish(mesh)


@pytest.mark.parametrize("op", ["set_map", "dma_map"])
@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_the_nic_is_away_in_the_middle_of_a_change(seed: int, renew: bool, op: str) -> None:
    """The links break, or the NIC dies, at any time: the change goes on when it is back, and no buffer is lost."""
    mesh = await up(pairs=2, seed=seed, map_op=op)
    hotplug = mesh.nic.hotplug
    changes = 0
    refused: set[str] = set()
    for turn in range(60):
        mesh.load.start()
        if turn % 7 == 5:  # without traffic, so that queues are reset
            mesh.load.running = False
            await mesh.settle()
        task = asyncio.get_running_loop().create_task(hotplug.change())
        left = mesh.random.randrange(60)
        while not task.done() and left:
            mesh.move()
            await asyncio.sleep(0)
            left -= 1
        if not task.done():
            if renew and turn % 2:
                mesh.restart()
            else:
                mesh.cut()
            await asyncio.sleep(0)
            await asyncio.wait([task])
            mesh.connect()
        try:
            task.result()
            changes += 1
        except (LinkDownError, UnplugBusyError):
            pass
        except CallError as error:
            refused.add(error.detail)
        await mesh.go_on(mesh.random.randrange(200))
    while hotplug._coming or hotplug._going:
        try:
            await mesh.run(hotplug.change())
        except (UnplugBusyError, CallError):
            mesh.move()
    assert hotplug.stats.plugged + hotplug.stats.unplugged >= changes > 2
    assert refused <= {"the device is being configured"}
    await finish(mesh)
    assert mapped(mesh) == sorted((dimm.base, dimm.size) for dimm in hotplug.dimms)
    assert all(m.iova == m.addr + IOVA for m in mesh.device.spaces.in_force(0).mappings)
    assert hotplug._pool.size == BUFFER_BYTES
    if not renew:
        assert mesh.load.total("re_executed") == mesh.load.total("reset_dropped") == 0
    mesh.agree()
    assert mesh.load.tx == mesh.load.rx - mesh.load.total("re_executed") + mesh.load.total("reset_dropped")
