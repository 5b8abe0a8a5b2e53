"""Reading /metrics: totals by label, quantiles between two scrapes, the scraper's two samples."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.histogram import Histogram
from common.runtime.metrics import Metrics
from services.mesh.children import Child, Mesh
from services.mesh.scrape import Sample, Scraper, quantile

NAME = "ringmesh_wait_seconds"


def _service() -> tuple[Metrics, Histogram, Histogram]:
    metrics = Metrics("nic")
    return (
        metrics,
        metrics.histogram(NAME, "Waits.", queue="rx0"),
        metrics.histogram(NAME, "Waits.", queue="tx0"),
    )


def _sample(metrics: Metrics) -> Sample:
    return Sample.parse(metrics.render().decode())


def test_totals_and_labels_of_a_real_exposition() -> None:
    metrics = Metrics("nic")
    metrics.counter("ringmesh_things_total", "Things.", queue="rx0").value = 3
    metrics.counter("ringmesh_things_total", "Things.", queue="tx0").value = 4
    sample = _sample(metrics)
    assert sample.total("ringmesh_things_total") == 7
    assert sample.total("ringmesh_things_total", queue="tx0", service="nic") == 4
    assert sample.total("ringmesh_things_total", queue="zz") == 0
    assert sample.total("ringmesh_nothing") == 0
    assert sample.label_values("ringmesh_things_total", "queue") == ["rx0", "tx0"]


def test_a_quantile_speaks_of_the_time_between_two_scrapes_only() -> None:
    metrics, rx, tx = _service()
    for _ in range(1000):
        rx.observe(0.5)
    before = _sample(metrics)
    assert quantile(before, before, NAME, 0.5, queue="rx0") is None
    for _ in range(10):
        rx.observe(0.0001)
        tx.observe(0.01)
    now = _sample(metrics)
    assert quantile(before, now, NAME, 0.99, queue="rx0") == pytest.approx(0.0001, rel=0.6)
    assert quantile(before, now, NAME, 0.5, queue="tx0") == pytest.approx(0.01, rel=0.6)
    assert quantile(before, now, NAME, 0.99, queue="nothing") is None


def test_beyond_the_last_bound_the_last_bound_is_said() -> None:
    metrics, rx, _ = _service()
    before = _sample(metrics)
    rx.observe(1e9)
    value = quantile(before, _sample(metrics), NAME, 0.5, queue="rx0")
    assert value is not None
    assert value < 1e9


@given(st.lists(st.floats(1e-6, 5.0), min_size=1, max_size=50), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_rise_with_q(values: list[float], one: float, other: float) -> None:
    metrics, rx, _ = _service()
    before = _sample(metrics)
    for value in values:
        rx.observe(value)
    now = _sample(metrics)
    low, high = (quantile(before, now, NAME, q, queue="rx0") for q in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low <= high


class _Texts:
    """The part of a Mesh that a scraper uses."""

    def __init__(self) -> None:
        self.children = {"nic": Child("nic", {}, "")}
        self.answers: list[str | None] = []

    async def metrics(self, _role: str) -> str | None:
        return self.answers.pop(0)


async def test_the_scraper_keeps_the_sample_before_and_the_most_memory() -> None:
    texts = _Texts()
    scraper = Scraper(cast(Mesh, texts))
    texts.answers = [f"process_resident_memory_bytes {value}\n" if value else None for value in (10, 30, None, 20)]
    for _ in range(4):
        await scraper.scrape(["nic"])
    assert scraper.missed == 1
    assert scraper.before["nic"].total("process_resident_memory_bytes") == 30
    assert scraper.now["nic"].total("process_resident_memory_bytes") == 20
    assert texts.children["nic"].rss_bytes == 30
