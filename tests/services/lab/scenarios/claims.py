"""What every scenario says of its variants, and how a test finds out whether it is so.

Imported as ``tests.services.lab.scenarios.claims``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from services.lab.explore import explore, replay
from services.lab.failure import Failure
from services.lab.ladder import ladder
from services.lab.scenario import Build, Settings, Variant


def fails(variant: Variant, page: Path) -> Failure:
    """The variant fails within its bound, as its schedule does when it is replayed, and ``page`` has the counts.
    Returns how."""
    result = explore(variant.build, variant.settings)
    assert (variant.expect, result.verdict) == ("fails", "fails"), result
    assert result.failure is not None
    assert replay(variant.build, result.schedule, variant.settings.limit).run.failure == result.failure
    row = f"| fails | {result.schedules:,} | {result.steps:,} |"
    assert row in page.read_text(encoding="utf-8"), row
    return result.failure


def holds(build: Build, *, preemptions: int = 0, runs: int = 0) -> None:
    """Every schedule with at most so many ``preemptions`` holds, and so do ``runs`` random ones."""
    result = explore(build, Settings(preemptions=preemptions))
    assert (result.verdict, result.exhaustive) == ("holds", True), result
    if runs:
        assert explore(build, Settings(strategy="random", runs=runs)).verdict == "holds"


def holds_at_first(variant: Variant, runs: int) -> None:
    """The variant is said to hold, and the first ``runs`` schedules of the declared search do: `lab run` runs all."""
    assert variant.expect == "holds"
    assert explore(variant.build, replace(variant.settings, runs=runs)).verdict == "holds"


def is_drawn(variant: Variant, page: Path) -> None:
    """``page`` has the ladder that the tool prints of the variant."""
    result = explore(variant.build, variant.settings)
    drawn = ladder(replay(variant.build, result.schedule, variant.settings.limit))
    assert drawn in page.read_text(encoding="utf-8")
