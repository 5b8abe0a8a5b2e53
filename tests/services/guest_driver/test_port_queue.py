"""What a port knows of a queue before a device made it."""

from __future__ import annotations

from dataclasses import asdict

from common.runtime.world import AsyncWorld
from services.guest_driver.port_queue import ObjectState, PortQueue, PortStats


def test_a_queue_that_never_lived() -> None:
    queue = PortQueue(AsyncWorld(), 3)
    assert (queue.index, queue.ring, queue.memory, queue.fault) == (3, None, None, None)
    assert not any((queue.alive, queue.resyncing, queue.broken, queue.kicked))
    assert (len(queue.in_flight), queue.irq_number, queue.again_sent) == (0, 0, 0)
    assert queue.state == ObjectState.NONE


def test_alive_is_a_queue_object_that_is_not_broken() -> None:
    queue = PortQueue(AsyncWorld(), 0)
    alive = {}
    for state in ObjectState:
        queue.state = state
        alive[state.name] = queue.alive
        assert queue.broken == (state == ObjectState.ERR)
    assert alive == {"NONE": False, "INIT": True, "RDY": True, "SUSPEND": True, "ERR": False}


def test_interrupt_numbers_outlive_a_reset_and_nothing_else_does() -> None:
    world = AsyncWorld()
    queue = PortQueue(world, 0)
    queue.irq_number, queue.kicked, queue.avail, queue.fault = 7, True, 9, ("head", "twice")
    queue.in_flight[2] = (0, (), 0)
    queue.reset(world)
    assert (queue.irq_number, queue.kicked, queue.avail, len(queue.in_flight)) == (7, False, 0, 0)
    assert not queue.fault


def test_nothing_shared_between_queues() -> None:
    world = AsyncWorld()
    first, second = PortQueue(world, 0), PortQueue(world, 1)
    first.in_flight[2] = (0, (), 0)
    assert len(second.in_flight) == 0
    assert first.visible is not second.visible


def test_counters_begin_at_nought() -> None:
    assert not any(asdict(PortStats()).values())
