"""The report of a run: put together, judged, put into words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from services.mesh.children import Child

VERSION: Final = 1
#: The parts of the report with books that have to add up, and what must be 0 in each.
PARTS: Final = ("scmi", "net", "irq")
WRONG: Final = ("lost", "duplicated", "corrupted")


def compose(seconds: float, books: dict[str, Any], children: Iterable[Child]) -> dict[str, Any]:
    """The report, from the guest's books and what the supervisor knows. CPU seconds are complete once the services
    have ended."""
    services = {
        child.role: {
            "cpu_seconds": round(child.cpu_seconds, 2),
            "rss_bytes": child.rss_bytes,
            "restarts": child.restarts,
        }
        for child in children
    }
    return {"version": VERSION, "seconds": round(seconds, 3)} | books | {"services": services}


def verdict(report: dict[str, Any], *, expected: bool) -> list[str]:
    """What keeps a run from being a success: one phrase for each book that does not add up.

    A platform that nobody told to make faults answers in time: then SCMI commands that timed out are one more.
    ``expected``: it was told to.
    """
    wrong = [f"{part}: {report[part][key]} {key}" for part in PARTS for key in WRONG if report[part][key]]
    if report["scmi"]["timed_out"] and not expected:
        wrong.append(f"scmi: {report['scmi']['timed_out']} timed out")
    return wrong


def closing(report: dict[str, Any], wrong: list[str]) -> str:
    """The last line of a run. ``wrong`` is the verdict, and whatever else failed."""
    if wrong:
        return "FAILED: " + "; ".join(wrong)
    line = "nothing lost, nothing doubled, nothing corrupted"
    if late := report["scmi"]["timed_out"]:
        line += f"; {late} SCMI {'command' if late == 1 else 'commands'} timed out"
    return line


def summary(report: dict[str, Any]) -> str:
    """The report for people."""
    scmi, net, irq = (report[part] for part in PARTS)

    def times(part: dict[str, Any]) -> str:
        return f"p50 {part['p50']:.0f}, p90 {part['p90']:.0f}, p99 {part['p99']:.0f}, max {part['max']:.0f} µs"

    lines = [
        f"ran {report['seconds']:.1f} s",
        f"SCMI  {scmi['sent']} sent, {scmi['completed']} completed ({scmi['polled']} polled), "
        f"{scmi['notifications']} notifications, {scmi['timed_out']} timed out",
        f"      {scmi['re_executed']} executed again, {scmi['refused_after_reset']} refused after a reset; "
        f"round trip {times(scmi['rtt_us'])}",
        f"net   {net['tx']} frames out, {net['rx']} back, {net['map_changes']} map changes; "
        f"round trip {times(net['rtt_us'])}",
        f"      {net['re_executed']} sent again and {net['reset_dropped']} dropped by a reset",
        f"irq   {irq['raised']} raised, {irq['delivered']} delivered, {irq['coalesced']} coalesced; "
        f"latency {times(irq['latency_us'])}",
        f"its   {report['its']['commands']} commands",
    ]
    for part in PARTS:
        lines.append(f"{part:5} " + ", ".join(f"{key} {report[part][key]}" for key in WRONG))
    for name, cost in report["services"].items():
        lines.append(
            f"{name:5} {cost['cpu_seconds']:.1f} s CPU, {cost['rss_bytes'] / 1e6:.0f} MB, {cost['restarts']} restarts"
        )
    return "\n".join(lines)
