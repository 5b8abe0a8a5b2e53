"""The VMM's part in the ITS: save and restore by KVM's operations, against a peer that plays the ITS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import CallError, LinkDownError, RemoteError
from common.gic.registers import (
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_TYPE,
    BASER_VALID,
    CBASER_VALID,
    GITS_BASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_TYPER,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
    TYPER_ITT_ENTRY_SIZE,
)
from common.gic.saved import DIST_REGISTERS, ITS_REGISTERS, REDIST_REGISTERS
from common.gic.vmm_ops import (
    CTRL_RESET,
    GET_DIST_REG,
    GET_ITS_REG,
    GET_REDIST_REG,
    RESTORE_TABLES,
    RUN_VCPUS,
    SAVE_PENDING_TABLES,
    SAVE_TABLES,
    SET_DIST_REG,
    SET_ITS_REG,
    SET_REDIST_REG,
    STOP_VCPUS,
)
from common.wire.messages import DmaCommit
from tests.services.guest_driver.its_peer import BASE, Bench
from tests.services.guest_driver.mesh_rig import until, within

DEVICES, COLLECTIONS, QUEUE = BASE, BASE + 0x1_0000, BASE + 0x2_0000


class Registers:
    """Answers of an ITS that keeps what the VMM sets; ``refuses`` operation → errno."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, ...], int] = {}
        self.refuses: dict[str, int] = {}
        page = BASER_VALID | BASER_PAGE_SIZE.put(BASER_PAGE_64K)
        for offset in ITS_REGISTERS.values():
            self.values["its", offset] = 0
        self.values |= {
            ("its", GITS_TYPER): TYPER_ITT_ENTRY_SIZE.put(7),
            ("its", GITS_BASER): page | BASER_TYPE.put(TYPE_DEVICES) | DEVICES,
            ("its", GITS_BASER + 8): page | BASER_TYPE.put(TYPE_COLLECTIONS) | COLLECTIONS,
            ("its", 0x80): CBASER_VALID | QUEUE,
            ("its", GITS_CREADR): 64,
            ("its", GITS_CTLR): 1,
            ("dist", 0): 0x13,
        }
        for vcpu in range(2):
            for offset in REDIST_REGISTERS.values():
                self.values["redist", vcpu, offset] = 0

    def __call__(self, op: str, args: list[Any]) -> tuple[int, Any]:
        if op in self.refuses:
            return self.refuses[op], f"{op} is refused"
        verb, _, kind = op.removesuffix("_reg").partition("_")
        if op in (GET_ITS_REG, GET_REDIST_REG, GET_DIST_REG):
            return 0, self.values[kind, *args]
        if op in (SET_ITS_REG, SET_REDIST_REG, SET_DIST_REG):
            assert verb == "set"
            self.values[kind, *args[:-1]] = args[-1]
        return 0, None


class Rig(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.registers = Registers()
        self.its.call = self.registers
        self.its.answers = True


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    await made.start()
    yield made
    await made.close()


async def test_save(rig: Rig) -> None:
    rig.memory.write(QUEUE, b"commands")
    saved = await within(rig.its_link.vmm.save())
    ops = rig.its.ops
    assert ops[0] == STOP_VCPUS
    assert ops[-3:] == [SAVE_PENDING_TABLES, SAVE_TABLES, RUN_VCPUS]
    assert len(ops) == 4 + len(ITS_REGISTERS) + 2 * len(REDIST_REGISTERS) + len(DIST_REGISTERS)
    assert (saved.profile, saved.cpus, saved.dist, saved.redists) == (
        "kvm", 2, {"GICD_CTLR": 0x13}, [dict.fromkeys(REDIST_REGISTERS, 0)] * 2,
    )  # fmt: skip
    assert saved.its == {name: rig.registers.values["its", offset] for name, offset in ITS_REGISTERS.items()}
    assert [(addr, len(data)) for addr, data in saved.memory] == [
        (DEVICES, 0x1_0000), (COLLECTIONS, 0x1_0000), (QUEUE, 4096),
    ]  # fmt: skip
    assert saved.memory[2][1].startswith(b"commands")


async def test_an_its_that_nobody_has_programmed(rig: Rig) -> None:
    rig.registers.values["its", GITS_BASER + 8] &= ~BASER_VALID
    rig.registers.refuses[SAVE_TABLES] = 6
    saved = await within(rig.its_link.vmm.save())
    assert [addr for addr, _ in saved.memory] == [DEVICES, QUEUE]


@pytest.mark.parametrize(("size", "profile"), [(8, "kvm"), (12, "qemu")])
async def test_whose_tables_they_are(rig: Rig, size: int, profile: str) -> None:
    rig.registers.values["its", GITS_TYPER] = TYPER_ITT_ENTRY_SIZE.put(size - 1)
    assert (await within(rig.its_link.vmm.save())).profile == profile


async def test_registers_that_cannot_be(rig: Rig) -> None:
    rig.registers.values["its", GITS_TYPER] = TYPER_ITT_ENTRY_SIZE.put(3)
    with pytest.raises(RemoteError, match="4 bytes"):
        await within(rig.its_link.vmm.save())
    rig.registers.values["its", GITS_TYPER] = TYPER_ITT_ENTRY_SIZE.put(7)
    rig.registers.values["redist", 1, 0] = 1 << 32
    with pytest.raises(RemoteError, match=r"redists\[1\].GICR_CTLR"):
        await within(rig.its_link.vmm.save())
    assert rig.its.ops[-1] == RUN_VCPUS


@pytest.mark.parametrize("op", [SAVE_PENDING_TABLES, SAVE_TABLES, GET_REDIST_REG])
async def test_vcpus_run_again_whatever_happens(rig: Rig, op: str) -> None:
    rig.registers.refuses[op] = 16
    with pytest.raises(CallError) as caught:
        await within(rig.its_link.vmm.save())
    assert caught.value.errno == 16
    assert rig.its.ops[-1] == RUN_VCPUS
    assert await within(rig.its_link.read("its", 8, 8)) == 8


async def test_vcpus_that_do_not_stop(rig: Rig) -> None:
    rig.registers.refuses[STOP_VCPUS] = 16
    with pytest.raises(CallError):
        await within(rig.its_link.vmm.save())
    assert rig.its.ops == [STOP_VCPUS]
    assert await within(rig.its_link.read("its", 8, 8)) == 8


async def test_mmio_waits_while_vcpus_are_stopped(rig: Rig) -> None:
    order: list[str] = []
    answers = rig.registers

    def call(op: str, args: list[Any]) -> tuple[int, Any]:
        if op == SAVE_TABLES:
            accesses.append(asyncio.get_running_loop().create_task(rig.its_link.read("its", 8, 8)))
        order.append(op)
        return answers(op, args)

    accesses: list[asyncio.Task[int]] = []
    rig.its.call = call
    await within(rig.its_link.vmm.save())
    assert await within(accesses[0]) == 8
    assert [type(message).__name__ for message in rig.its.heard][-2:] == ["Call", "MmioRead"]
    assert order[-1] == RUN_VCPUS


async def test_one_procedure_at_a_time(rig: Rig) -> None:
    vmm = rig.its_link.vmm
    await within(asyncio.gather(vmm.save(), vmm.save()))
    ops = rig.its.ops
    half = len(ops) // 2
    assert ops[:half] == ops[half:]
    assert ops.count(STOP_VCPUS) == 2


async def test_a_link_that_breaks_while_the_its_is_saved(rig: Rig) -> None:
    def call(op: str, args: list[Any]) -> tuple[int, Any] | None:
        if op == SAVE_TABLES:
            rig.its.link.close("test")
            return None
        return rig.registers(op, args)

    rig.its.call = call
    with pytest.raises(LinkDownError):
        await within(rig.its_link.vmm.save())
    rig.its.call = rig.registers
    await until(lambda: rig.its.ups == 2)
    assert (await within(rig.its_link.vmm.save())).cpus == 2
    assert await within(rig.its_link.read("its", 8, 8)) == 8


async def test_an_its_of_another_kind_is_not_given_what_was_anothers(rig: Rig) -> None:
    """Over a new link, and from what was saved."""
    saved = await within(rig.its_link.vmm.save())
    await rig.enable()
    rig.its_link.shadow.read("its", GITS_TYPER, 8, 0x1EF71)
    await rig.break_link()
    await until(lambda: rig.refused)
    assert rig.its.ops == [STOP_VCPUS, GET_ITS_REG, CTRL_RESET, RUN_VCPUS]
    rig.registers.values["its", GITS_TYPER] = 1
    with pytest.raises(CallError, match="GITS_TYPER = 22: 1 instead of"):
        await within(rig.its_link.vmm.restore(saved))
    assert not rig.its_link.shadow.programmed


async def test_what_was_saved_is_restored(rig: Rig) -> None:
    rig.memory.write(QUEUE, b"commands")
    saved = await within(rig.its_link.vmm.save())
    values = dict(rig.registers.values)
    await rig.enable()
    rig.memory.fill(BASE, 0x3_0000, 0xFF)
    for key in rig.registers.values:
        rig.registers.values[key] = 0xAA if key != ("its", GITS_TYPER) else values[key]
    rig.its.heard.clear()
    rig.vcpus.raised(rig.line, 1)
    rig.vcpus.take(1, 8192, 1)
    await within(rig.its_link.vmm.restore(saved))
    assert rig.registers.values == values
    assert rig.memory.read(QUEUE, 9) == b"commands\0"
    assert rig.memory.read(QUEUE + 4096, 1) == b"\xff", "what was not saved stays"
    ops = rig.its.ops
    assert [*ops[:4], *ops[-3:]] == [
        STOP_VCPUS, GET_ITS_REG, STOP_VCPUS, CTRL_RESET, RESTORE_TABLES, SET_ITS_REG, RUN_VCPUS,
    ]  # fmt: skip
    assert await within(rig.its_link.read("its", 0x88, 8)) == 0x88
    rig.vcpus.take(1, 8192, 1)
    assert rig.vcpus.duplicated == 0, "what is restored may deliver again"
    again = len(ops)
    await rig.break_link()
    await until(lambda: len(rig.its.ops) == again)
    assert rig.registers.values == values, "a link that breaks restores what is in force"


@pytest.mark.parametrize("cpus", [1, 3])
async def test_a_saved_its_of_another_machine(rig: Rig, cpus: int) -> None:
    saved = await within(rig.its_link.vmm.save())
    saved.cpus = cpus
    saved.redists = [saved.redists[0]] * cpus
    rig.its.heard.clear()
    with pytest.raises(RemoteError) as caught:
        await within(rig.its_link.vmm.restore(saved))
    assert (caught.value.field, caught.value.limit) == ("cpus", 2)
    saved = await within(rig.its_link.vmm.save())
    rig.memory.write(QUEUE, b"as it was")
    saved.memory.append((0x7000_0000, bytes(8)))
    rig.its.heard.clear()
    with pytest.raises(RemoteError, match="0x70000000"):
        await within(rig.its_link.vmm.restore(saved))
    saved.version = 2
    with pytest.raises(RemoteError, match="version"):
        await within(rig.its_link.vmm.restore(saved))
    assert rig.its.heard == []
    assert rig.memory.read(QUEUE, 9) == b"as it was"


async def test_a_saved_its_that_is_refused(rig: Rig) -> None:
    saved = await within(rig.its_link.vmm.save())
    rig.registers.refuses = {RESTORE_TABLES: 22, CTRL_RESET: 5}
    with pytest.raises(CallError) as caught:
        await within(rig.its_link.vmm.restore(saved))
    assert caught.value.errno == 5, "the first"
    assert rig.refused == 1, "the driver programs it"
    rig.registers.refuses.pop(CTRL_RESET)
    rig.its.heard.clear()
    with pytest.raises(CallError) as caught:
        await within(rig.its_link.vmm.restore(saved))
    assert caught.value.errno == 22
    assert rig.refused == 2
    assert rig.its.ops[-3:] == [RESTORE_TABLES, CTRL_RESET, RUN_VCPUS]
    assert await within(rig.its_link.read("its", 8, 8)) == 8
    assert not rig.its_link.shadow.programmed


async def test_creadr_is_what_was_saved_until_the_its_has_it(rig: Rig) -> None:
    """A reset ITS says 0; from the enabling on it says what it does. The link breaks before, and after."""
    saved = await within(rig.its_link.vmm.save())
    heard: list[tuple[str, Any]] = []
    breaks = (SET_REDIST_REG, GITS_CTLR)

    def call(op: str, args: list[Any]) -> tuple[int, Any] | None:
        heard.append((op, args))
        at = args[0] if op == SET_ITS_REG else op
        rig.its.link.send(DmaCommit(96 if at in (GITS_CTLR, RUN_VCPUS) else 0, [], []))
        if len(rounds) < len(breaks) and at == breaks[len(rounds)]:
            rounds.append(rig.its_link.stats.dma_commits)
            rig.its.link.close("test")
            return None
        return rig.registers(op, args)

    rounds: list[int] = []
    rig.its.call = call
    with pytest.raises(LinkDownError):
        await within(rig.its_link.vmm.restore(saved))
    await until(lambda: heard[-1][0] == RUN_VCPUS)
    assert len(rounds) == 2
    assert [args[1] for op, args in heard if op == SET_ITS_REG and args[0] == GITS_CREADR] == [64, 96]


async def test_without_a_link(rig: Rig) -> None:
    await rig.client.close()
    for work in (rig.its_link.vmm.save(), rig.its_link.vmm.replay()):
        with pytest.raises(LinkDownError):
            await within(work)
