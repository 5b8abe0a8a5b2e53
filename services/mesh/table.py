"""The live table of ``ringmesh run``: totals and rates above, one row a queue below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.mesh.scrape import Scraper, quantile
from services.mesh.settings import ROLES

DEPTH: Final = "ringmesh_queue_depth"
LATENCY: Final = "ringmesh_poll_latency_seconds"
#: Between two parts of the head line; where a terminal is too narrow, the line is broken here.
GAP: Final = "   "


@dataclass(slots=True)
class Totals:
    """The numbers of the head line, from the guest's books."""

    scmi: int
    net: int
    irq: int
    maps: int

    @classmethod
    def of(cls, report: dict[str, Any]) -> Totals:
        return cls(
            report["scmi"]["completed"], report["net"]["rx"], report["irq"]["delivered"], report["net"]["map_changes"]
        )


def microseconds(seconds: float | None) -> str:
    """A latency for people: three figures in µs, ms or s."""
    if seconds is None:
        return "–"
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def head(elapsed: float, seconds: float, now: dict[str, Any], before: Totals, interval: float) -> str:
    """One line: what was done so far and how fast it goes. What must be 0 comes first: nobody may miss it."""
    totals = Totals.of(now)
    rate = max(interval, 1e-6)
    of = f" of {seconds:.0f}" if seconds < float("inf") else ""
    wrong = sum(now[part][key] for part in ("scmi", "net", "irq") for key in ("duplicated", "corrupted"))
    return GAP.join(
        (
            f"{elapsed:5.1f}{of} s",
            f"wrong {wrong}",
            f"SCMI {totals.scmi} ({(totals.scmi - before.scmi) / rate:.0f}/s)",
            f"frames {totals.net} ({(totals.net - before.net) / rate:.0f}/s)",
            f"LPIs {totals.irq} ({(totals.irq - before.irq) / rate:.0f}/s)",
            f"map changes {totals.maps}",
        )
    )


def wrap(line: str, width: int) -> str:
    """``line`` with each GAP that would stand beyond ``width`` columns, or lead beyond it, made a line break."""
    first, *parts = line.split(GAP)
    lines = [first]
    for part in parts:
        longer = lines[-1] + GAP + part
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(lines)


def queue_rows(scraper: Scraper) -> list[tuple[str, str, str, str, str]]:
    """(service, queue, depth, poll p50, poll p99) of every queue, over the last interval."""
    rows = []
    for role in ROLES:
        sample = scraper.now.get(role)
        if sample is None:
            continue
        before = scraper.before[role]
        for queue in sample.label_values(DEPTH, "queue"):
            rows.append(
                (
                    role,
                    queue,
                    f"{sample.total(DEPTH, queue=queue):.0f}",
                    microseconds(quantile(before, sample, LATENCY, 0.5, queue=queue)),
                    microseconds(quantile(before, sample, LATENCY, 0.99, queue=queue)),
                )
            )
    return rows


def queue_table(scraper: Scraper) -> Table:
    """One row a queue under a header."""
    table = Table(expand=False, pad_edge=False, box=None, header_style="bold")
    for title in ("service", "queue"):
        table.add_column(title)
    for title in ("depth", "poll p50", "poll p99"):
        table.add_column(title, justify="right")
    for row in queue_rows(scraper):
        table.add_row(*row)
    return table


def render(line: str, scraper: Scraper, restarts: dict[str, int], width: int) -> RenderableType:
    """The whole live display, for a terminal of ``width`` columns."""
    again = ", ".join(f"{role} {count}" for role, count in restarts.items() if count)
    return Group(
        Text(wrap(line, width), style="bold"), queue_table(scraper), Text(f"restarts: {again}" if again else "")
    )
