"""What the live table shows, read from the services' own /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from services.mesh.children import Child, Mesh
from services.mesh.settings import ROLES

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Sample:
    """One scrape of one service: (name, sorted labels) → value."""

    values: dict[tuple[str, Labels], float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Sample:
        values = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return cls(values)

    def total(self, name: str, **labels: str) -> float:
        """Sum over every series of ``name`` that carries ``labels``."""
        want = labels.items()
        return sum(v for (n, series), v in self.values.items() if n == name and want <= dict(series).items())

    def label_values(self, name: str, label: str) -> list[str]:
        """The values of ``label`` that ``name`` comes with, sorted."""
        return sorted({dict(series)[label] for n, series in self.values if n == name and label in dict(series)})


def quantile(before: Sample, after: Sample, name: str, q: float, **labels: str) -> float | None:
    """Quantile ``q`` of a histogram between two scrapes, as Prometheus' histogram_quantile; None without data."""
    counts: dict[float, float] = {}
    want = labels.items()
    for (n, series), value in after.values.items():
        given = dict(series)
        if n == f"{name}_bucket" and want <= given.items():
            bound = float(given["le"])
            counts[bound] = counts.get(bound, 0.0) + value - before.values.get((n, series), 0.0)
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    rank = q * counts[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= rank:
            if bound == float("inf"):
                return low
            inside = counts[bound] - below
            return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
        low, below = bound, counts[bound]
    return low


class Scraper:
    """Scrapes all services and keeps the sample before, for rates. The children's books get the most memory seen."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh: Final = mesh
        self.before: dict[str, Sample] = {}
        self.now: dict[str, Sample] = {}
        self.missed = 0

    async def scrape(self, roles: Iterable[str] = ROLES) -> None:
        """One round; a service that does not answer keeps its old sample."""
        for role in roles:
            text = await self._mesh.metrics(role)
            if text is None:
                self.missed += 1
                continue
            sample = Sample.parse(text)
            self.before[role] = self.now.get(role, sample)
            self.now[role] = sample
            self._account(self._mesh.children[role], sample)

    @staticmethod
    def _account(child: Child, sample: Sample) -> None:
        child.rss_bytes = max(child.rss_bytes, int(sample.total("process_resident_memory_bytes")))
