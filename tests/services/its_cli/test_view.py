"""The tables that a person reads."""

from __future__ import annotations

from typing import Any

from common.gic.commands import INT, Command, encode
from common.gic.registers import CREADR_STALLED
from common.gic.walk import MAX_FINDINGS, Walk, walk
from services.its_cli.view import about, counted, stray, tables
from tests.common.gic.its_memory import QUEUE, SMALL, Mapping, Profile, memory_of


def found(mapping: Mapping = SMALL, profile: Profile = "kvm", **its: int) -> Walk:
    memory, saved = memory_of(mapping, profile)
    memory.write(QUEUE + 0x40, encode(Command(INT, device=2, event=20)) * 20)
    saved.its |= its
    return walk(saved, memory.read)


def texts(walked: Walk) -> dict[str, list[dict[str, str]]]:
    return {title: [{name: cell.text for name, cell in row.items()} for row in rows] for title, rows in tables(walked)}


def lines(walked: Walk) -> dict[str, str]:
    return {name: cell.text for name, cell in about(walked).items()}


class TestAbout:
    def test_at_rest(self) -> None:
        assert lines(found()) == {
            "profile": "kvm",
            "its": "enabled, 4 vCPUs",
            "queue": "0x40000000, 65536 bytes, CREADR 0x40, CWRITER 0x40: at rest",
            "mapped": "2 devices, 2 events, 2 collections",
        }

    def test_waiting_and_stalled(self) -> None:
        shown = lines(found(GITS_CWRITER=0x60, GITS_CREADR=0x40 | CREADR_STALLED))
        assert shown["queue"].endswith("CREADR 0x40, CWRITER 0x60: stalled, 1 command waiting")
        assert shown["waiting"] == "INT device=0x2 event=0x14"

    def test_many_waiting(self) -> None:
        shown = lines(found(GITS_CWRITER=0x40 + 20 * 32))
        assert shown["queue"].endswith(": 20 commands waiting")
        assert shown["waiting"].endswith("; … and 12 more")

    def test_no_queue_and_disabled(self) -> None:
        shown = lines(found(GITS_CBASER=0, GITS_CTLR=0))
        assert (shown["its"], shown["queue"]) == ("disabled, 4 vCPUs", "none")


class TestTables:
    def test_events(self) -> None:
        shown = texts(found())
        assert list(shown) == ["devices", "events", "collections"]
        assert shown["devices"][0] == {"device": "0x2", "itt": "0x40600000", "event bits": "8", "events": "1"}
        row: dict[str, Any] = {"event": "20", "lpi": "8195", "collection": "3", "vcpu": "3", "priority": "0xa0"}
        assert shown["events"][0] == {"device": "0x2", **row, "enabled": "on", "pending": "pending"}
        assert shown["events"][1]["enabled"] == "off"
        assert shown["events"][1]["pending"] == "-"
        assert shown["collections"] == [{"collection": "2", "vcpu": "2"}, {"collection": "3", "vcpu": "3"}]

    def test_nothing_at_all(self) -> None:
        assert texts(found(Mapping({}, {}))) == {}

    def test_a_collection_that_is_not_mapped(self) -> None:
        shown = texts(found(Mapping({1: (1, {0: (8192, 5)})}, {5: None})))
        assert shown["events"][0]["vcpu"] == shown["collections"][0]["vcpu"] == "not mapped"

    def test_pending_where_no_event_is_mapped_to(self) -> None:
        mapping = Mapping(SMALL.devices, SMALL.collections, {(3, 8195), (2, 8196), (0, 8195), (1, 9000)})
        assert stray(found(mapping)) == [(0, 8195), (1, 9000)]
        assert texts(found(mapping))["pending LPIs of no event there"] == [
            {"lpi": "8195", "vcpu": "0"}, {"lpi": "9000", "vcpu": "1"},
        ]  # fmt: skip

    def test_findings(self) -> None:
        many = Mapping({1: (8, dict.fromkeys(range(MAX_FINDINGS + 3), (1, 2)))}, {2: 0})
        shown = texts(found(many))
        assert shown["findings"][0]["finding"] == "device 0x1 event 0: INTID 1 is no LPI, 8192 to 65535"
        assert shown["findings"][0]["address"] == "0x40600000"
        assert shown["findings"][-1] == {"address": "-", "finding": "… and 3 more"}
        assert (shown["events"][0]["enabled"], shown["events"][0]["priority"]) == ("-", "-")


def test_counted() -> None:
    assert [counted(number, "event") for number in (0, 1, 2)] == ["0 events", "1 event", "2 events"]
