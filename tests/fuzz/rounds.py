"""A fuzz target as a script: ``python -m tests.fuzz.NAME COUNT SEED FIRST_EPISODE``, with progress and what was met."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

#: ``fuzz(count, seed, first episode, report)``; ``report(done)`` is told of each episode.
Fuzz = Callable[[int, int, int, Callable[[int], None]], "Counter[str]"]


class Episode(Protocol):
    """What begins anew and is then made so many moves in, all of them drawn from its seed and number."""

    counts: Counter[str]

    def run(self, moves: int) -> None:
        """Make the moves, and check what must hold."""


def episodes(
    new: Callable[[int, int], Episode], length: int, count: int, seed: int, first: int, report: Callable[[int], None]
) -> Counter[str]:
    """Episodes ``new(seed, number)`` of ``length`` moves, from number ``first`` on until ``count`` moves were made.
    Returns what was counted. The one that fails is named."""
    total: Counter[str] = Counter()
    done, number = 0, first
    while done < count:
        moves = min(length, count - done)
        try:
            episode = new(seed, number)
            episode.run(moves)
        except BaseException:
            print(f"seed {seed}, episode {number}", file=sys.stderr)
            raise
        total.update(episode.counts)
        done += moves
        number += 1
        report(done)
    total["messages"] = done
    return total


def run(fuzz: Fuzz, verdict: str) -> None:
    """Run it as the command line says; print ``verdict``, which the run has just shown, and every count."""
    count, seed, first = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in
                          ((1, 100_000), (2, 0), (3, 0)))  # fmt: skip
    began = time.monotonic()
    total = fuzz(count, seed, first, lambda done: print(f"\r{done} of {count}", end="", flush=True))
    print(f"\n{total.pop('messages')} messages in {time.monotonic() - began:.0f} s; {verdict}")
    for name in sorted(total):
        print(f"  {name:60} {total[name]:>9}")
