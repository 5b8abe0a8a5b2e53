"""The VMM and a NIC: what it says when, and that the NIC has the map whatever becomes of the link."""

from __future__ import annotations

import asyncio
import errno

import pytest

from common.errors import CallError, LinkDownError
from common.wire.messages import Call
from services.guest_driver.guest_nic import IOVA, WINDOW
from tests.services.guest_driver.nic_mesh import RAM, NicMesh

BANK = (0x9000_0000, 0x3000)


async def up(op: str = "set_map") -> tuple[NicMesh, list[Call]]:
    """A NIC, and the calls that its VMM makes from now on."""
    mesh = await NicMesh(1, map_op=op).start()
    mesh.memory.add_region(*BANK)
    heard: list[Call] = []
    listen(mesh, heard)
    return mesh, heard


def listen(mesh: NicMesh, heard: list[Call]) -> None:
    take = mesh.device.vmm_frame

    def hear(call: Call) -> None:
        heard.append(call)
        take(call)

    mesh.device.vmm_frame = hear  # type: ignore[method-assign]


def mapped(mesh: NicMesh) -> list[tuple[int, int, int]]:
    return [(m.iova - IOVA, m.size, m.addr) for m in mesh.device.spaces.in_force(0).mappings]


RAM_ROW = (RAM[0], RAM[1], RAM[0])
BANK_ROW = (BANK[0], BANK[1], BANK[0])


@pytest.mark.parametrize(
    ("op", "ops"), [("set_map", ["set_map", "set_map"]), ("dma_map", ["dma_map", "dma_unmap"])]
)  # fmt: skip
async def test_a_bank_comes_and_goes(op: str, ops: list[str]) -> None:
    mesh, heard = await up(op)
    vmm = mesh.nic.vmm
    assert vmm.changes == 1
    await mesh.run(vmm.map(*BANK))
    assert mapped(mesh) == [RAM_ROW, BANK_ROW]
    await mesh.run(vmm.unmap(*BANK))
    assert mapped(mesh) == [RAM_ROW]
    assert [call.op for call in heard] == ops
    assert vmm.changes == 3


async def test_the_window_comes_and_goes() -> None:
    mesh, _ = await up()
    for _ in range(2):
        await mesh.run(mesh.nic.vmm.change_map())
        assert mapped(mesh) == [RAM_ROW, (*WINDOW, WINDOW[0])]
        await mesh.run(mesh.nic.vmm.change_map())
        assert mapped(mesh) == [RAM_ROW]


@pytest.mark.parametrize("op", ["set_map", "dma_map"])
@pytest.mark.parametrize("renew", [False, True])
async def test_what_was_asked_for_is_said_whole_when_the_nic_is_back(op: str, renew: bool) -> None:
    mesh, heard = await up(op)
    mesh.cut()
    with pytest.raises(LinkDownError):
        await mesh.nic.vmm.map(*BANK)
    if renew:
        mesh.restart()
        listen(mesh, heard)
    mesh.connect()
    await mesh.run(mesh.nic.vmm.map(*BANK))
    assert mapped(mesh) == [RAM_ROW, BANK_ROW]
    assert {call.op for call in heard} == {"set_map"}, "one range would be all that the NIC has"
    assert mesh.nic.vmm.changes == 2
    await mesh.run(mesh.nic.vmm.unmap(*BANK))
    assert heard[-1].op == ("set_map" if op == "set_map" else "dma_unmap")
    assert mapped(mesh) == [RAM_ROW]
    await mesh.settle()
    mesh.spotless()


async def test_a_link_that_is_up_is_told_the_map_unasked() -> None:
    mesh, _ = await up()
    mesh.restart()
    mesh.connect()
    await mesh.settle()
    assert mapped(mesh) == [RAM_ROW]
    assert mesh.device.status == 15
    assert mesh.nic.vmm.changes == 1, "which is no change"


async def test_the_link_breaks_before_the_answer() -> None:
    """The NIC changed; the VMM cannot know. To say it again changes nothing."""
    mesh, _ = await up()
    task = asyncio.get_running_loop().create_task(mesh.nic.vmm.map(*BANK))
    while len(mapped(mesh)) == 1:
        await asyncio.sleep(0)
        for message in mesh.to_device.take(9):
            mesh.device.frame(message)
        for message in mesh.to_guest.take(9):
            mesh.nic.bus.link_frame(mesh._link, message)
        for message in mesh.from_vmm.take(9):
            mesh.device.vmm_frame(message)
    mesh.cut()
    with pytest.raises(LinkDownError):
        await task
    assert mesh.nic.vmm.changes == 1
    mesh.connect()
    changes = mesh.device.vdpa_stats.map_changes
    await mesh.run(mesh.nic.vmm.map(*BANK))
    assert mesh.device.vdpa_stats.map_changes == changes
    assert (mesh.nic.vmm.changes, mapped(mesh)) == (2, [RAM_ROW, BANK_ROW])


async def test_a_nic_that_refuses() -> None:
    mesh, _ = await up("dma_map")
    mesh.device.spaces.limit = 1  # type: ignore[misc]
    with pytest.raises(CallError) as caught:
        await mesh.run(mesh.nic.vmm.map(*BANK))
    assert caught.value.errno == errno.ENOSPC
    assert (mesh.nic.vmm.changes, mapped(mesh)) == (1, [RAM_ROW])


async def test_states_of_many_queues_at_once() -> None:
    mesh, heard = await up()
    assert await mesh.run(mesh.nic.vmm.vq_states([0, 2, 1])) == {0: 16, 2: 0, 1: 0}
    assert [call.args for call in heard] == [[0], [2], [1]]
    with pytest.raises(CallError, match="queue 99"):
        await mesh.run(mesh.nic.vmm.vq_states([0, 99]))
