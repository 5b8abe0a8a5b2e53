"""A text ladder: one column an actor, one row a step, as in the mails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Widest column, in characters; what is longer is broken at spaces.
WIDTH: Final = 30


def columns(steps: Sequence[tuple[str, str]], *, actors: Sequence[str] = (), width: int = WIDTH) -> list[str]:
    """The lines of a ladder of (actor, text): head, rule, rows, rule.

    Columns stand in the order of ``actors``, then of first appearance; each is as wide as it must be.
    """
    names = list(dict.fromkeys((*actors, *(actor for actor, _ in steps))))
    longest = {name: len(name) for name in names}
    for actor, text in steps:
        longest[actor] = max(longest[actor], len(text))
    widths = {name: min(width, length) for name, length in longest.items()}
    rule = "  ".join("-" * widths[name] for name in names)
    lines = ["  ".join(name.ljust(widths[name]) for name in names).rstrip(), rule]
    for actor, text in steps:
        for part in wrap(text, widths[actor]):
            lines.append("  ".join((part if name == actor else "").ljust(widths[name]) for name in names).rstrip())
    return [*lines, rule]


def wrap(text: str, width: int) -> list[str]:
    """Cut at spaces, with long words as they are."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
