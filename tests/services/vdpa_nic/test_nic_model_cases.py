"""Interleavings of :mod:`test_nic_model` that were once wrong, or that a random walk rarely meets.

Each is a walk of its state machine, with the same checks whenever nothing moves any more and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from common.wire.messages import Call
from services.guest_driver import port_dma
from tests.services.vdpa_nic.test_nic_model import Restarting


@contextmanager
def walk(size: int = 2, pairs: int = 1) -> Iterator[Restarting]:
    machine = Restarting()
    machine.setup(pairs=pairs, size=size, event_idx=False, starts=())
    yield machine
    machine.quiet()
    machine.teardown()


def the_map_of_a_suspended_nic_after_a_new_connection(m: Restarting) -> None:
    m.suspend(what="suspend")
    m.quiet()
    m.lose_link()
    m.quiet()
    m.set_map(asid=0, which=1)
    m.quiet()
    m.disable(number=1)


def a_reset_right_behind_a_command(m: Restarting) -> None:
    m.command(on=True)
    m.reset(again=False)


def the_index_of_a_queue_that_waits_for_a_map(m: Restarting) -> None:
    m.give(pair=0, count=2, kick=True)
    m.restart()
    m.reset_map(asid=0)


def an_object_of_which_the_port_never_heard(m: Restarting) -> None:
    m.reset_vq(number=0, start=0, enable=True)
    m.suspend(what="suspend")
    m.quiet()
    m.lose_link()
    m.suspend(what="resume")


def answers_that_went_down_with_the_link(m: Restarting) -> None:
    m.give(pair=0, count=2, kick=True)
    m.transmit(pair=0, count=2, kick=True)
    m.mesh.step("device")
    m.lose_link()


def answers_that_went_down_during_a_change(m: Restarting) -> None:
    m.set_map(asid=0, which=1)
    m.mesh.step("port")
    m.transmit(pair=0, count=2, kick=True)
    m.mesh.step("device")
    m.lose_link()


def a_reset_during_a_change_and_the_link_goes(m: Restarting) -> None:
    m.set_map(asid=0, which=1)
    m.reset(again=True)
    m.mesh.step("device")
    m.lose_link()


def keys_that_no_queue_holds_on_a_new_link(m: Restarting) -> None:
    m.reset(again=False)
    m.quiet()
    m.set_map(asid=0, which=1)
    m.quiet()
    m.lose_link()
    m.quiet()
    m.set_up_again()


def a_change_asked_for_while_resyncs_are_awaited(m: Restarting) -> None:
    m.transmit(pair=0, count=1, kick=True)
    m.lose_link()
    m.reconnect()
    m.set_map(asid=0, which=1)
    m.mesh.step("device", 1)
    m.set_map(asid=0, which=0)


def resumed_while_resyncs_are_awaited(m: Restarting) -> None:
    m.transmit(pair=0, count=2, kick=True)
    m.mesh.step("device")
    m.suspend(what="suspend")
    m.mesh.step("port")
    m.mesh.step("device")
    m.lose_link()
    m.reconnect()
    m.suspend(what="resume")


WALKS: list[Callable[[Restarting], None]] = [
    the_map_of_a_suspended_nic_after_a_new_connection,
    a_reset_right_behind_a_command,
    the_index_of_a_queue_that_waits_for_a_map,
    an_object_of_which_the_port_never_heard,
    answers_that_went_down_with_the_link,
    answers_that_went_down_during_a_change,
    a_reset_during_a_change_and_the_link_goes,
    keys_that_no_queue_holds_on_a_new_link,
    a_change_asked_for_while_resyncs_are_awaited,
    resumed_while_resyncs_are_awaited,
]


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("case", WALKS, ids=lambda case: case.__name__)
def test_a_walk(case: Callable[[Restarting], None], pairs: int) -> None:
    with walk(pairs=pairs) as machine:
        case(machine)


def test_the_place_of_a_reset_queue_is_the_drivers_to_say() -> None:
    """The NIC restarted and has made no object of the queue yet; what its predecessor had is gone with the reset."""
    with walk() as m:
        m.restart()
        m.reset_map(asid=0)
        m.quiet()
        m.reset_vq(number=0, start=1, enable=False)


def test_a_queue_enabled_while_another_is_disabled() -> None:
    """The driver does not wait for the first answer."""
    with walk() as m:
        m.disable(number=1)
        m.quiet()
        rig = m.mesh
        rig.from_port(Call(901, "set_vq_ready", [0, False]))
        rig.from_port(Call(902, "set_vq_ready", [1, True]))
        rig.settle()
        rig.queues[0].ready = False
        rig.queues[1].ready = True
        m.lossy = True


def test_half_of_what_is_in_flight_came_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NIC that restarted is being given what its predecessor had, in several frames, and the link goes between them:
    what it holds is not the last of what the port has fetched."""
    monkeypatch.setattr(port_dma, "_FRAME_PAYLOAD", 80)  # two receive buffers a frame
    with walk(size=4) as m:
        rig = m.mesh
        m.restart()
        rig.connect()
        while not rig.device.queues[0].in_hand:
            rig.step("port")
            rig.step("device", 1)
        assert rig.device.queues[0].in_hand == 2
        m.lose_link()
        m.set_map(asid=0, which=1)
        m.reconnect()
        m.set_map(asid=0, which=2)


def test_the_index_when_a_reset_comes_before_what_is_in_flight_came_again() -> None:
    with walk() as m:
        rig = m.mesh
        m.restart()
        m.reset_map(asid=0)
        m.quiet()
        m.lost_link = False
        m.set_map(asid=0, which=0)
        while not rig.device.queues[0].running:
            rig.step("port")
            rig.step("device")
        m.reset(again=False)
        rig.step("device")
        assert [rig.device.queues[n].state for n in (0, 1)] == [0, 0], "two buffers had been fetched, none was used"
