"""The fence: code of this machine, run; other machines refused."""

from __future__ import annotations

import mmap
import os
import platform
from pathlib import Path

import pytest

from common.errors import LocalError
from services.vhost_user import fence
from services.vhost_user.fence import CODE, full_fence

#: Rounds of the litmus test. Without fences some dozens of them fail on two processors of x86.
ROUNDS = 30_000


def test_the_same_function_each_time() -> None:
    assert full_fence() is full_fence(platform.machine())
    full_fence()()


def test_the_page_holds_the_code_and_cannot_be_written() -> None:
    full_fence()
    (page,) = fence._pages
    code = CODE[platform.machine()]
    assert page[: len(code)] == code
    entries = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    executable = [e for e in entries if e[1].startswith("r-x") and len(e) == 5]
    assert executable
    assert not [e for e in entries if "w" in e[1] and "x" in e[1]]


def test_encodings() -> None:
    assert CODE["x86_64"] == bytes((0x0F, 0xAE, 0xF0, 0xC3))  # SDM: MFENCE = NP 0F AE F0; RET = C3
    words = CODE["aarch64"]
    assert int.from_bytes(words[:4], "little") == 0xD5033BBF  # DMB ISH
    assert int.from_bytes(words[4:], "little") == 0xD65F03C0  # RET


@pytest.mark.parametrize("machine", ["riscv64", "i686", ""])
def test_other_machines_are_refused(machine: str) -> None:
    with pytest.raises(LocalError, match="no memory fence is known"):
        full_fence(machine)


def test_code_of_another_machine_is_not_run() -> None:
    other = next(name for name in CODE if name != platform.machine())
    with pytest.raises(LocalError, match="cannot run"):
        full_fence(other)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_store_buffering_between_two_processes() -> None:
    """Each stores its own cell, fences, loads the other's: both reading the old value is what a fence forbids."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    cells = memoryview(shared).cast("Q")
    x, y, turn_a, turn_b, bad = 0, 64, 128, 192, 256
    order = full_fence()

    def play(mine: int, other: int, my_turn: int, other_turn: int, seen: int) -> None:
        for n in range(1, ROUNDS + 1):
            cells[my_turn] = n
            while cells[other_turn] < n:
                pass
            cells[mine] = n
            order()
            cells[seen] = cells[other]
            order()
            # both have looked before either goes on
            cells[my_turn + 1] = n
            while cells[other_turn + 1] < n:
                pass
            if my_turn == turn_a and cells[320] < n and cells[321] < n:
                cells[bad] += 1

    child = os.fork()
    if child == 0:
        play(y, x, turn_b, turn_a, 321)
        os._exit(0)
    play(x, y, turn_a, turn_b, 320)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cells[bad] == 0
