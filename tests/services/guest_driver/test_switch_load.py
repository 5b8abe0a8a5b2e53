"""Two guests over a learning switch, each with its real driver, port and NIC: who sends when, and whose books count."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import ConfigError
from common.runtime.config import PeerConfig
from services.guest_driver.config import GuestConfig, WorkloadConfig
from services.guest_driver.shell import GuestService
from services.guest_driver.switch_load import ADDRESSES, SwitchLoad
from services.vdpa_nic.backends.switch import LearningSwitch, SwitchPort
from tests.services.guest_driver.nic_mesh import FRAMES, NicMesh


class Joined:
    """Two meshes and the switch between them."""

    def __init__(self) -> None:
        self.switch = LearningSwitch()
        self.meshes = [NicMesh(2, seed=n, backend=self.switch.port(lambda: None, max_pairs=4)) for n in (1, 2)]
        self.loads: list[SwitchLoad] = []

    async def start(self) -> Joined:
        for number, mesh in enumerate(self.meshes):
            config = WorkloadConfig(net="switch", net_window=16)
            load = SwitchLoad(
                mesh.nic, config, FRAMES, lambda mesh=mesh: int(mesh.now * 1e9), spawn=mesh.world.spawn,  # type: ignore[misc]
                sleep=asyncio.sleep,
            )  # fmt: skip
            self.loads.append(load)
            await mesh.start()
            assert mesh.nic.ctrl is not None
            await mesh.run(mesh.nic.ctrl.set_mac(bytes([2, 0, 0, 0, 0, number])))
            await mesh.settle()
            await mesh.run(load.prepare())
            assert not mesh.device.core.state.promisc
        first, second = self.loads
        first.join(second)
        second.join(first)
        return self

    async def move(self, steps: int) -> None:
        for _ in range(steps):
            for mesh in self.meshes:
                mesh.move()
            await asyncio.sleep(0)

    async def drain(self) -> None:
        for load in self.loads:
            load.running = False
        await self.move(2000)

    def wrong(self) -> list[int]:
        return [load.total("duplicated") + load.total("corrupted") + load.total("reordered") for load in self.loads]


async def test_what_one_sends_the_other_receives() -> None:
    joined = await Joined().start()
    for load in joined.loads:
        load.start()
    await joined.move(3000)
    await joined.drain()
    assert joined.wrong() == [0, 0]
    assert [load.outstanding for load in joined.loads] == [0, 0]
    assert all(load.tx == load.rx > 100 for load in joined.loads)
    sent = joined.loads[0].ledgers[0].make(1, 0)[0]
    assert sent[:ADDRESSES].hex() == "020000000001" + "020000000000", "to the other one, from this one"
    assert sent[ADDRESSES : len(FRAMES[0])] == FRAMES[0][ADDRESSES:]


async def test_nobody_sends_to_a_nic_that_is_away() -> None:
    joined = await Joined().start()
    for load in joined.loads:
        load.start()
    await joined.move(500)
    first, second = joined.loads
    dies = joined.meshes[1]
    for message in dies.to_guest.take(1 << 20):  # what a process has written to its socket outlives it
        dies.nic.bus.link_frame(dies._link, message)
    backend = dies.device.core.backend
    assert isinstance(backend, SwitchPort)
    backend.leave()
    dies.restart(joined.switch.port(lambda: None, max_pairs=4))
    sent = first.tx
    await joined.move(200)
    dies.connect()
    before = [load.tx for load in joined.loads]
    assert first._held == second._held == 1, "its own driver knows, and who sends to it"
    assert first.tx - sent <= 16, "no more than its window"
    while first._held:
        await joined.move(10)
    await joined.move(1000)
    assert all(load.tx > count for load, count in zip(joined.loads, before, strict=True))
    await joined.drain()
    assert joined.wrong() == [0, 0]
    assert [load.close() for load in joined.loads] == [0, 0]


async def test_a_cable_that_is_pulled_holds_both_directions() -> None:
    joined = await Joined().start()
    first, second = joined.loads
    for load in joined.loads:
        load.start()
    state = joined.meshes[0].device.core.state
    state.set_link(False)
    await joined.move(500)
    assert (first._held, second._held) == (1, 1)
    assert first.quiet(0)
    sent = first.tx, second.tx
    await joined.move(200)
    assert (first.tx, second.tx) == sent
    state.set_link(True)
    await joined.move(1000)
    assert (first._held, second._held) == (0, 0)
    assert first.tx > sent[0]
    await joined.drain()
    assert joined.wrong() == [0, 0]
    assert [load.close() for load in joined.loads] == [0, 0]


def test_a_switch_needs_two() -> None:
    config = GuestConfig(
        scmi=PeerConfig(port=1), nic=PeerConfig(port=1), its=PeerConfig(port=1), workload=WorkloadConfig(net="switch")
    )
    with pytest.raises(ConfigError, match="two guests or more"):
        GuestService(config)
