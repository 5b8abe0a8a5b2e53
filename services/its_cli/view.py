"""What an ITS has mapped, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable

from common.gic.walk import Device, Event, Finding, Queue, Walk
from services.scmi_cli.view import NOTHING, Cell, Record, flag, plain

Table = tuple[str, list[Record]]


def about(walk: Walk) -> Record:
    """The ITS itself and its command queue."""
    queue, state = walk.queue, "enabled" if walk.enabled else "disabled"
    record = {
        "profile": plain(walk.profile),
        "its": Cell(walk.enabled, f"{state}, {counted(walk.cpus, 'vCPU')}"),
        "queue": Cell(None, "none" if queue is None else _queue(queue)),
    }
    if queue is not None and queue.waiting:
        shown = "; ".join(queue.commands)
        more = queue.waiting - len(queue.commands)
        record["waiting"] = plain(shown + (f"; … and {more} more" if more else ""))
    mapped = counted(len(walk.devices), "device"), counted(len(events(walk)), "event")
    record["mapped"] = plain(", ".join((*mapped, counted(len(walk.collections), "collection"))))
    return record


def _queue(queue: Queue) -> str:
    where = f"{queue.address:#x}, {queue.size} bytes, CREADR {queue.creadr:#x}, CWRITER {queue.cwriter:#x}"
    waiting = f"{counted(queue.waiting, 'command')} waiting" if queue.waiting else "at rest"
    return f"{where}: {'stalled, ' * queue.stalled}{waiting}"


def tables(walk: Walk) -> list[Table]:
    """Title and rows of each table that has any."""
    found = [
        ("devices", [_device(device) for device in walk.devices]),
        ("events", [_event(device, event) for device, event in events(walk)]),
        ("collections", [{"collection": plain(each.icid), "vcpu": vcpu(each.vcpu)} for each in walk.collections]),
        ("pending LPIs of no event there", [{"lpi": plain(lpi), "vcpu": plain(cpu)} for cpu, lpi in stray(walk)]),
        ("findings", list(_findings(walk))),
    ]
    return [(title, rows) for title, rows in found if rows]


def events(walk: Walk) -> list[tuple[Device, Event]]:
    return [(device, event) for device in walk.devices for event in device.events]


def stray(walk: Walk) -> list[tuple[int, int]]:
    """(vCPU, LPI) that are pending where no event is mapped to."""
    mapped = {(event.vcpu, event.intid) for _, event in events(walk)}
    return [(cpu, lpi) for cpu, lpis in enumerate(walk.pending) for lpi in lpis if (cpu, lpi) not in mapped]


def vcpu(number: int | None) -> Cell:
    return Cell(None, "not mapped") if number is None else plain(number)


def counted(number: int, of: str) -> str:
    """``3 devices``."""
    return f"{number} {of}{'' if number == 1 else 's'}"


def _device(device: Device) -> Record:
    return {
        "device": Cell(device.device, f"{device.device:#x}"),
        "itt": Cell(device.itt, f"{device.itt:#x}"),
        "event bits": plain(device.bits),
        "events": plain(len(device.events)),
    }


def _event(device: Device, event: Event) -> Record:
    return {
        "device": Cell(device.device, f"{device.device:#x}"),
        "event": plain(event.event),
        "lpi": plain(event.intid),
        "collection": plain(event.icid),
        "vcpu": vcpu(event.vcpu),
        "enabled": NOTHING if event.enabled is None else flag(event.enabled),
        "priority": NOTHING if event.priority is None else Cell(event.priority, f"{event.priority:#04x}"),
        "pending": Cell(event.pending, "pending" if event.pending else "-"),
    }


def _findings(walk: Walk) -> Iterable[Record]:
    for finding in walk.findings:
        yield _finding(finding)
    if walk.more_findings:
        yield {"address": NOTHING, "finding": plain(f"… and {walk.more_findings} more")}


def _finding(finding: Finding) -> Record:
    return {"address": Cell(finding.address, f"{finding.address:#x}"), "finding": plain(finding.reason)}
