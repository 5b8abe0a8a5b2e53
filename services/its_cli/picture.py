"""What an ITS has mapped, as a picture: device → event → LPI → collection → vCPU, in one self-contained SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from statistics import fmean
from typing import Final, NamedTuple, TypeVar
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from common.gic.walk import Device, Event, Walk
from services.its_cli.view import counted, stray

K = TypeVar("K")

#: Rows of events, and boxes of any other column, that are drawn; the rest is counted.
MOST: Final = 240
#: LPIs that the line about stray ones names.
_NAMED: Final = 12

_ROW: Final = 22
_BOX: Final = 16
_TOP: Final = 104
_LEFT: Final = 24
_GAP: Final = 80
#: Column → its width.
_COLUMNS: Final = {"device": 90, "event": 90, "LPI": 200, "collection": 130, "vCPU": 130}
_EDGES: Final = list(accumulate(_COLUMNS.values(), lambda x, width: x + width + _GAP, initial=_LEFT))
_X: Final = dict(zip(_COLUMNS, _EDGES, strict=False))
_TOTAL: Final = _EDGES[-1] - _GAP + _LEFT

_STYLE: Final = """
svg{background:#fff}text{font:12px ui-monospace,monospace;fill:#1c2430}
.title{font:600 16px system-ui,sans-serif}.head{font-weight:600}.more{fill:#6b6b6b}.bad{fill:#a11}
rect{fill:#e8eff8;stroke:#7d8ea3}.pending rect{fill:#ffd666;stroke:#a86a00}
.off rect{fill:#efefef;stroke:#9a9a9a;stroke-dasharray:3 2}.off text{fill:#6b6b6b}
.pending.off rect{fill:#ffefc0;stroke:#a86a00}.unmapped rect{fill:#fff;stroke:#a11;stroke-dasharray:3 2}
path{fill:none;stroke:#7d8ea3}path.pending{stroke:#d08700;stroke-width:2}path.off{stroke-dasharray:3 2}
""".strip()

_LEGEND: Final = (
    ("", "mapped"),
    ("pending", "pending"),
    ("off", "LPI disabled"),
    ("pending off", "pending, disabled"),
    ("unmapped", "not mapped to a vCPU"),
)


class _Row(NamedTuple):
    """A row of events. ``event`` is None for a device that has none."""

    device: Device
    event: Event | None
    y: float


def svg(walk: Walk, title: str) -> str:
    """SVG text; refers to nothing outside itself."""
    return _Picture(walk).text(title)


class _Picture:
    def __init__(self, walk: Walk) -> None:
        self._walk: Final = walk
        self._root: Final = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        self._rows: Final = list(_rows(walk))
        self._bottom: float = _TOP
        #: edges are below the boxes
        self._edges: Final = SubElement(self._root, "g")
        self._boxes: Final = SubElement(self._root, "g")
        lpis = self._devices()
        self._vcpus(self._collections(lpis))
        self._left_out()

    def text(self, title: str) -> str:
        root, width = self._root, _TOTAL
        named = Element("title")
        named.text = title
        style = Element("style")
        style.text = _STYLE
        root[:0] = [named, style]
        self._line(root, 26, title, "title")
        x: float = _LEFT
        for kind, meaning in _LEGEND:
            SubElement(SubElement(root, "g", {"class": kind}), "rect", _place(x, 50, 22, 12))
            _write(root, x + 28, 50, meaning)
            x += 50 + 7.5 * len(meaning)
        for column in _COLUMNS:
            _write(root, _X[column], 82, column, "head")
        self._footer()
        self._edges[:] = sorted(self._edges, key=lambda edge: "pending" in edge.get("class", ""))  # these on top
        height = round(self._bottom + _ROW)
        root.attrib |= {"viewBox": f"0 0 {width} {height}", "width": str(width), "height": str(height)}
        indent(root)
        return tostring(root, encoding="unicode") + "\n"

    # --- columns, from left to right ----------------------------------------------------------------------------------

    def _devices(self) -> dict[int, tuple[float, list[Event]]]:
        """Devices, their events and LPIs; returns LPI → where it was drawn, its events."""
        lpis: dict[int, tuple[float, list[Event]]] = {}
        by_device: dict[int, list[_Row]] = {}
        for row in self._rows:
            by_device.setdefault(row.device.device, []).append(row)
        for number, rows in by_device.items():
            y = fmean(row.y for row in rows)
            self._box(
                "device", y, f"{number:#x}", hint=f"ITT {rows[0].device.itt:#x}, {rows[0].device.bits} event bits"
            )
            for row in rows:
                if row.event is not None:
                    self._edge("device", y, "event", row.y, _state(row.event))
                    self._box("event", row.y, str(row.event.event), _state(row.event))
                    at, events = lpis.setdefault(row.event.intid, (row.y, []))
                    events.append(row.event)
                    self._edge("event", row.y, "LPI", at, _state(row.event))
        for intid, (y, events) in lpis.items():
            state = _state(*events)
            icids = ", ".join(str(icid) for icid in dict.fromkeys(event.icid for event in events))
            text = " ".join((f"{intid} → {icids}", *state.split()))
            self._box("LPI", y, text, state, hint=f"priority {events[0].priority}")
        return lpis

    def _collections(self, lpis: Mapping[int, tuple[float, list[Event]]]) -> dict[int | None, list[float]]:
        """Collections and the edges to them; returns vCPU → where its collections were drawn."""
        wanted: dict[int, list[float]] = {}
        edges: dict[tuple[float, int], list[Event]] = {}
        for y, events in lpis.values():
            for event in events:
                wanted.setdefault(event.icid, []).append(y)
                edges.setdefault((y, event.icid), []).append(event)
        places = {each.icid: each.vcpu for each in self._walk.collections}
        idle = [icid for icid in places if icid not in wanted]
        ys = self._spread(wanted, idle, "collection")
        vcpus: dict[int | None, list[float]] = {}
        for icid, y in ys.items():
            vcpu = places.get(icid)
            state = "unmapped" if vcpu is None else ""
            self._box("collection", y, f"{icid}{' unmapped' if state else ''}", state)
            vcpus.setdefault(vcpu, []).append(y)
        for (y, icid), events in edges.items():
            self._edge("LPI", y, "collection", ys[icid], _state(*events))
        return vcpus

    def _vcpus(self, wanted: Mapping[int | None, list[float]]) -> None:
        mapped = {vcpu: ys for vcpu, ys in wanted.items() if vcpu is not None}
        for vcpu, y in self._spread(mapped, [], "vCPU").items():
            waiting = len(self._walk.pending[vcpu])
            text = f"{vcpu}{f' ({waiting} pending)' if waiting else ''}"
            self._box("vCPU", y, text, "pending" if waiting else "")
            for from_y in mapped[vcpu]:
                self._edge("collection", from_y, "vCPU", y, "")

    def _spread(self, wanted: Mapping[K, list[float]], idle: Iterable[K], column: str) -> dict[K, float]:
        """Where each box goes: over the whole height, in the order of what leads to them; the others last."""
        middle = {key: fmean(ys) for key, ys in wanted.items()}
        order = [*sorted(middle, key=middle.__getitem__), *idle]
        shown = order[:MOST]
        step = max(len(self._rows) / max(len(shown), 1), 1) * _ROW
        if len(order) > MOST:
            self._more(column, _TOP + MOST * step, counted(len(order) - MOST, column))
        return {key: _TOP + step * at + (step - _ROW) / 2 for at, key in enumerate(shown)}

    # --- what is not drawn --------------------------------------------------------------------------------------------

    def _left_out(self) -> None:
        events = sum(len(device.events) for device in self._walk.devices)
        drawn = sum(row.event is not None for row in self._rows)
        devices = len(self._walk.devices) - len({row.device.device for row in self._rows})
        y = _TOP + len(self._rows) * _ROW
        if devices:
            self._more("device", y, counted(devices, "device"))
        if events > drawn:
            self._more("event", y, counted(events - drawn, "event"))

    def _more(self, column: str, y: float, what: str) -> None:
        number, name = what.split()
        _write(self._boxes, _X[column], y + 4, f"… and {number} more {name}", "more")
        self._bottom = max(self._bottom, y)

    def _footer(self) -> None:
        left = stray(self._walk)
        if left:
            named = ", ".join(f"{lpi} at vCPU {vcpu}" for vcpu, lpi in left[:_NAMED])
            more = f" … and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            self._note(f"pending, of no event that is mapped there: {named}{more}", "more")
        found = len(self._walk.findings) + self._walk.more_findings
        if found:
            self._note(f"{counted(found, 'finding')}; the first: {self._walk.findings[0].reason}", "bad")

    def _note(self, text: str, kind: str) -> None:
        self._bottom += 1.5 * _ROW
        self._line(self._root, self._bottom, text, kind)

    # --- shapes -------------------------------------------------------------------------------------------------------

    def _line(self, parent: Element, y: float, text: str, kind: str) -> None:
        """Text as wide as the picture at most."""
        _write(parent, _LEFT, y, text if len(text) <= 120 else text[:119] + "…", kind)

    def _box(self, column: str, y: float, text: str, state: str = "", hint: str = "") -> None:
        group = SubElement(self._boxes, "g", {"class": state} if state else {})
        if hint:
            SubElement(group, "title").text = hint
        SubElement(group, "rect", _place(_X[column], y, _COLUMNS[column], _BOX), rx="3")
        _write(group, _X[column] + 6, y, text)
        self._bottom = max(self._bottom, y)

    def _edge(self, column: str, y: float, to: str, to_y: float, state: str) -> None:
        start, end = _X[column] + _COLUMNS[column], _X[to]
        middle = (start + end) / 2
        curve = f"M{start} {y:g}C{middle:g} {y:g} {middle:g} {to_y:g} {end} {to_y:g}"
        SubElement(self._edges, "path", {"d": curve} | ({"class": state} if state else {}))


def _rows(walk: Walk) -> Iterator[_Row]:
    at = 0
    for device in walk.devices:
        for event in (*device.events, *[None] * (not device.events)):
            if at == MOST:
                return
            yield _Row(device, event, _TOP + at * _ROW)
            at += 1


def _state(*events: Event) -> str:
    """Class of what these events share."""
    pending = any(event.pending for event in events)
    off = all(event.enabled is False for event in events)
    return " ".join(["pending"] * pending + ["off"] * off)


def _place(x: float, y: float, width: float, height: float) -> dict[str, str]:
    """A rectangle with its middle at ``y``."""
    return {"x": f"{x:g}", "y": f"{y - height / 2:g}", "width": f"{width:g}", "height": f"{height:g}"}


def _write(parent: Element, x: float, y: float, text: str, kind: str = "") -> None:
    """A line of text whose middle is at ``y``."""
    SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y + 4:g}"} | ({"class": kind} if kind else {})).text = text
