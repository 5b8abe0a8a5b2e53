"""The live QEMU shows in every recorded case what was recorded: what the cases are worth, and the harness with them."""

from __future__ import annotations

import pytest

from tests.qemu.qemu_its import Board, QemuAdapter
from tests.qemu.qtest import Machine, QtestError
from tests.services.gic_its import case_steps

pytestmark = [pytest.mark.qemu_its]

CONFIG_TABLE, PENDING_TABLE, QUEUE = 0x4260_0000, 0x4270_0000, 0x4200_0000
EMPTY = {"name": "empty", "config": {"cpus": 4}}


@pytest.mark.parametrize("name", case_steps.names())
def test_case(name: str, board: Board) -> None:
    case = case_steps.load(name)
    assert case_steps.compare(case, case_steps.play(case, QemuAdapter(case, board)), "qemu") == []


def pend(adapter: QemuAdapter, cpu: int, lpis: dict[int, int]) -> None:
    """LPIs with their configuration bytes, pending in memory when EnableLPIs is set."""
    adapter.mmio_write("gicd", 0x0, 4, 0x13)
    adapter.mmio_write(f"gicr{cpu}", 0x70, 8, CONFIG_TABLE | 15)
    adapter.mmio_write(f"gicr{cpu}", 0x78, 8, PENDING_TABLE)
    for lpi, config in lpis.items():
        adapter.mem_write(CONFIG_TABLE + lpi - 8192, bytes([config]))
        at = PENDING_TABLE + lpi // 8
        adapter.mem_write(at, bytes([adapter.mem_read(at, 1)[0] | 1 << lpi % 8]))
    adapter.mmio_write(f"gicr{cpu}", 0x0, 4, 1)


@pytest.mark.parametrize("cpu", [0, 3])
def test_a_cpu_takes_what_is_most_urgent_first(board: Board, cpu: int) -> None:
    adapter = QemuAdapter(EMPTY, board)
    pend(adapter, cpu, {8192: 0xA1, 8193: 0xA0, 8194: 0x51, 9000: 0xA1, 65535: 0x01})
    assert [adapter.ack(cpu) for _ in range(5)] == [65535, 8194, 8192, 9000, 1023]
    assert adapter.pending_all(cpu) == [8193]
    assert adapter.ack(1) == 1023


def test_a_migration_carries_everything(board: Board) -> None:
    adapter = QemuAdapter(EMPTY, board)
    pend(adapter, 2, {8192: 0xA1, 8200: 0x51})
    adapter.mmio_write("its", 0x80, 8, 0xB800_0000_0000_0400 | QUEUE)
    adapter.mem_write(QUEUE, b"the queue")
    before = board.machine
    adapter.migrate()
    assert board.machine is not before
    assert not before.alive
    assert adapter.mmio_read("its", 0x80, 8) == 0xB800_0000_0000_0400 | QUEUE
    assert adapter.mem_read(QUEUE, 9) == b"the queue"
    assert [adapter.ack(2) for _ in range(3)] == [8200, 8192, 1023]


def test_a_reset_leaves_memory(board: Board) -> None:
    adapter = QemuAdapter(EMPTY, board)
    adapter.mem_fill(0x4000_0000, 4096, 0x5A)
    pend(adapter, 0, {8192: 0xA1})
    adapter.reset()
    assert adapter.mem_read(0x4000_0000, 4096) == b"\x5a" * 4096
    assert adapter.mmio_read("gicr0", 0x70, 8) == 0
    pend(adapter, 0, {8193: 0xA1})
    assert [adapter.ack(0) for _ in range(3)] == [8192, 8193, 1023], "the CPUs' program starts again"


def test_a_board_is_clean_for_each_case(board: Board) -> None:
    pend(QemuAdapter(EMPTY, board), 0, {8192: 0xA1})
    again = QemuAdapter(EMPTY, board)
    assert again.mem_read(PENDING_TABLE, 2048) == bytes(2048)
    assert again.pending_all(0) == []


def test_a_case_that_needs_more_brings_its_own(board: Board) -> None:
    with pytest.raises(ValueError, match="the board has not"):
        QemuAdapter({"name": "eight", "config": {"cpus": 8}}, board)
    adapter = QemuAdapter({"name": "odd", "config": {"cpus": 1, "msi_devids": [32]}})
    try:
        adapter.msi(32, 5)
        for device, data in ((40, 5), (32, 1 << 16), (32, -1)):
            with pytest.raises(ValueError, match="no MSI"):
                adapter.msi(device, data)
    finally:
        adapter.close()
    assert not adapter.board.machine.alive


def test_what_qemu_refuses_is_said(qemu: None) -> None:
    with pytest.raises(QtestError, match="unsupported machine type"):
        Machine(["-machine", "no-such-board"])


def test_a_bad_request_and_an_end_are_said(qemu: None) -> None:
    with Machine(["-machine", "none"]) as machine:
        with pytest.raises(QtestError, match="no-such-command"):
            machine.qmp("no-such-command")
        with pytest.raises(QtestError, match="nonsense"):
            machine.requests(["nonsense"])
        machine.qmp("quit")
        with pytest.raises(QtestError, match=r"QEMU ended \(0\)"):
            machine.requests(["readb 0x0", "readb 0x0"])
