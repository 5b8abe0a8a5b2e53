"""A schedule as a text ladder: one column an actor, one row a step, as in the mails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import compress
from typing import Any, Final

from services.lab.columns import columns
from services.lab.explore import Outcome
from services.lab.sharing import Location

#: reads by one actor in a row that are longer than this are folded
_FOLD: Final = 6

_SIGNS: Final = {"read": "→", "write": "←", "add": "←", "swap": "←", "expire": "expires", "cancel": "cancel"}


def rows(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """(actor, kind, text) of each executed step."""
    name_of = outcome.world.name_of
    for actor, kind, loc, value in outcome.run.trace or ():
        if kind in _SIGNS and loc is not None:
            text = f"{name_of(loc)} {_SIGNS[kind]} {value}".rstrip()
        elif kind == "blocked":
            text = f"blocked: {value}"
        elif loc is None:
            text = f"{kind} {value}".rstrip() if kind != "choose" else value
        elif kind in ("copy_in", "copy_out"):
            text = f"{kind} {name_of(loc)}, {value}"
        else:
            text = f"{kind} {name_of(loc)} {value}".rstrip()
        yield actor, kind, text


def _telling(outcome: Outcome) -> list[bool]:
    """For each step of the trace: is it worth a row?

    Not if its cell is one actor's own or never written; and a read not if every access of its cell holds one lock.
    """
    trace = outcome.run.trace or []
    held: dict[str, set[str]] = {}
    users: dict[Location, set[str]] = {}
    locks: dict[Location, set[str]] = {}
    for actor, kind, loc, _ in trace:
        mine = held.setdefault(actor, set())
        if loc is not None:
            if kind == "lock":
                mine.add(loc[0])
            elif kind == "unlock":
                mine.discard(loc[0])
            else:
                users.setdefault(loc, set()).add(actor)
                locks[loc] = locks[loc] & mine if loc in locks else set(mine)
    written = outcome.run.written
    telling = []
    for _, kind, loc, _ in trace:
        if kind not in ("read", "write") or loc is None:
            telling.append(True)
        elif loc not in written or len(users[loc]) < 2:
            telling.append(False)
        else:
            telling.append(kind == "write" or not locks[loc])
    return telling


def telling_rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    """The rows worth showing, long turns of one actor shortened."""
    return _fold(list(compress(rows(outcome), _telling(outcome))))


def _fold(steps: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Shorten what repeats: a polling loop's identical turns, and long runs of one actor."""
    folded: list[tuple[str, str, str]] = []
    at = 0
    while at < len(steps):
        end = at
        while end < len(steps) and steps[end][0] == steps[at][0]:
            end += 1
        turn = steps[at:end]
        if len(turn) > 4 * _FOLD:
            hidden = len(turn) - 3 * _FOLD
            turn = [*turn[:_FOLD], (turn[0][0], "fold", f"… {hidden} more steps …"), *turn[-2 * _FOLD :]]
        folded += turn
        at = end
    return folded


def _columns(actors: set[str]) -> dict[str, str]:
    """Who stands in whose column: those that an algorithm spawned one after the other stand in the first one's."""
    first = {actor: actor.rpartition(" ")[0] for actor in actors if actor.rpartition(" ")[2].isdecimal()}
    return {actor: first[actor] if first.get(actor) in actors else actor for actor in actors}


def ladder(outcome: Outcome, full: bool = False) -> str:
    """The ladder of a traced run, every step of it with ``full``. Ends with the failure, if there is one."""
    steps = list(rows(outcome)) if full else telling_rows(outcome)
    columns_of = _columns({actor for actor, _, _ in steps})
    lines = columns([(columns_of[actor], text) for actor, _, text in steps])
    failure = outcome.run.failure
    if failure is not None:
        lines.append(f"!! {failure}")
    else:
        lines.append("no failure")
    return "\n".join(lines) + "\n"


def trace_lines(outcome: Outcome) -> Iterator[str]:
    """The steps as JSON lines: ``{"step", "actor", "kind", "location", "value"}``."""
    name_of = outcome.world.name_of
    for number, (actor, kind, loc, value) in enumerate(outcome.run.trace or ()):
        step: dict[str, Any] = {
            "step": number,
            "actor": actor,
            "kind": kind,
            "location": name_of(loc) if loc is not None else None,
            "value": value,
        }
        yield json.dumps(step, ensure_ascii=False)
