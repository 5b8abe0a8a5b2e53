"""Every mutant of the transport is caught, or argued to be none in docs/races/mutants.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.guest_driver import scmi_agent
from services.guest_driver.scmi_response import Responses
from services.lab.explore import Result, explore
from services.lab.scenario import Settings
from services.lab.scenarios.vio_rig import Classes
from tests.services.lab.mutants_transport import MUTANTS, NO_PREEMPTION, SEARCHES, Mutant
from tests.services.lab.transport_inputs import INPUTS

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "mutants.md"
#: of what is shipped, and of equivalent mutants: a slice
SLICE = 150


def run(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Result:
    made = mutant.make()
    if mutant.cls is Responses:
        monkeypatch.setattr(scmi_agent, "Responses", made)
    return explore(mutant.build(made), settings)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.caught], ids=lambda m: m.name)
def test_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(mutant, monkeypatch, SEARCHES[mutant.search])
    assert result.verdict == "fails", result
    assert result.failure is not None
    row = f"| {mutant.name} | `{mutant.given}`, {result.failure.kind} | {mutant.search} | {result.schedules:,} |"
    assert row in PAGE.read_text(encoding="utf-8"), row


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if not m.caught], ids=lambda m: m.name)
def test_equivalent(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SEARCHES[mutant.search], runs=SLICE)
    assert run(mutant, monkeypatch, settings).verdict == "holds"
    assert f"| {mutant.name} |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("given", sorted({m.given for m in MUTANTS}))
def test_what_ships_holds(given: str) -> None:
    """Or the inputs that no scenario runs would catch nothing."""
    assert explore(INPUTS[given](Classes()), replace(NO_PREEMPTION, runs=SLICE)).verdict == "holds"
