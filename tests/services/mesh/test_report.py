"""The report: its schema, its verdict, its words."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from services.guest_driver.workload import books
from services.mesh.children import Child
from services.mesh.report import PARTS, WRONG, closing, compose, summary, verdict
from services.mesh.settings import ROLES
from tests.mesh.report_schema import REPORT


@pytest.fixture
def report() -> dict[str, Any]:
    """What a run without any guest would report."""
    children = [Child(role, {}, "", restarts=number, cpu_seconds=1.234) for number, role in enumerate(ROLES)]
    return compose(1.23456, books([]), children)


def test_an_empty_report_has_the_documented_keys(report: dict[str, Any]) -> None:
    jsonschema.validate(report, REPORT)
    assert report["seconds"] == 1.235
    assert report["services"]["guest"] == {"cpu_seconds": 1.23, "rss_bytes": 0, "restarts": 3}
    assert verdict(report, expected=False) == []


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("part", PARTS)
def test_each_wrong_book_fails_the_run_by_name(report: dict[str, Any], part: str, key: str) -> None:
    report[part][key] = 3
    assert verdict(report, expected=False) == [f"{part}: 3 {key}"]
    assert f"{key} 3" in summary(report)


def test_what_a_reset_costs_is_said_and_is_no_fault(report: dict[str, Any]) -> None:
    report["scmi"] |= {"re_executed": 41, "refused_after_reset": 42}
    report["net"] |= {"re_executed": 43, "reset_dropped": 44}
    assert verdict(report, expected=False) == []
    text = summary(report)
    for said in ("41 executed again", "42 refused after a reset", "43 sent again", "44 dropped by a reset"):
        assert said in text


def test_commands_that_timed_out_are_a_fault_unless_faults_were_asked_for(report: dict[str, Any]) -> None:
    report["scmi"]["timed_out"] = 128
    assert verdict(report, expected=False) == ["scmi: 128 timed out"]
    assert verdict(report, expected=True) == []
    report["scmi"]["lost"] = 1
    assert verdict(report, expected=True) == ["scmi: 1 lost"]


@pytest.mark.parametrize(
    ("timed_out", "faults", "said"),
    [
        (0, [], "nothing lost, nothing doubled, nothing corrupted"),
        (1, [], "nothing lost, nothing doubled, nothing corrupted; 1 SCMI command timed out"),
        (128, [], "nothing lost, nothing doubled, nothing corrupted; 128 SCMI commands timed out"),
        (128, ["net: 1 lost", "irq: 2 lost"], "FAILED: net: 1 lost; irq: 2 lost"),
    ],
)
def test_the_last_line(report: dict[str, Any], timed_out: int, faults: list[str], said: str) -> None:
    report["scmi"]["timed_out"] = timed_out
    assert closing(report, faults) == said
