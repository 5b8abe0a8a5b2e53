"""Counters as plain ints, turned into Prometheus samples when somebody scrapes.

The hot path says ``counter.value += 1`` or ``stats.sent += 1`` and nothing else; one custom collector reads them all.
Every sample carries the label ``service``. Names start with ``ringmesh_``, counters end in ``_total``, units are base
units (seconds, bytes), every family has a help text.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import metadata
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from common.errors import LocalError
from common.histogram import Histogram

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

_NAME: Final = re.compile(r"ringmesh_[a-z0-9]+(_[a-z0-9]+)*")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]*")

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class Counter:
    """A count that only grows: ``counter.value += 1``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0


class Gauge:
    """A value that goes up and down: set ``gauge.value``, or hand in a function that is asked at each scrape."""

    __slots__ = ("fn", "value")

    def __init__(self, fn: Callable[[], float] | None = None) -> None:
        self.fn = fn
        self.value: int | float = 0

    def read(self) -> float:
        return self.value if self.fn is None else self.fn()


class _Field:
    """A counter that lives as a field of somebody's stats object. ``base`` is what earlier objects under the same
    labels had reached, so that replacing a queue or a link never makes a counter go back."""

    __slots__ = ("base", "field", "stats")

    def __init__(self, stats: object, field: str) -> None:
        self.stats = stats
        self.field = field
        self.base: int | float = 0

    @property
    def value(self) -> int | float:
        current: int | float = getattr(self.stats, self.field)
        return self.base + current

    def replace(self, stats: object) -> None:
        if stats is not self.stats:
            self.base = self.value
            self.stats = stats


class _Family:
    __slots__ = ("kind", "labels", "name", "samples", "text")

    def __init__(self, name: str, text: str, kind: Kind, labels: Labels) -> None:
        self.name = name
        self.text = text
        self.kind = kind
        self.labels = labels
        self.samples: dict[Labels, Any] = {}


def int_fields(stats: object) -> list[str]:
    """Names of the public int fields of a slotted object (or plain one), in order of declaration."""
    names: list[str] = []
    for cls in reversed(type(stats).__mro__):
        slots = cls.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    names += getattr(stats, "__dict__", {})
    return [n for n in dict.fromkeys(names) if not n.startswith("_") and type(getattr(stats, n, None)) is int]


class Metrics(Collector):
    """All metrics of one service. Asking twice for the same name and labels gives the same object.

    Raises LocalError if a name breaks the conventions above or is already another kind, help or set of labels.
    """

    def __init__(self, service: str, version: str | None = None) -> None:
        self.service: Final = service
        self._families: dict[str, _Family] = {}
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(self)
        # Present from the first scrape, with or without a queue, so that dashboards never meet an unknown name.
        self._family(
            "ringmesh_queue_depth",
            "Entries in a queue: the mean since the scrape before; what it holds now, where nothing came or went.",
            "gauge",
            ("queue",),
        )
        self._family(
            "ringmesh_poll_latency_seconds",
            "Time from when work became visible in a queue until it was taken.",
            "histogram",
            ("queue",),
        )
        self.gauge(
            "ringmesh_build_info",
            "Version of ringmesh and of the interpreter; always 1.",
            version=version or _version(),
            python=platform.python_version(),
        ).value = 1

    def counter(self, name: str, text: str, /, **labels: str) -> Counter:
        """A counter; ``name`` ends in ``_total``."""
        counter: Counter = self._sample(name, text, "counter", labels, Counter)
        return counter

    def gauge(self, name: str, text: str, /, fn: Callable[[], float] | None = None, **labels: str) -> Gauge:
        """A gauge; with ``fn`` it is read at each scrape (a second ``fn`` under the same labels takes over)."""
        gauge: Gauge = self._sample(name, text, "gauge", labels, Gauge)
        if fn is not None:
            gauge.fn = fn
        return gauge

    def histogram(self, name: str, text: str, /, buckets: Sequence[float] | None = None, **labels: str) -> Histogram:
        """A histogram: latency buckets (seconds, 1 µs … 10 s) unless upper bounds ``buckets`` are given."""
        histogram: Histogram = self._sample(
            name, text, "histogram", labels, Histogram if buckets is None else partial(Histogram, buckets, None)
        )
        return histogram

    def counters_of(self, prefix: str, text: str, stats: object, /, **labels: str) -> None:
        """Every public int field of ``stats`` becomes the counter ``ringmesh_<prefix>_<field>_total``.

        A later object under the same labels takes over from where the earlier one stood. Raises LocalError if there
        is no int field.
        """
        fields = int_fields(stats)
        if not fields:
            raise LocalError(f"{type(stats).__name__} has no int field to count")
        for field in fields:
            name = f"ringmesh_{prefix}_{field.removesuffix('_total')}_total"
            field_text = f"{text.rstrip('.')}: {field.replace('_', ' ')}."
            self._sample(name, field_text, "counter", labels, partial(_Field, stats, field)).replace(stats)

    def queue(self, queue: str, depth: Callable[[], float]) -> Histogram:
        """Register a queue: its depth is asked at each scrape; the histogram returned takes its poll latencies."""
        self.gauge("ringmesh_queue_depth", self._families["ringmesh_queue_depth"].text, depth, queue=queue)
        name = "ringmesh_poll_latency_seconds"
        return self.histogram(name, self._families[name].text, queue=queue)

    def remove(self, name: str, **labels: str) -> None:
        """Forget one sample (a queue that is gone). Nothing happens if it is not there."""
        family = self._families.get(name)
        if family is not None:
            family.samples.pop(tuple(labels.get(label, "") for label in family.labels), None)

    def value(self, name: str, **labels: str) -> float:
        """Current value of a counter or gauge, 0 if there is none: for reports and tests."""
        family = self._families.get(name)
        if family is None:
            return 0
        sample = family.samples.get(tuple(labels.get(label, "") for label in family.labels))
        if sample is None:
            return 0
        value: float = sample.read() if isinstance(sample, Gauge) else sample.value
        return value

    def render(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        for family in self._families.values():
            labels = ["service", *family.labels]
            if family.kind == "counter":
                counters = CounterMetricFamily(family.name, family.text, labels=labels)
                for values, counter in family.samples.items():
                    counters.add_metric([self.service, *values], counter.value)
                yield counters
            elif family.kind == "gauge":
                gauges = GaugeMetricFamily(family.name, family.text, labels=labels)
                for values, gauge in family.samples.items():
                    gauges.add_metric([self.service, *values], gauge.read())
                yield gauges
            else:
                histograms = HistogramMetricFamily(family.name, family.text, labels=labels)
                for values, histogram in family.samples.items():
                    buckets = [(str(bound), float(count)) for bound, count in histogram.cumulated()]
                    buckets.append(("+Inf", float(histogram.count)))
                    histograms.add_metric([self.service, *values], buckets, histogram.sum)
                yield histograms

    def _family(self, name: str, text: str, kind: Kind, labels: Labels) -> _Family:
        family = self._families.get(name)
        if family is None:
            if not _NAME.fullmatch(name):
                raise LocalError(f"metric {name!r} must be snake_case and start with ringmesh_")
            if (kind == "counter") != name.endswith("_total"):
                raise LocalError(f"metric {name!r}: counters, and only counters, end in _total")
            if not text:
                raise LocalError(f"metric {name!r} has no help text")
            for label in labels:
                if not _LABEL.fullmatch(label) or label in ("service", "le"):
                    raise LocalError(f"metric {name!r}: label {label!r} is reserved or not snake_case")
            family = self._families[name] = _Family(name, text, kind, labels)
        elif (family.kind, family.text, family.labels) != (kind, text, labels):
            raise LocalError(f"metric {name!r} is already a {family.kind} with labels {family.labels}: {family.text}")
        return family

    def _sample(self, name: str, text: str, kind: Kind, labels: dict[str, str], make: Callable[[], Any]) -> Any:
        family = self._family(name, text, kind, tuple(labels))
        key = tuple(str(value) for value in labels.values())
        sample = family.samples.get(key)
        if sample is None:
            sample = family.samples[key] = make()
        return sample


def _version() -> str:
    try:
        return metadata.version("ringmesh")
    except metadata.PackageNotFoundError:
        return "unknown"
