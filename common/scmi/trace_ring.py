"""A bounded trace: what happened is kept as it is, and becomes text only when somebody reads it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVarTuple

Ts = TypeVarTuple("Ts")


@dataclass(slots=True)
class TraceStats:
    recorded: int = 0
    #: lost before anybody read them, because the ring was full
    overwritten: int = 0


class TraceRing(Generic[*Ts]):
    """The last ``capacity`` entries; ``line(*entry)`` is one's text."""

    __slots__ = ("_entries", "_line", "stats")

    def __init__(self, line: Callable[[*Ts], str], capacity: int) -> None:
        self.stats: Final = TraceStats()
        self._line: Final = line
        self._entries: deque[tuple[*Ts]] = deque(maxlen=capacity)

    @property
    def capacity(self) -> int:
        return self._entries.maxlen or 0

    def resize(self, capacity: int) -> None:
        """Keep ``capacity`` entries from now on; of those held, the newest stay."""
        self._entries = deque(self._entries, maxlen=capacity)

    def record(self, entry: tuple[*Ts]) -> None:
        stats, entries = self.stats, self._entries
        stats.recorded += 1
        stats.overwritten += len(entries) == entries.maxlen
        entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def lines(self) -> list[str]:
        """What the ring holds, oldest first; it stays (as ftrace's ``trace``)."""
        return [self._line(*entry) for entry in self._entries]

    def drain(self) -> list[str]:
        """What the ring holds, oldest first; it is gone afterwards (as ftrace's ``trace_pipe``)."""
        lines = self.lines()
        self._entries.clear()
        return lines
