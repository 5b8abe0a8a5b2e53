"""Every recorded case, in both profiles."""

from __future__ import annotations

from contextlib import closing

import pytest

from services.gic_its.adapter import CaseAdapter
from tests.services.gic_its import case_steps
from tests.services.gic_its.case_steps import compare, load, play

NAMES = case_steps.names()
#: Cases with an ITT where there is no memory: nobody can carry that to another machine.
NOT_CARRIED = {("queue-stall-mend", "kvm")}

needs_cases = pytest.mark.skipif(not NAMES, reason=f"no recorded cases in {case_steps.CASES}")


@needs_cases
def test_all_cases_are_there() -> None:
    assert len(NAMES) == 110


@needs_cases
@pytest.mark.parametrize("profile", ["qemu", "kvm"])
@pytest.mark.parametrize("name", NAMES)
def test_a_case(name: str, profile: str) -> None:
    case = load(name)
    with closing(CaseAdapter(case, profile)) as adapter:
        got = play(case, adapter)
    assert set(got) == set(case["expect"])
    assert compare(case, got, profile) == []


@needs_cases
@pytest.mark.parametrize("profile", ["qemu", "kvm"])
def test_cases_side_by_side(profile: str) -> None:
    """Many machines at once, one step of each in turn, do not meet."""
    cases = [load(name) for name in NAMES[::10]]
    adapters = [CaseAdapter(case, profile) for case in cases]
    shown: list[dict[str, object]] = [{} for _ in cases]
    for at in range(max(len(case["steps"]) for case in cases)):
        for case, adapter, got in zip(cases, adapters, shown, strict=True):
            got |= play(case | {"steps": case["steps"][at : at + 1]}, adapter)
    for case, adapter, got in zip(cases, adapters, shown, strict=True):
        adapter.close()
        assert compare(case, got, profile) == []


@needs_cases
@pytest.mark.parametrize("profile", ["qemu", "kvm"])
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("cmd", "queue", "lpi", "msi"))])
def test_a_case_that_moves_whenever_its_queue_rests(name: str, profile: str) -> None:
    """A migration changes nothing that shows, also of an ITS that is off, stalled or half programmed."""
    if (name, profile) in NOT_CARRIED:
        pytest.skip("an ITT where there is no memory")
    case = load(name)
    steps = []
    for step in case["steps"]:
        steps.append(step)
        if step["op"] == "drain":
            steps.append({"op": "migrate"})
    with closing(CaseAdapter(case, profile)) as adapter:
        got = play(case | {"steps": steps}, adapter)
    assert compare(case, got, profile) == []
