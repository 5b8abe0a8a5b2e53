"""What a port knows of a queue before a device made it."""

from __future__ import annotations

from dataclasses import asdict

from common.runtime.world import AsyncWorld
from services.guest_driver.port_queue import PortQueue, PortStats


def test_a_queue_that_never_lived() -> None:
    queue = PortQueue(AsyncWorld(), 3)
    assert (queue.index, queue.ring, queue.memory, queue.fault) == (3, None, None, None)
    assert not any((queue.alive, queue.suspended, queue.resyncing, queue.broken, queue.kicked))
    assert (len(queue.in_flight), queue.irq_number, queue.again_sent) == (0, 0, 0)


def test_nothing_shared_between_queues() -> None:
    world = AsyncWorld()
    first, second = PortQueue(world, 0), PortQueue(world, 1)
    first.in_flight[2] = (0, [], 0)
    assert len(second.in_flight) == 0
    assert first.visible is not second.visible


def test_counters_begin_at_nought() -> None:
    assert not any(asdict(PortStats()).values())
