"""common.runtime.metrics: conventions, exposition, promtool's opinion."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.errors import LocalError
from common.runtime.metrics import Metrics, int_fields
from common.runtime.refusals import Traffic


@dataclass(slots=True)
class _Stats:
    sent: int = 0
    timed_out: int = 0
    ratio: float = 0.0
    name: str = ""
    _hidden: int = 0


def _samples(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_counters_are_plain_numbers_until_scraped(metrics: Metrics) -> None:
    counter = metrics.counter("ringmesh_things_total", "Things.", link="nic")
    counter.value += 3
    assert metrics.counter("ringmesh_things_total", "Things.", link="nic") is counter
    assert metrics.value("ringmesh_things_total", link="nic") == 3
    assert _samples(metrics)["ringmesh_things_total"] == {(("link", "nic"), ("service", "scmi")): 3}


def test_gauges_are_set_or_asked(metrics: Metrics) -> None:
    metrics.gauge("ringmesh_level", "Level.", side="a").value = 2
    metrics.gauge("ringmesh_level", "Level.", fn=lambda: 7, side="b")
    metrics.gauge("ringmesh_level", "Level.", fn=lambda: 8, side="b")
    assert metrics.value("ringmesh_level", side="b") == 8
    assert sorted(_samples(metrics)["ringmesh_level"].values()) == [2, 8]
    metrics.remove("ringmesh_level", side="a")
    metrics.remove("ringmesh_nothing")
    assert list(_samples(metrics)["ringmesh_level"].values()) == [8]


def test_a_queue_has_depth_and_poll_latency(metrics: Metrics) -> None:
    waiting = [1, 2, 3]
    latency = metrics.queue("tx", lambda: len(waiting))
    latency.observe(3e-6)
    latency.observe(100.0)
    samples = _samples(metrics)
    assert samples["ringmesh_queue_depth"] == {(("queue", "tx"), ("service", "scmi")): 3}
    buckets = {dict(k)["le"]: v for k, v in samples["ringmesh_poll_latency_seconds_bucket"].items()}
    assert (buckets["2e-06"], buckets["5e-06"], buckets["10.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert list(samples["ringmesh_poll_latency_seconds_count"].values()) == [2]


def test_families_that_dashboards_need_are_there_before_any_queue(metrics: Metrics) -> None:
    text = metrics.render().decode()
    assert "# TYPE ringmesh_queue_depth gauge" in text
    assert "# TYPE ringmesh_poll_latency_seconds histogram" in text
    assert 'ringmesh_build_info{python="' in text
    assert "process_cpu_seconds_total" in text


def test_stats_objects_become_counters_that_never_go_back(metrics: Metrics) -> None:
    stats = _Stats(sent=4)
    metrics.counters_of("channel", "SCMI channel", stats, queue="tx")
    stats.sent += 1
    assert metrics.value("ringmesh_channel_sent_total", queue="tx") == 5
    metrics.counters_of("channel", "SCMI channel", stats, queue="tx")
    assert metrics.value("ringmesh_channel_sent_total", queue="tx") == 5
    metrics.counters_of("channel", "SCMI channel", _Stats(sent=2), queue="tx")
    assert metrics.value("ringmesh_channel_sent_total", queue="tx") == 7
    assert "# HELP ringmesh_channel_timed_out_total SCMI channel: timed out." in metrics.render().decode()
    with pytest.raises(LocalError, match="no int field"):
        metrics.counters_of("x", "X", object())


def test_int_fields_are_public_ints_of_slots_and_bases(metrics: Metrics) -> None:
    class More(_Stats):
        __slots__ = ("extra",)

        def __init__(self) -> None:
            super().__init__()
            self.extra = 1

    class Single:
        __slots__ = "only"

        def __init__(self) -> None:
            self.only = 1

    class Plain:
        def __init__(self) -> None:
            self.here = 1
            self.flag = True

    assert int_fields(More()) == ["sent", "timed_out", "extra"]
    assert int_fields(Single()) == ["only"]
    assert int_fields(Plain()) == ["here"]


def test_histograms_with_other_buckets(metrics: Metrics) -> None:
    histogram = metrics.histogram("ringmesh_batch_frames", "Frames a batch.", buckets=(1, 8, 64))
    histogram.observe(5)
    buckets = {dict(k)["le"]: v for k, v in _samples(metrics)["ringmesh_batch_frames_bucket"].items()}
    assert buckets == {"1": 0, "8": 1, "64": 1, "+Inf": 1}


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("things_total", "x", {}),
        ("ringmesh_Things_total", "x", {}),
        ("ringmesh_things", "x", {}),
        ("ringmesh_things_total", "", {}),
        ("ringmesh_things_total", "x", {"service": "a"}),
        ("ringmesh_things_total", "x", {"le": "a"}),
        ("ringmesh_things_total", "x", {"camelCase": "a"}),
    ],
)
def test_names_that_break_the_conventions_are_refused(
    metrics: Metrics, name: str, text: str, labels: dict[str, str]
) -> None:
    with pytest.raises(LocalError):
        metrics.counter(name, text, **labels)


def test_one_name_has_one_kind_help_and_set_of_labels(metrics: Metrics) -> None:
    metrics.counter("ringmesh_things_total", "Things.", a="1")
    for text, labels in (("Other.", {"a": "1"}), ("Things.", {"b": "1"}), ("Things.", {})):
        with pytest.raises(LocalError, match="already"):
            metrics.counter("ringmesh_things_total", text, **labels)
    with pytest.raises(LocalError, match="only counters"):
        metrics.gauge("ringmesh_more_total", "More.")
    assert metrics.value("ringmesh_unknown_total") == 0
    assert metrics.value("ringmesh_things_total", a="2") == 0


def test_label_values_are_escaped(metrics: Metrics) -> None:
    nasty = 'a"b\\c\nd'
    metrics.counter("ringmesh_things_total", "Things.", a=nasty).value = 1
    ((labels, _),) = _samples(metrics)["ringmesh_things_total"].items()
    assert dict(labels)["a"] == nasty


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_complaint(metrics: Metrics) -> None:
    Traffic(metrics, "guest").frames_in.value += 1
    metrics.queue("tx", lambda: 1).observe(0.001)
    metrics.counters_of("channel", "SCMI channel", _Stats(), queue="tx")
    result: Any = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render(), capture_output=True, check=False
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_build_info_says_some_version_without_being_told() -> None:
    ((labels, value),) = _samples(Metrics("its"))["ringmesh_build_info"].items()
    assert dict(labels)["version"]
    assert value == 1
