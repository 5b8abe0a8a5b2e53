"""The live table."""

from __future__ import annotations

import io
import math
from typing import Any, cast

import pytest
from rich.console import Console

from common.runtime.metrics import Metrics
from services.guest_driver.workload import books
from services.mesh.children import Mesh
from services.mesh.scrape import Sample, Scraper
from services.mesh.table import Totals, head, microseconds, queue_rows, queue_table, render, wrap


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0, "0 µs"), (12.34e-6, "12.3 µs"), (0.00123, "1.23 ms"), (0.5, "500 ms"), (2.0, "2 s")],
)
def test_latencies_for_people(seconds: float | None, text: str) -> None:
    assert microseconds(seconds) == text


@pytest.fixture
def report() -> dict[str, Any]:
    found = books([])
    found["scmi"] |= {"completed": 300, "duplicated": 1}
    found["net"] |= {"rx": 5000, "map_changes": 4}
    found["irq"] |= {"delivered": 70, "corrupted": 2}
    return found


def test_the_head_line_has_totals_and_rates(report: dict[str, Any]) -> None:
    line = head(10.0, 30.0, report, Totals(100, 1000, 20, 0), 2.0)
    for part in ("10.0 of 30 s", "SCMI 300 (100/s)", "frames 5000 (2000/s)", "LPIs 70 (25/s)", "changes 4", "wrong 3"):
        assert part in line
    assert line.index("wrong") < line.index("SCMI")


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_narrow_terminal_gets_the_whole_head_line(report: dict[str, Any], width: int) -> None:
    line = head(1000.0, 30_000.0, report, Totals(100, 1000, 20, 0), 2.0)
    out = io.StringIO()
    Console(file=out, width=width, soft_wrap=True, markup=False).print(render(line, _scraper(), {}, width))
    rows = [row.rstrip() for row in out.getvalue().splitlines()]
    assert max(map(len, rows)) <= width
    for part in line.split("   "):
        assert any(part in row for row in rows), "no part is torn"


def test_the_head_line_stays_one_line_where_it_fits() -> None:
    assert wrap("a   b   c", 9) == "a   b   c"
    assert wrap("a   b   c", 8) == "a   b\nc"
    assert wrap("long   b", 2) == "long\nb"


def test_columns_stand_under_their_titles_where_stdout_is_no_terminal() -> None:
    out = io.StringIO()
    Console(file=out, soft_wrap=True, highlight=False, markup=False).print(queue_table(_scraper()))
    title, row = out.getvalue().splitlines()
    assert title.split() == ["service", "queue", "depth", "poll", "p50", "poll", "p99"]
    assert title.index("depth") + len("depth") == row.index("17") + len("17")
    assert len(title) == len(row)


def test_without_an_end_the_head_line_names_none(report: dict[str, Any]) -> None:
    line = head(10.0, math.inf, report, Totals(0, 0, 0, 0), 0.0)
    assert "inf" not in line
    assert "10.0 s" in line


def _scraper() -> Scraper:
    scraper = Scraper(cast(Mesh, None))
    metrics = Metrics("nic")
    waits = metrics.queue("rx0", lambda: 17)
    scraper.before["nic"] = Sample.parse(metrics.render().decode())
    waits.observe(0.001)
    scraper.now["nic"] = Sample.parse(metrics.render().decode())
    return scraper


def test_one_row_a_queue_and_none_for_a_service_that_never_answered() -> None:
    ((role, queue, depth, p50, p99),) = queue_rows(_scraper())
    assert (role, queue, depth) == ("nic", "rx0", "17")
    assert p50.endswith("s")
    assert p99.endswith("s")


def test_the_display_names_queues_and_restarts() -> None:
    out = io.StringIO()
    Console(file=out, width=120, markup=False).print(render("HEAD", _scraper(), {"nic": 2, "its": 0}, 120))
    text = out.getvalue()
    for part in ("HEAD", "poll p99", "rx0", "17", "restarts: nic 2"):
        assert part in text
    assert "its 0" not in text
