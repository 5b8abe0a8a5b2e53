"""Random command streams, valid and hostile, on a live QEMU: our core and the independent model show the same.

RINGMESH_QEMU_COMMANDS is how many commands each test plays; `make test-qemu-its` plays more than a plain run does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.qemu.machines import OTHERS, REQUESTERS, on, reachable
from tests.qemu.qemu_its import Board
from tests.services.gic_its.stream_differences import differences
from tests.services.gic_its.stream_player import EXTRAS, RARE
from tests.services.gic_its.stream_tables import SHAPES

COMMANDS: Final = int(os.environ.get("RINGMESH_QEMU_COMMANDS", "1500"))
#: Commands on one machine before a fresh one.
STREAM: Final = 2500
#: A few hundred commands a second are slow; this is a hang guard.
GUARD: Final = 300 + COMMANDS // 10

pytestmark = [pytest.mark.qemu_its, pytest.mark.timeout(GUARD)]

KINDS: Final[dict[str, dict[str, Any]]] = {
    "valid": {"hostile": False},
    "hostile": {"hostile": True, "wide_pes": True},
    "stalling": {"hostile": True, "nowhere": True},
}


@pytest.fixture(scope="module")
def board(qemu: None) -> Iterator[Board]:
    """With the devices that the streams' MSIs come from."""
    with Board(devices=REQUESTERS) as board:
        yield board


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("other", list(OTHERS))
def test_streams_show_the_same(other: str, kind: str, board: Board) -> None:
    left, seed = COMMANDS, list(KINDS).index(kind) * 10_000
    while left > 0:
        found = differences(
            lambda: on(board),
            lambda: reachable(OTHERS[other]()),
            seed,
            min(left, STREAM),
            extras=(*EXTRAS, *RARE),
            check_every=8,
            shrink=60,
            **KINDS[kind],
        )
        assert found is None, f"a: QEMU, b: {other}; {found}"
        left, seed = left - STREAM, seed + 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "flat"])
def test_tables_of_every_layout(shape: str, board: Board) -> None:
    found = differences(
        lambda: on(board),
        lambda: reachable(OTHERS["core"]()),
        5,
        min(COMMANDS // 3, STREAM),
        hostile=True,
        extras=(*EXTRAS, "reset"),
        check_every=8,
        shrink=60,
        shape=SHAPES[shape],
    )
    assert found is None, f"a: QEMU, b: core; {found}"


@pytest.mark.parametrize(("batch", "commands"), [(1, 300), (100, 1500)])
def test_batches_do_not_matter(batch: int, commands: int, board: Board) -> None:
    """Each write of CWRITER with one command, or with almost the whole queue."""
    found = differences(
        lambda: on(board),
        lambda: reachable(OTHERS["core"]()),
        77,
        commands,
        hostile=True,
        batch=(batch, batch),
        check_every=8,
        shrink=60,
    )
    assert found is None, f"a: QEMU, b: core; {found}"
