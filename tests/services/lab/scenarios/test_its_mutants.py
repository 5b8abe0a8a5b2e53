"""Every mutant of the ITS is caught by a scenario, and stands in docs/races/mutants.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.lab.explore import explore
from tests.services.lab.mutants_its import MUTANTS, PLACES, Mutant

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "mutants.md"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLACES[mutant.cls], mutant.make())
    result = explore(*mutant.search())
    assert result.verdict == "fails", result
    assert result.failure is not None
    row = f"| {mutant.name} | `{mutant.scenario}`, {result.failure.kind} |"
    assert row in PAGE.read_text(encoding="utf-8"), row
