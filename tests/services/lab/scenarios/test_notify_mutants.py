"""Every mutant of the notification queue is caught, or argued to be none in docs/races/mutants.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.guest_driver import notify_queue
from services.guest_driver.notify_fifo import EventFifo
from services.lab.explore import Result, explore
from services.lab.scenario import Settings
from tests.services.lab.mutants_notify import MUTANTS, Mutant

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "mutants.md"


def run(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Result:
    made = mutant.make()
    if mutant.cls is EventFifo:
        monkeypatch.setattr(notify_queue, "EventFifo", made)
    return explore(mutant.build(made), settings)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.caught], ids=lambda m: m.name)
def test_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(mutant, monkeypatch, Settings(preemptions=2))
    assert result.verdict == "fails"
    assert result.failure is not None
    row = f"| {mutant.name} | `{mutant.scenario}`, {result.failure.kind} | {result.schedules:,} |"
    assert row in PAGE.read_text(encoding="utf-8"), row


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if not m.caught], ids=lambda m: m.name)
def test_equivalent(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(mutant, monkeypatch, Settings(preemptions=1)).verdict == "holds"
    assert f"| {mutant.name} |" in PAGE.read_text(encoding="utf-8")
