"""Two machines, one stream: where they first differ, and the smallest stream that shows it.

By hand: ``differences(make_a, make_b, seed, n)`` and print what comes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from tests.services.gic_its.case_steps import Adapter
from tests.services.gic_its.stream_player import EXTRAS, Move, plan, run_stream
from tests.services.gic_its.stream_tables import FLAT, Shape
from tests.services.gic_its.streams import hostile_stream, valid_stream

Make = Callable[[], Adapter]
"""A fresh machine."""

#: Runs that finding the smallest stream may take.
SHRINK: Final = 400


@dataclass(frozen=True)
class Difference:
    """``moves`` led to it; the last of them made it show. ``what`` is the name of the observation."""

    seed: int
    what: str
    a: object
    b: object
    moves: tuple[Move, ...]

    def __str__(self) -> str:
        where, a, b = "", self.a, self.b
        if isinstance(a, str) and isinstance(b, str) and len(a) == len(b) > 32:  # bytes of a table, in hex
            at = next(n for n in range(0, len(a), 8) if a[n : n + 8] != b[n : n + 8])
            where, a, b = f" from byte {at // 2:#x} on", a[at : at + 32], b[at : at + 32]
        lines = [f"seed {self.seed}: after {len(self.moves)} moves {self.what} differs{where}", f"  a: {a}"]
        return "\n".join([*lines, f"  b: {b}", *map(str, self.moves)])


def differences(
    a: Make,
    b: Make,
    seed: int,
    n: int = 1000,
    *,
    profile: str = "qemu",
    cpus: int = 4,
    hostile: bool = False,
    orphans: bool = True,
    nowhere: bool = False,
    wide_pes: bool = False,
    batch: tuple[int, int] = (1, 40),
    extras: Collection[str] = tuple(EXTRAS),
    check_every: int = 1,
    queue_pages: int = 1,
    shape: Shape = FLAT,
    writes: int = 1,
    shrink: int = SHRINK,
) -> Difference | None:
    """The first difference between ``a`` and ``b`` on the stream of ``seed`` with ``n`` commands, made small.

    ``shrink`` is how many runs that may take; 0 leaves all moves up to the difference.
    """
    rng = random.Random(seed)
    if hostile:
        commands = hostile_stream(rng, n, cpus, orphans=orphans, nowhere=nowhere, wide_pes=wide_pes)
    else:
        commands = valid_stream(rng, n, cpus, orphans=orphans)
    moves = plan(list(commands), rng, cpus, batch=batch, extras=extras)

    def run(some: Sequence[Move], every: int = 1) -> tuple[int, str, object, object] | None:
        with closing(a()) as one, closing(b()) as other:
            sides = [
                run_stream(
                    side, some, cpus, profile, check_every=every, queue_pages=queue_pages, shape=shape, writes=writes
                )
                for side in (one, other)
            ]
            for (index, left), (_, right) in zip(*sides, strict=True):
                for what in left | right:
                    if left.get(what) != right.get(what):
                        return index, what, left.get(what), right.get(what)
        return None

    found = run(moves, check_every)
    if found is None:
        return None
    moves = moves[: found[0] + 1]
    budget = shrink
    for cut in (list, _single_commands):
        smaller, budget = _smallest(cut(moves), lambda some: run(some) is not None, budget)
        moves = smaller or moves
    index, what, left, right = run(moves) or found
    return Difference(seed, what, left, right, tuple(moves[: index + 1]))


def _single_commands(moves: Sequence[Move]) -> list[Move]:
    """Every batch as batches of one."""
    return list(_singles(moves))


def _singles(moves: Sequence[Move]) -> Iterator[Move]:
    for move in moves:
        if move.kind == "run":
            yield from (replace(move, commands=(command,)) for command in move.commands)
        else:
            yield move


def _smallest(moves: list[Move], fails: Callable[[list[Move]], bool], budget: int) -> tuple[list[Move] | None, int]:
    """As few of the moves as still fail, and what is left of ``budget`` runs; None if they do not fail at all."""
    if budget <= 0 or not fails(moves):
        return None, budget - 1
    budget -= 1
    size = len(moves) // 2
    while size and budget > 0:
        at = 0
        while at < len(moves) and budget > 0:
            fewer = moves[:at] + moves[at + size :]
            budget -= 1
            if fewer and fails(fewer):
                moves = fewer
            else:
                at += size
        size //= 2
    return moves, budget
