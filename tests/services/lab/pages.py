"""Bring the pages of docs/races up to date: counts of every variant and the ladder, as ``ringmesh lab run`` has them.

::

    python -m tests.services.lab.pages [SCENARIO …] [--fails-only]

A page has one table row a variant, ``| `variant` | … | verdict | schedules | steps |``, under *The ladder* a
sentence that begins with the variant that the block below it shows, and says ```ringmesh lab run NAME` runs …
schedules, … steps`` of the shipped one. A verdict that is not the expected one stops it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import services.lab.scenarios  # noqa: F401  (registers every scenario)
from services.lab.explore import Result, explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import SCENARIOS, Scenario, Variant

RACES: Final = Path(__file__).resolve().parents[3] / "docs" / "races"

_ROW: Final = re.compile(r"^(\| `(?P<name>[^`]+)`.*\| )(?P<counts>[\d,]+ \| [\d,]+)( \|)$", re.MULTILINE)
_RUNS: Final = re.compile(r"(`ringmesh lab run [a-z-]+`\s+runs\s+)[\d,]+\s+schedules,\s+[\d,]+\s+steps")
_LADDER: Final = re.compile(r"(## The ladder\n\n`(?P<name>[^`]+)`.*?\n```\n)(?P<text>.*?)(\n```\n)", re.DOTALL)


def search(variant: Variant) -> Result:
    result = explore(variant.build, variant.settings)
    if result.verdict != variant.expect:
        raise SystemExit(f"{variant.name}: expected {variant.expect}, got {result}")
    return result


def refresh(scenario: Scenario, fails_only: bool) -> str:
    """The page's new text."""
    page = RACES / f"{scenario.name}.md"
    results: dict[str, Result] = {}

    def row(match: re.Match[str]) -> str:
        variant = scenario.variant(match["name"])
        if fails_only and variant.expect == "holds":
            return match[0]
        results[match["name"]] = result = search(variant)
        print(f"{scenario.name} {variant.name}: {result.schedules:,} schedules, {result.steps:,} steps", flush=True)
        return f"{match[1]}{result.schedules:,} | {result.steps:,}{match[4]}"

    def drawing(match: re.Match[str]) -> str:
        variant = scenario.variant(match["name"])
        result = results.get(match["name"]) or search(variant)
        drawn = ladder(replay(variant.build, result.schedule, variant.settings.limit)).rstrip("\n")
        return f"{match[1]}{drawn}{match[4]}"

    def runs(match: re.Match[str]) -> str:
        shipped = results.get("shipped")
        return match[0] if shipped is None else f"{match[1]}{shipped.schedules:,} schedules, {shipped.steps:,} steps"

    return _RUNS.sub(runs, _LADDER.sub(drawing, _ROW.sub(row, page.read_text(encoding="utf-8"))))


def main(arguments: list[str]) -> None:
    fails_only = "--fails-only" in arguments
    names = [a for a in arguments if not a.startswith("--")] or list(SCENARIOS)
    for name in names:
        text = refresh(SCENARIOS[name], fails_only)
        (RACES / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
