"""The picture: well-formed, complete up to a limit, and what is drawn is what is mapped."""

from __future__ import annotations

from xml.etree import ElementTree

from common.gic.walk import Walk, walk
from services.its_cli.picture import MOST, svg
from tests.common.gic.its_memory import SMALL, Mapping, memory_of

NS = {"s": "http://www.w3.org/2000/svg"}


def found(mapping: Mapping) -> Walk:
    memory, saved = memory_of(mapping, "kvm")
    return walk(saved, memory.read)


class Drawn:
    def __init__(self, mapping: Mapping, title: str = "ITS") -> None:
        self.text = svg(found(mapping), title)
        self.root = ElementTree.fromstring(self.text)
        self.edges, self.boxes = self.root.findall("s:g", NS)[:2]

    def texts(self) -> list[str]:
        return [text.text or "" for text in self.root.iterfind(".//s:text", NS)]

    def box(self, text: str) -> ElementTree.Element:
        (one,) = [group for group in self.boxes.findall("s:g", NS) if group.findtext("s:text", "", NS) == text]
        return one

    def columns(self) -> dict[float, list[str]]:
        """Texts of the boxes by their x."""
        columns: dict[float, list[str]] = {}
        for group in self.boxes.findall("s:g", NS):
            rect, text = group.find("s:rect", NS), group.findtext("s:text", "", NS)
            assert rect is not None
            columns.setdefault(float(rect.attrib["x"]), []).append(text)
        return columns

    def classes(self) -> list[str]:
        return sorted(path.get("class", "") for path in self.edges.findall("s:path", NS))


def test_small() -> None:
    drawn = Drawn(SMALL)
    assert [sorted(texts) for _, texts in sorted(drawn.columns().items())] == [
        ["0x2", "0x7"],
        ["20", "255"],
        ["8195 → 3 pending", "8196 → 2 off"],
        ["2", "3"],
        ["2", "3 (1 pending)"],
    ]
    assert drawn.box("8195 → 3 pending").get("class") == "pending"
    assert drawn.box("8196 → 2 off").get("class") == "off"
    assert drawn.box("0x2").findtext("s:title", "", NS) == "ITT 0x40600000, 8 event bits"
    assert drawn.box("8195 → 3 pending").findtext("s:title", "", NS) == "priority 160"
    assert drawn.classes() == ["", "", *["off"] * 3, *["pending"] * 3]
    for words in ("pending", "LPI disabled", "not mapped to a vCPU", "device", "event", "LPI", "collection", "vCPU"):
        assert words in drawn.texts()


def test_what_is_pending_lies_on_top() -> None:
    drawn = Drawn(SMALL)
    assert [path.get("class") for path in drawn.edges][-3:] == ["pending"] * 3


def test_a_title_is_escaped() -> None:
    drawn = Drawn(SMALL, 'a <b> & "c"')
    assert drawn.root.findtext("s:title", "", NS) == 'a <b> & "c"'
    assert "x" * 119 + "…" in Drawn(SMALL, "x" * 200).texts()


def test_events_that_share_an_lpi() -> None:
    drawn = Drawn(Mapping({1: (2, {0: (8192, 1), 1: (8192, 2), 2: (8193, 1)})}, {1: 0, 2: 0}, disabled={8192}))
    columns = [texts for _, texts in sorted(drawn.columns().items())]
    assert columns[2] == ["8192 → 1, 2 off", "8193 → 1"]
    assert columns[4] == ["0"]
    assert len(drawn.classes()) == 3 + 3 + 3 + 2


def test_a_shared_lpi_that_is_pending_for_one_of_its_events() -> None:
    mapping = Mapping({1: (2, {0: (8192, 1), 1: (8192, 2)})}, {1: 0, 2: 1}, {(1, 8192)})
    drawn = Drawn(mapping)
    assert drawn.box("8192 → 1, 2 pending").get("class") == "pending"
    walked = found(mapping)
    walked.devices[0].events[0].enabled = False
    assert "8192 → 1, 2 pending<" in svg(walked, ""), "on for the other"


def test_edges_go_from_box_to_box() -> None:
    drawn = Drawn(SMALL)
    places = [{name: float(value) for name, value in rect.items()} for rect in _rects(drawn)]
    right = {(place["x"] + place["width"], place["y"] + place["height"] / 2) for place in places}
    left = {(place["x"], place["y"] + place["height"] / 2) for place in places}
    for path in drawn.edges:
        numbers = [float(word) for word in path.attrib["d"].replace("M", "").replace("C", " ").split()]
        assert (numbers[0], numbers[1]) in right
        assert (numbers[-2], numbers[-1]) in left


def _rects(drawn: Drawn) -> list[dict[str, str]]:
    return [rect.attrib for rect in drawn.boxes.iterfind("s:g/s:rect", NS)]


def test_pending_and_disabled() -> None:
    drawn = Drawn(Mapping({1: (2, {0: (8192, 1)})}, {1: 0}, {(0, 8192)}, {8192}))
    assert drawn.box("8192 → 1 pending off").get("class") == "pending off"


def test_nothing_leads_to_a_vcpu() -> None:
    drawn = Drawn(Mapping({1: (2, {0: (8192, 1)}), 2: (1, {})}, {1: None, 9: 3}, {(0, 8200)}))
    assert drawn.box("1 unmapped").get("class") == "unmapped"
    assert drawn.columns()[min(drawn.columns())] == ["0x1", "0x2"], "a device without events has a row"
    assert drawn.box("9").get("class") is None
    assert any("8200 at vCPU 0" in text for text in drawn.texts())
    assert len(drawn.classes()) == 4


def test_an_unknown_collection_and_findings() -> None:
    drawn = Drawn(Mapping({1: (2, {0: (8192, 7)})}, {}))
    assert drawn.box("7 unmapped").get("class") == "unmapped"
    assert drawn.texts()[-1] == "1 finding; the first: device 0x1 event 0: there is no collection 7"


def test_many_pending_lpis_of_no_event() -> None:
    drawn = Drawn(Mapping({}, {}, {(0, 8192 + n) for n in range(15)}))
    assert "… and 3 more" in drawn.texts()[-1] or drawn.texts()[-1].endswith("…")


def test_an_its_without_anything() -> None:
    drawn = Drawn(Mapping({}, {}))
    assert len(drawn.boxes) == len(drawn.edges) == 0


def test_two_hundred_events_each_have_a_row() -> None:
    devices = {d: (6, {n: (8192 + 64 * d + n, d) for n in range(40)}) for d in range(5)}
    drawn = Drawn(Mapping(devices, dict.fromkeys(range(5), 0)))
    columns = [texts for _, texts in sorted(drawn.columns().items())]
    assert [len(texts) for texts in columns] == [5, 200, 200, 5, 1]
    rects = _rects(drawn)
    assert len({(rect["x"], rect["y"]) for rect in rects}) == len(rects), "none lies on another"
    assert not any("more" in text for text in drawn.texts())
    first, *_, fourth, _ = sorted({float(rect["x"]) for rect in rects})
    ys = {x: [rect["y"] for rect in rects if float(rect["x"]) == x] for x in (first, fourth)}
    assert ys[first] == ys[fourth], "each collection stands beside its device"
    height = float(drawn.root.attrib["height"])
    assert all(float(rect["y"]) + float(rect["height"]) <= height for rect in rects)


def test_more_than_can_be_drawn_is_counted() -> None:
    devices = {d: (8, {n: (8192 + 256 * d + n, d) for n in range(200)}) for d in range(3)}
    drawn = Drawn(Mapping(devices, dict.fromkeys(range(300), 0)))
    columns = [texts for _, texts in sorted(drawn.columns().items())]
    assert [len(texts) for texts in columns] == [2, MOST, MOST, MOST, 1]
    assert [text for text in drawn.texts() if "more" in text] == [
        "… and 60 more collections", "… and 1 more device", f"… and {600 - MOST} more events",
    ]  # fmt: skip
