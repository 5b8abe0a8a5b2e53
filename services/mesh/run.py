"""``ringmesh run`` and ``ringmesh up``: start the mesh, drive the workload, show it, stop it, report."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.live import Live

from common.errors import LocalError, RingmeshError
from services.mesh.children import Mesh
from services.mesh.scrape import Scraper
from services.mesh.table import Totals, head, queue_rows, render

REPORT_VERSION: Final = 1
#: Seconds between two rounds of the live table, and between two plain lines where stdout is no terminal.
REFRESH: Final = 1.0
PLAIN_EVERY: Final = 5.0


@dataclass(slots=True)
class RunOptions:
    """What the command line says."""

    seconds: float = 30.0
    guests: int = 1
    board: Path | None = None
    report: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)


def verdict(report: dict[str, Any]) -> list[str]:
    """What keeps a run from being a success: one phrase for each book that does not add up."""
    faults = []
    for part in ("scmi", "net", "irq"):
        faults += [
            f"{part}: {report[part][key]} {key}" for key in ("lost", "duplicated", "corrupted") if report[part][key]
        ]
    return faults


def summary(report: dict[str, Any]) -> str:
    """The report for people."""
    scmi, net, irq = report["scmi"], report["net"], report["irq"]

    def rtt(part: dict[str, Any]) -> str:
        return f"p50 {part['p50']:.0f}, p90 {part['p90']:.0f}, p99 {part['p99']:.0f}, max {part['max']:.0f} µs"

    lines = [
        f"ran {report['seconds']:.1f} s",
        f"SCMI  {scmi['sent']} sent, {scmi['completed']} completed ({scmi['polled']} polled), "
        f"{scmi['notifications']} notifications, {scmi['timed_out']} timed out",
        f"      {scmi['re_executed']} executed again, {scmi['refused_after_reset']} refused after a reset; "
        f"round trip {rtt(scmi['rtt_us'])}",
        f"net   {net['tx']} frames out, {net['rx']} back, {net['map_changes']} map changes; round trip {rtt(net['rtt_us'])}",
        f"      {net['re_executed']} sent again and {net['reset_dropped']} dropped by a reset",
        f"irq   {irq['raised']} raised, {irq['delivered']} delivered, {irq['coalesced']} coalesced; "
        f"latency {rtt(irq['latency_us'])}",
        f"its   {report['its']['commands']} commands",
    ]
    for part in ("scmi", "net", "irq"):
        books = report[part]
        lines.append(f"{part:5} lost {books['lost']}, duplicated {books['duplicated']}, corrupted {books['corrupted']}")
    for name, cost in report["services"].items():
        lines.append(
            f"{name:5} {cost['cpu_seconds']:.1f} s CPU, {cost['rss_bytes'] / 1e6:.0f} MB, {cost['restarts']} restarts"
        )
    return "\n".join(lines)


async def run(options: RunOptions) -> int:
    """The main job. Returns the exit code: 0 only if nothing was lost, doubled or corrupted."""
    console = Console(highlight=False, soft_wrap=True)
    mesh = Mesh(guests=options.guests, board=options.board, settings=options.settings, say=_sayer(console))
    stop = _stop_on_signal()
    report: dict[str, Any] | None = None
    try:
        await mesh.start()
        await mesh.post("guest", "/workload/start")
        began = time.monotonic()
        await _watch(mesh, options.seconds, began, stop, console)
        if not mesh.failed.is_set():
            console.print("stopping the workload and waiting for what is in flight …")
            parts = await mesh.post("guest", "/workload/stop")
            scraper = Scraper(mesh)
            await scraper.scrape()
            report = {"version": REPORT_VERSION, "seconds": round(time.monotonic() - began, 3)} | parts
            report["services"] = {
                role: {
                    "cpu_seconds": round(child.cpu_seconds, 2),
                    "rss_bytes": child.rss_bytes,
                    "restarts": child.restarts,
                }
                for role, child in mesh.children.items()
            }
    except (RingmeshError, aiohttp.ClientError, TimeoutError) as error:
        console.print(f"error: {error}")
    finally:
        await mesh.stop()
    if report is None:
        return 1
    if options.report is not None:
        options.report.write_text(json.dumps(report, indent=2) + "\n")
    console.print(summary(report))
    faults = verdict(report)
    console.print("nothing lost, nothing doubled, nothing corrupted" if not faults else "FAILED: " + "; ".join(faults))
    return 1 if faults else 0


async def up(options: RunOptions) -> int:
    """The mesh with its workload until Ctrl-C."""
    return await run(RunOptions(float("inf"), options.guests, options.board, options.report, options.settings))


def _sayer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text)


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _watch(mesh: Mesh, seconds: float, began: float, stop: asyncio.Event, console: Console) -> None:
    """Show the mesh until the time is over, a signal came or the mesh failed."""
    scraper = Scraper(mesh)
    before, last = Totals(0, 0, 0, 0), began
    live = Live(console=console, auto_refresh=False, transient=True) if sys.stdout.isatty() else None
    said = began
    if live is not None:
        live.start()
    try:
        while not (stop.is_set() or mesh.failed.is_set()):
            left = began + seconds - time.monotonic()
            if left <= 0:
                break
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, mesh.failed)]
            _, pending = await asyncio.wait(waits, timeout=min(left, REFRESH), return_when=asyncio.FIRST_COMPLETED)
            for future in pending:
                future.cancel()
            now = time.monotonic()
            if live is None and now - said < PLAIN_EVERY:
                continue
            said = now
            await scraper.scrape()
            try:
                books = await _books(mesh)
            except LocalError:
                continue
            line = head(now - began, seconds, books, before, now - last)
            before, last = Totals.of(books), now
            if live is not None:
                live.update(render(line, scraper, {r: c.restarts for r, c in mesh.children.items()}), refresh=True)
            else:
                console.print(line)
    finally:
        if live is not None:
            live.stop()
            for row in queue_rows(scraper):
                console.print("  ".join(row))


async def _books(mesh: Mesh) -> dict[str, Any]:
    """The guest's books as they stand."""
    assert mesh.http is not None
    try:
        async with mesh.http.get(mesh.children["guest"].admin + "/report") as answer:
            if answer.status != 200:
                raise LocalError(f"guest /report: {answer.status}")
            books: dict[str, Any] = await answer.json()
            return books
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LocalError(f"guest /report: {error}") from None
