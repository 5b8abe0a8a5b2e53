"""The guest's console, fed in pieces of any size."""

from __future__ import annotations

import pytest

from services.linux_guest.console import MAX_LINE, Banner, Console, Section

TEXT = """\
[    0.780859] arm-scmi arm-scmi.0.auto: SCMI Protocol v2.1 'ringmesh:virt' Firmware version 0x10000\r
GUEST-INIT uptime 1.04\r
@begin scmi\r
transport/is_atomic: Y\r
transport/counters/sent_ok: 111\r
offset: -5\r
@end other status 0\r
@end scmi status 0\r
@begin run 1\r
@end run 1 status 3\r
GUEST-READY uptime 2.5\r
"""


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_marks_and_sections(size: int) -> None:
    console, data = Console(), TEXT.encode()
    lines = [line for at in range(0, len(data), size) for line in console.feed(data[at : at + size])]
    assert lines == TEXT.replace("\r", "").splitlines() == list(console.lines)
    assert console.banner == Banner(2, 1, "ringmesh", "virt", 0x10000)
    assert (console.started, console.ready) == (1.04, 2.5)
    found = console.section("scmi")
    assert found is not None
    assert found.values() == {"transport/is_atomic": "Y", "transport/counters/sent_ok": "111", "offset": "-5"}
    assert found.numbers() == {"transport/counters/sent_ok": 111, "offset": -5}
    assert found.lines[-1] == "@end other status 0"  # not our own end
    assert console.section("run 1") == Section("run 1", 3, ())
    assert console.section("run 2") is None
    assert console.count == 2


def test_marks_within_a_section_are_its_text() -> None:
    console = Console()
    console.feed(b"@begin x\nGUEST-READY uptime 1\n@begin y\n@end x status 0\n")
    assert console.ready is None
    assert [one.name for one in console.sections] == ["x"]


def test_the_last_section_of_a_name_counts() -> None:
    console = Console()
    console.feed(b"@begin x\none\n@end x status 0\n@begin x\ntwo\n@end x status 0\n")
    found = console.section("x")
    assert found is not None
    assert found.text == "two"


def test_an_unfinished_section_is_none() -> None:
    console = Console()
    console.feed(b"@begin x\none\n")
    assert console.section("x") is None


def test_control_characters_go() -> None:
    assert Console().feed(b"\x1b[2J\x1b[1;31mred\x1b[0m\x00\x07 \xff\n") == ["red \ufffd"]


def test_a_line_without_end_is_cut() -> None:
    console = Console()
    lines = console.feed(b"x" * (2 * MAX_LINE + 10)) + console.feed(b"y\n")
    assert [len(line) for line in lines] == [MAX_LINE, MAX_LINE, 11]


def test_an_uptime_that_is_none_is_zero() -> None:
    console = Console()
    console.feed(b"GUEST-READY uptime soon\n")
    assert console.ready == 0.0
