"""A failing schedule as a small file that anybody can read and replay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from common.errors import FrameError
from services.lab.failure import Failure

VERSION: Final = 1
_MAX_BYTES: Final = 16 << 20
_MAX_STEPS: Final = 1_000_000

_Turn = tuple[str, Annotated[int, msgspec.Meta(ge=1, le=_MAX_STEPS)]]


class _FailureFile(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    actor: str
    detail: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The file: ``schedule`` holds ``[actor, steps]`` for a turn and a bare number for the value of a choice."""

    version: Literal[1]
    scenario: str
    variant: str
    memory: str
    strategy: str
    seed: int
    preemptions: int
    steps: int
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MAX_STEPS)]
    failure: _FailureFile
    schedule: list[_Turn | int]


@dataclass(slots=True, frozen=True)
class Witness:
    """Which variant failed, how, and by which schedule (actor names, one a step, and values of choices)."""

    scenario: str
    variant: str
    memory: str
    strategy: str
    seed: int
    preemptions: int
    limit: int
    failure: Failure
    schedule: tuple[str | int, ...]


def _turns(schedule: tuple[str | int, ...]) -> list[list[str | int] | int]:
    turns: list[list[str | int] | int] = []
    for entry in schedule:
        last = turns[-1] if turns else None
        if isinstance(entry, int):
            turns.append(entry)
        elif isinstance(last, list) and last[0] == entry:
            assert isinstance(last[1], int)
            last[1] += 1
        else:
            turns.append([entry, 1])
    return turns


def save(witness: Witness, path: Path) -> None:
    """Write the file; the same witness gives the same bytes."""
    failure = witness.failure
    head = {
        "version": VERSION,
        "scenario": witness.scenario,
        "variant": witness.variant,
        "memory": witness.memory,
        "strategy": witness.strategy,
        "seed": witness.seed,
        "preemptions": witness.preemptions,
        "steps": sum(isinstance(entry, str) for entry in witness.schedule),
        "limit": witness.limit,
        "failure": {"kind": failure.kind, "actor": failure.actor, "detail": failure.detail},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    turns = ",\n    ".join(json.dumps(turn, ensure_ascii=False) for turn in _turns(witness.schedule))
    text = "{\n" + "\n".join(lines) + f'\n  "schedule": [\n    {turns}\n  ]\n}}\n'
    path.write_text(text, encoding="utf-8")


def load(path: Path) -> Witness:
    """Read a witness. Raises FrameError for a file that is none; OSError if it cannot be read."""
    raw = path.read_bytes()
    if len(raw) > _MAX_BYTES:
        raise FrameError("witness", len(raw), _MAX_BYTES, "bytes")
    try:
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError("witness", None, None, str(error)) from None
    if file.steps > _MAX_STEPS or sum(turn[1] for turn in file.schedule if isinstance(turn, tuple)) > _MAX_STEPS:
        raise FrameError("witness.schedule", file.steps, _MAX_STEPS, "steps")
    schedule: list[str | int] = []
    for turn in file.schedule:
        if isinstance(turn, int):
            schedule.append(turn)
        else:
            schedule += [turn[0]] * turn[1]
    return Witness(
        file.scenario,
        file.variant,
        file.memory,
        file.strategy,
        file.seed,
        file.preemptions,
        file.limit,
        Failure(file.failure.kind, file.failure.actor, file.failure.detail),
        tuple(schedule),
    )
