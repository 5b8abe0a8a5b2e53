"""The network load over several queue pairs, and what its books say."""

from __future__ import annotations

import pytest

from common.virtio.flow import flow_hash
from services.guest_driver.net_load import NetLoad
from services.guest_driver.net_pair import TX
from services.guest_driver.replay_ledger import ReplayLedger
from services.vdpa_nic.backends.replay import Replay, at_rate
from tests.services.guest_driver.nic_mesh import NicMesh

#: frames of many flows: an EtherType of nobody's, and two addresses each
CAPTURE = [bytes([n, 0, 0, 0, 0, n, n, 1, 1, 1, 1, n]) + b"\x88\xb5" + bytes(50) for n in range(24)]


@pytest.mark.parametrize(
    ("pairs", "window", "each"), [(1, 32, [32]), (4, 32, [8] * 4), (3, 8, [3, 3, 2]), (4, 2, [1, 1, 0, 0])]
)
async def test_every_pair_has_its_share_of_the_window(pairs: int, window: int, each: list[int]) -> None:
    mesh = await NicMesh(pairs, size=64, window=window).start()
    mesh.load.start()
    assert [ledger.outstanding for ledger in mesh.load.ledgers] == each
    mesh.load.start()
    assert mesh.load.outstanding == window, "no more beyond it"
    for _ in range(400):
        await mesh.go_on(1)
        assert all(ledger.outstanding <= most for ledger, most in zip(mesh.load.ledgers, each, strict=True))
    mesh.load.running = False
    await mesh.settle()
    assert mesh.load.outstanding == 0
    assert mesh.load.tx == mesh.load.rx > window * 2
    assert [bool(ledger.rx) for ledger in mesh.load.ledgers] == [bool(share) for share in each]
    assert mesh.load.rtt.count == mesh.load.rx
    mesh.spotless()
    assert mesh.load.pairs() == pairs


async def test_a_window_beyond_the_ring_fills_the_ring() -> None:
    mesh = await NicMesh(1, size=16, window=100).start()
    mesh.load.start()
    assert mesh.load.outstanding == 16


async def test_what_never_comes_back_is_lost_on_its_pair() -> None:
    mesh = await NicMesh(2).start()
    mesh.load.ledgers[1].make(3, 0)
    assert not mesh.load.quiet(1)
    assert mesh.load.quiet(0)
    assert mesh.load.close() == 3


async def test_a_frame_without_its_doorbell_waits_for_one() -> None:
    """What hold points do."""
    mesh = await NicMesh(2).start()
    queue = 2 + TX
    assert mesh.load.store(queue) == 1
    assert (mesh.port.stranded(queue), mesh.load.tx) == (1, 1)
    assert mesh.load.kick(queue)
    assert mesh.port.stranded(queue) == 0
    await mesh.settle()
    assert mesh.load.ledgers[1].rx == 1
    assert not mesh.load.kick(queue)


async def test_a_ring_without_room_takes_no_frame() -> None:
    mesh = await NicMesh(1).start()
    net = mesh.nic.net.pairs[0]
    net.tx_pause()
    assert mesh.load.store(TX) == 0
    net.tx_resume()
    net.rings[TX].broken = True
    assert mesh.load.store(TX) == 0
    assert (mesh.load.tx, mesh.port.stranded(TX)) == (0, 0)


# --- a NIC that replays -----------------------------------------------------------------------------------------------


def replaying(pairs: int, frames: list[bytes], seed: int = 1) -> NicMesh:
    backend = Replay(frames, at_rate(100.0), max_pairs=4)
    mesh = NicMesh(pairs, seed=seed, backend=backend, net="replay")
    mesh.load = NetLoad(mesh.nic, mesh.load._config, frames, lambda: 1)  # type: ignore[misc]
    return mesh


async def play(mesh: NicMesh, steps: int) -> None:
    for _ in range(steps):
        mesh.now += 0.02
        mesh.device.tick(mesh.now)
        mesh.move()


@pytest.mark.parametrize("pairs", [1, 2, 4])
async def test_each_pair_gets_its_part_of_the_capture(pairs: int) -> None:
    mesh = await replaying(pairs, CAPTURE).start()
    mesh.load.start()
    await play(mesh, 600)
    mesh.restart(Replay(CAPTURE, at_rate(100.0), max_pairs=4))
    mesh.connect()
    await play(mesh, 600)
    mesh.load.running = False
    mesh.spotless()
    assert mesh.load.close() == 0
    assert all(ledger.rx > 100 and ledger.tx > 10 for ledger in mesh.load.ledgers)
    assert all(not mesh.load.quiet(pair) for pair in range(pairs))


async def test_frames_of_the_first_moment_may_be_any_pairs() -> None:
    """Until the NIC knows of the second pair all flows come by the first."""
    mesh = replaying(2, CAPTURE)
    start = mesh.nic.start

    async def later() -> None:
        mesh.nic.net.start()
        for _ in range(60):
            mesh.now += 0.02
            mesh.device.tick(mesh.now)
            mesh.move()
        await start()

    mesh.nic.start = later  # type: ignore[method-assign]
    await mesh.start()
    await play(mesh, 400)
    first = mesh.load.ledgers[0]
    assert isinstance(first, ReplayLedger)
    assert first.skipped > 5
    mesh.spotless()
    assert mesh.load.close() == 0


async def test_a_pair_that_no_flow_belongs_to_is_quiet_and_sends_nothing() -> None:
    frames = [frame for frame in CAPTURE if not flow_hash(frame) % 2]
    mesh = await replaying(2, frames).start()
    mesh.load.start()
    await play(mesh, 300)
    assert [mesh.load.quiet(pair) for pair in (0, 1)] == [False, True]
    assert [ledger.rx > 0 for ledger in mesh.load.ledgers] == [True, False]
    assert mesh.load.ledgers[1].tx == 0
    mesh.spotless()
