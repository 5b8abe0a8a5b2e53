"""A receive queue is reset, whatever becomes of the link meanwhile."""

from __future__ import annotations

import asyncio
import errno

import pytest

from common.errors import CallError, LinkDownError
from services.guest_driver.port_queue import ObjectState
from tests.services.guest_driver.nic_mesh import NicMesh

RX1 = 2


async def works(mesh: NicMesh) -> None:
    """Traffic passes on both pairs, from index 0 on in the queue that was reset, and nothing is lost."""
    assert not mesh.nic.resets.under_way
    rx = [ledger.rx for ledger in mesh.load.ledgers]
    mesh.load.start()
    await mesh.go_on(600)
    mesh.load.running = False
    await mesh.settle()
    assert all(ledger.rx > before + 20 for ledger, before in zip(mesh.load.ledgers, rx, strict=True))
    assert mesh.load.close() == 0
    mesh.spotless()
    mesh.conserved()
    mesh.agree()


async def test_a_queue_is_reset_and_begins_anew() -> None:
    mesh = await NicMesh(2, seed=3).start()
    await works(mesh)
    queue = mesh.device.queues[RX1]
    assert queue.next_idx > 16
    await mesh.run(mesh.nic.resets.reset(mesh.nic.net.pairs[1]))
    assert mesh.nic.resets.done == mesh.device.vdpa_stats.vq_resets == 1
    await mesh.settle()
    assert (queue.next_idx, queue.used_idx, queue.in_hand) == (16, 0, 16), "every buffer is there again"
    assert mesh.device.queues[0].next_idx > 16, "the other pair's queue went on"
    await works(mesh)


async def test_frames_that_had_come_before_are_taken() -> None:
    mesh = await NicMesh(2).start()
    mesh.load.start()
    mesh.load.running = False
    ring = mesh.port.queues[RX1].ring
    assert ring is not None
    while ring.used_idx < mesh.load.ledgers[1].tx:
        mesh.move()
        mesh.pending.clear()  # the driver does not look
    assert mesh.load.ledgers[1].outstanding
    await mesh.run(mesh.nic.resets.reset(mesh.nic.net.pairs[1]))
    assert not mesh.load.ledgers[1].outstanding
    mesh.spotless()
    mesh.conserved()


async def test_a_pair_that_is_being_reset_sends_nothing() -> None:
    """The NIC would drop the answers."""
    mesh = await NicMesh(2).start()
    task = asyncio.get_running_loop().create_task(mesh.nic.resets.reset(mesh.nic.net.pairs[1]))
    await asyncio.sleep(0)
    mesh.load.start()
    assert [ledger.tx for ledger in mesh.load.ledgers] == [16, 0]
    while not task.done():
        mesh.move()
        await asyncio.sleep(0)
    assert mesh.load.ledgers[1].tx == 0
    await works(mesh)


@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize("after", range(0, 120, 3))
async def test_the_link_breaks_at_any_time(after: int, renew: bool) -> None:
    mesh = await NicMesh(2, seed=after).start()
    pair = mesh.nic.net.pairs[1]
    task = asyncio.get_running_loop().create_task(mesh.nic.resets.reset(pair))
    await mesh.go_on(after)
    if renew:
        mesh.restart()
    else:
        mesh.cut()
    await asyncio.wait([task])
    cut = task.exception() is not None
    if cut:
        assert isinstance(task.exception(), LinkDownError)
        assert mesh.nic.resets.under_way == {1}
        with pytest.raises(LinkDownError if not renew else (LinkDownError, CallError)):
            await mesh.nic.resets.reset(pair)
    mesh.connect()
    if cut and renew:
        with pytest.raises(CallError) as caught:
            await mesh.nic.resets.reset(pair)
        assert caught.value.errno == errno.EBUSY, "the bus is configuring the new NIC"
        while not mesh.nic.bus.configured:
            mesh.move()
            await asyncio.sleep(0)
    if cut:
        await mesh.run(mesh.nic.resets.reset(pair))
    await mesh.settle()
    assert mesh.port.queues[RX1].state == ObjectState.RDY
    await works(mesh)
