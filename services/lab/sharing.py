"""Which locations need a preemption point, learnt while exploring.

A step commutes with every step that the others can make around it if its location is touched by one actor only, if
nobody writes it during a run, or if every access of it holds one common lock. To preempt before such a step gives
nothing that preempting before the actor's next *exposed* step does not. So it stays *quiet*: counted and recorded,
but the strategy is not asked. When a location turns out to be exposed after all, :attr:`Sharing.grew` says so, and an
exhaustive search starts again. The tests compare verdicts and outcomes with the brute force that preempts before
every step.
"""

from __future__ import annotations

Location = tuple[str, str | int]
"""``(object, field)``, ``(memory, byte address of the cell)`` or ``(array, index)``."""


class Sharing:
    """What is known about locations; one per exploration, kept over its schedules."""

    __slots__ = ("_ranges", "_seen", "grew", "shared")

    def __init__(self) -> None:
        self.shared: set[Location] = set()
        #: set when a location has become shared since the flag was cleared
        self.grew = False
        #: location -> its only actor ("" = several), whether one wrote, the locks that every access held
        self._seen: dict[Location, tuple[str, bool, frozenset[str]]] = {}
        #: (memory, first byte, end) of bulk copies: always shared, with every cell inside
        self._ranges: set[tuple[str, int, int]] = set()

    def touch(self, loc: Location, actor: str, write: bool, held: frozenset[str]) -> bool:
        """``actor``, holding the locks ``held``, is about to touch ``loc``, which is not in :attr:`shared` yet.

        True if that makes it shared.
        """
        entry = self._seen.get(loc)
        if entry is None:
            self._seen[loc] = (actor, write, held)
            if not self._in_range(loc):
                return False
        else:
            owner, wrote, locks = entry
            if owner == actor and (wrote or not write) and locks <= held:
                return False
            common = locks & held
            wrote = wrote or write
            if owner != actor:
                owner = ""
            if owner or not wrote or common:
                self._seen[loc] = (owner, wrote, common)
                return False
        self.share(loc)
        return True

    def share(self, loc: Location) -> None:
        if loc not in self.shared:
            self.shared.add(loc)
            self.grew = True

    def touch_range(self, memory: str, start: int, end: int) -> None:
        """A bulk copy of the bytes ``start`` to ``end``: every cell inside is shared from now on."""
        if (memory, start, end) in self._ranges:
            return
        self._ranges.add((memory, start, end))
        for loc in self._seen:
            if loc not in self.shared and self._in_range(loc):
                self.share(loc)

    def _in_range(self, loc: Location) -> bool:
        name, addr = loc
        # a cell is at most 8 bytes wide; one that only might reach into the range counts too
        return isinstance(addr, int) and any(m == name and s - 8 < addr < e for m, s, e in self._ranges)
