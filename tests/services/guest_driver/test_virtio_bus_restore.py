"""What a device that restarted is told besides its configuration; what a driver reads of its configuration space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.virtio.features import Feature
from common.wire.messages import Call
from services.guest_driver.port_queue import ObjectState
from services.guest_driver.virtio_bus import QueuePlan, VirtioBus
from tests.services.guest_driver.mesh_rig import until, within
from tests.services.guest_driver.test_virtio_bus import CONFIGURE, FEATURES, Bench


class Restoring(Bench):
    """Queue 1 waits for what is restored; ``gate`` lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.restored: list[int] = []
        self.configs = 0
        self.bus = VirtioBus(
            "nic", self.device_port, spawn=self.world.spawn, log=self.log, on_restart=self.restart,
            restore=self.restore, on_config=self.config,
        )  # fmt: skip

    async def restore(self) -> None:
        turn = self.bus.turn
        await self.gate.wait()
        self.restored.append(turn)

    def config(self) -> None:
        self.configs += 1

    def queues(self, features: int) -> list[QueuePlan]:
        first, second = super().queues(features)
        second.after_restore = True
        return [first, second]


@pytest.fixture
async def restoring() -> AsyncIterator[Restoring]:
    made = Restoring()
    await made.start()
    yield made
    made.gate.set()
    await made.client.close()
    await made.server.close()
    await made.world.close()


async def test_a_device_that_restarted_is_told_its_settings_before_queues_that_depend_on_them(
    restoring: Restoring,
) -> None:
    await within(restoring.bus.probe(restoring.plan()))
    assert restoring.nic.ops[3:] == CONFIGURE, "at first there is nothing to restore"
    assert restoring.restored == []
    await restoring.renew(2)
    await until(lambda: restoring.nic.device.status == 15)
    await until(lambda: restoring.device_port.queues[0].state == ObjectState.RDY)
    assert restoring.nic.device.ready[:2] == [True, False]
    assert not restoring.bus.configured
    restoring.gate.set()
    await until(lambda: restoring.bus.configured and restoring.alive())
    assert restoring.nic.heard[-1].args == [1, True]
    assert restoring.configs == 1, "a device that is back is asked what it shows"


async def test_who_restored_a_device_that_is_gone_leaves_its_successor_alone(restoring: Restoring) -> None:
    await within(restoring.bus.probe(restoring.plan()))
    for epoch in (2, 3):
        await restoring.renew(epoch)
        await until(lambda: restoring.nic.device.status == 15)
    restoring.gate.set()
    await until(lambda: restoring.bus.configured)
    await until(lambda: not restoring.world.actors)
    assert restoring.restored == [2, 3]
    assert [call.args for call in restoring.nic.heard if call.op == "set_vq_ready"] == [[0, True], [1, True]]


async def test_the_link_breaks_while_settings_are_restored(restoring: Restoring) -> None:
    """The same device, which is DRIVER_OK: what comes after that is done by the next."""
    await within(restoring.bus.probe(restoring.plan()))
    await restoring.renew(2)
    await until(lambda: restoring.nic.device.status == 15)
    assert restoring.nic.link is not None
    restoring.nic.link.close("test")
    await within(restoring.client.wait_up())
    restoring.gate.set()
    await until(lambda: restoring.bus.configured and restoring.alive())
    assert (restoring.bus.restarts, restoring.nic.device.stats.calls_refused) == (1, 0)
    assert [call.args for call in restoring.nic.heard if call.op == "set_vq_ready"] == [[0, True], [1, True]]


async def test_the_configuration_space_is_read_in_one_piece(restoring: Restoring) -> None:
    """One that changes under the reader is read again."""
    await within(restoring.bus.probe(restoring.plan()))
    state = restoring.nic.device.core.state
    turns = [True, False]

    def change(call: Call) -> bool:
        if call.op == "get_config" and turns:
            state.set_link(turns.pop())
        return False

    restoring.nic.cut_at = change
    generation, config = await within(restoring.bus.read_config())
    assert generation == state.generation == 2
    assert config == bytes(restoring.nic.device.config)
    await until(lambda: restoring.configs == 2)
    assert not [line for line in restoring.log.lines if line[1] == "device notice"]


async def test_a_driver_may_take_fewer_features_by_what_the_device_shows(restoring: Restoring) -> None:
    seen = []

    def choose(features: int, config: bytes) -> int:
        seen.append((features, len(config)))
        return features & ~Feature.EVENT_IDX.bit

    plan = restoring.plan()
    plan.choose = choose
    assert await within(restoring.bus.probe(plan)) == FEATURES & ~Feature.EVENT_IDX.bit
    assert seen == [(FEATURES, len(restoring.nic.device.config))]
    assert restoring.nic.ops[2:7] == [
        "get_device_features",
        "get_generation",
        "get_config_size",
        "get_config",
        "get_generation",
    ]
