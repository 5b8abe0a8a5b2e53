"""The rig of the vDPA scenarios: it runs the classes that ship, its checks see what they are for."""

from __future__ import annotations

from typing import Any

import pytest

from common.virtio.remote_queue import RemoteQueue
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.wire.messages import Call, Message, Return
from services.guest_driver.port import Port
from services.guest_driver.port_keys import PortKeys
from services.guest_driver.port_queue import PortQueue, PortStats
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Checks, Settings
from services.lab.scenarios.vdpa_rig import (
    PLUGGED,
    Classes,
    Device,
    Input,
    Link,
    Rig,
    build,
    either,
    in_order,
    name_things,
)
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from services.vdpa_nic.changes import Changes
from services.vdpa_nic.map_change import MapChange
from services.vdpa_nic.vdpa import VdpaDevice


def made(given: Input | None = None, classes: Classes | None = None) -> tuple[Rig, Device]:
    """A rig that is brought up; no actor has run."""
    world = LabWorld(Run(Replay([]), 100))
    what = classes or Classes()
    rig = world.new(what.rig, world, given or Input("nothing"), what.port)
    device = what.device(rig, what.policy)
    rig.start(device)
    name_things(world, rig)
    return rig, device


@pytest.mark.parametrize(
    "cls",
    [Port, PortKeys, PortQueue, PortStats, SplitDriver, SplitDevice, RemoteQueue, Changes, MapChange],
)
def test_the_lab_runs_the_classes_that_services_run(cls: type[Any]) -> None:
    rig, device = made()
    queue = rig.port.queues[0]
    things: list[Any] = [rig.port, rig.port.keys, queue, rig.port.stats, rig.vq, queue.ring]
    things += [device.queues[0], device.changes, device.changes.machine]
    thing = next(thing for thing in things if isinstance(thing, cls))
    functions = [n for n, f in vars(cls).items() if callable(f) and n != "__class__"]
    assert functions
    for name in functions:
        assert getattr(type(thing), name) is getattr(cls, name), name


def test_the_device_is_a_vdpa_device_but_for_what_a_device_type_adds() -> None:
    own = {n for n, f in vars(Device).items() if callable(f)}
    shipped = {n for base in VdpaDevice.__mro__ for n, f in vars(base).items() if callable(f)}
    assert own & shipped == {"__init__", "on_chains", "batch_end", "stop_queue", "flow", "on_reset"}


def test_what_has_been_sent_and_done_before_a_run() -> None:
    rig, device = made(Input("half done", sent=2, worked=1, buffers=3))
    assert device.done == 1
    assert [type(m).__name__ for m in rig.to_port.drain()] == ["Used"]
    assert [type(m).__name__ for m in rig.to_device.drain()] == ["Avail", "Call"]
    assert device.answered == 0, "the first map does not count"


def test_a_rig_in_which_all_went_well() -> None:
    result = explore(build((Input("one buffer", buffers=1),), Classes()), Settings(preemptions=0))
    assert (result.verdict, result.exhaustive) == ("holds", True), result


@pytest.mark.parametrize("damage", ["fetched", "used", "taken", "in_flight", "stranded"])
def test_what_is_left_over_is_said(damage: str) -> None:
    rig, _ = made(Input("none", calls=(), buffers=0))
    queue = rig.port.queues[0]
    assert queue.ring is not None
    assert in_order(rig) is None
    if damage == "fetched":
        queue.ring.last_avail_idx = 1
    elif damage == "used":
        queue.ring.used_idx = 1
    elif damage == "taken":
        rig.vq.consumed = 1
    elif damage == "in_flight":
        queue.in_flight[0] = (0, (), 0)
    else:
        rig.vq.add((), ((rig.buffer(0), 8),), 1)
    assert in_order(rig) is not None


class Twice(Device):
    """Uses each buffer twice, as only a device without checks can."""

    def complete(self, head: int) -> None:
        super().complete(head)
        self.queues[0].complete_again(head, b"")


class Mute(Device):
    """Answers nothing."""

    def complete(self, head: int) -> None:
        self.done += 1


def test_a_buffer_that_is_used_twice_is_seen() -> None:
    result = explore(build((Input("twice", buffers=1),), Classes(device=Twice)), Settings(preemptions=0))
    assert result.failure is not None
    assert result.failure.kind == "exception"
    assert "used.head" in result.failure.detail


def test_a_driver_that_waits_for_ever_is_seen() -> None:
    result = explore(build((Input("mute", buffers=1),), Classes(device=Mute)), Settings(preemptions=0))
    assert result.failure is not None
    assert result.failure.detail.startswith("driver waits in relax(), until a change of used.idx")


def test_every_input_and_every_bench_is_explored() -> None:
    good = build((Input("fine", buffers=1),), Classes())
    bad = build((Input("fine", buffers=1), Input("refused", (("set_map", 0, PLUGGED * 3),), buffers=1)), Classes())
    for setup in (bad, either(good, bad)):
        result = explore(setup, Settings(preemptions=0))
        assert result.failure is not None
        assert result.failure.detail.startswith("AssertionError: the VMM's call was refused: ranges 6")


def test_an_answer_that_nobody_waits_for() -> None:
    rig, _ = made()
    with pytest.raises(AssertionError, match="nobody called"):
        rig.returned(Return(1, 0))


def test_ladders_name_frames_and_a_link_that_is_waited_for() -> None:
    def setup(world: LabWorld) -> Checks:
        link = Link(world, "to port:")

        async def send() -> None:
            link.send(Call(1, "get_vq_state", [0]))

        async def take(count: int) -> None:
            got: list[Message] = []
            while len(got) < count:
                got += await link.receive()

        world.spawn("taker", take(2))
        world.spawn("sender", send())
        return Checks()

    result = explore(setup, Settings(preemptions=0))
    text = ladder(replay(setup, result.schedule, 100))
    assert "send to port: Call op" in text
    assert "receive to port: Call" in text
    assert "blocked: to port:" in text
    assert str(result.failure) == "deadlock: taker waits in to port:"
