"""A live QEMU with an ITS. Skipped, with the reason, where QEMU is missing or too old."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.qemu.qemu_its import Board
from tests.qemu.qtest import missing


@pytest.fixture(scope="session")
def qemu() -> None:
    """QEMU is there, or the test is skipped."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def board(qemu: None) -> Iterator[Board]:
    """One QEMU for all tests of a file; each adapter cleans it for itself."""
    with Board() as board:
        yield board
