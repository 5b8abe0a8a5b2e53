"""A guest's trace as a ladder, alone and beside the platform's."""

from __future__ import annotations

from common.scmi.header import pack
from common.scmi.trace_lines import dump_line
from services.linux_guest.ftrace import parse
from services.linux_guest.trace_ladder import PLATFORM, ladder, merge
from tests.services.linux_guest.test_ftrace import REAL

WORD = pack(0x14, 0x6, 0x30)
REPLY = bytes.fromhex("00366e0100000000")


def platform(reply: bytes = REPLY) -> str:
    return "\n".join(
        [dump_line(9.0, "agent", WORD, "CMND", 0, bytes(4)), dump_line(9.1, "agent", WORD, "RESP", -2, reply)]
    )


def test_a_column_a_processor() -> None:
    lines = ladder(parse(REAL).events).splitlines()
    assert lines[0].split() == ["cpu0", "cpu1"]
    left = [line for line in lines[2:-1] if line[:1] != " "]
    assert left == [
        "0.28 ← RESP CLOCK_RATE_GET #48",
        "0.29 received CLOCK_RATE_GET #48",
    ]
    right = [line.strip() for line in lines[2:-1] if line[:1] == " "]
    assert right[:3] == [
        "0.00 begin CLOCK_RATE_GET #48 poll",
        "0.03 → CMND CLOCK_RATE_GET #48 00000000",
        "0.05 wait CLOCK_RATE_GET #48 60 s",
    ]
    assert right[-1] == "5.56 end CLOCK_RATE_GET #48 -22"


def test_the_platforms_rows_stand_between_request_and_answer() -> None:
    guest, ours = parse(REAL).events, parse(platform()).messages
    lanes = [(lane, type(event).__name__) for lane, event in merge(guest, ours)]
    assert lanes == [
        ("cpu1", "XferBegin"),
        ("cpu1", "MessageDump"),
        ("cpu1", "ResponseWait"),
        (PLATFORM, "MessageDump"),
        (PLATFORM, "MessageDump"),
        ("cpu0", "MessageDump"),
        ("cpu0", "RxDone"),
        ("cpu1", "XferEnd"),
    ]


def test_the_last_line_judges() -> None:
    guest = parse(REAL).events
    assert ladder(guest, parse(platform()).messages).splitlines()[-1] == "guest and platform agree on 2 messages"
    drawn = ladder(guest, parse(platform(b"\x07")).messages)
    assert drawn.splitlines()[-1] == ("!! RESP CLOCK_RATE_GET #48: 00366e0100000000 in the guest, 07 in the platform")
    assert "← CMND CLOCK_RATE_GET #48 00000000" in drawn  # what the guest sends, the platform receives


def test_what_the_guest_never_saw_stands_at_the_end() -> None:
    begin = "\n".join(REAL.splitlines()[:7])
    steps = merge(parse(begin).events, parse(platform()).messages)
    assert [lane for lane, _ in steps][-2:] == [PLATFORM, PLATFORM]
    assert "→ RESP CLOCK_RATE_GET #48 INVALID_PARAMETERS" in ladder(parse(begin).events, parse(platform()).messages)


def test_thrown_away_and_long_payloads() -> None:
    lines = [
        dump_line(1.0, "t", WORD, "!RESP", -1, b""),
        dump_line(1.0, "t", pack(0x15, 0, 0, 3), "NOTI", 0, bytes(20)),
    ]
    drawn = ladder(parse("\n".join(lines)).events)
    assert "← !RESP CLOCK_RATE_GET #48 thrown away" in " ".join(drawn.split())
    assert "← NOTI SENSOR_TRIP_POINT_EVENT #0 " + "0" * 32 + "…" in " ".join(drawn.split())


def test_nothing() -> None:
    assert ladder([]) == "\n\n\n"
