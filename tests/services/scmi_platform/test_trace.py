"""The platform's trace: what crossed a device, bounded, in Linux's format; and the hooks of the device core."""

from __future__ import annotations

import pytest

from common.errors import LocalError
from common.scmi import header
from common.scmi.status import STATUS
from services.linux_guest.ftrace import MessageDump, parse
from services.scmi_platform.trace import MOST, MOST_CAPACITY, Trace, TraceRequest

REQUEST = header.command(0x14, 0x6, 9, bytes(4))
REPLY = REQUEST[:4] + STATUS.pack(0) + b"\x01\x02"


def read(trace: Trace) -> list[MessageDump]:
    return parse("\n".join(trace.lines())).messages


def is_on(trace: Trace) -> bool:
    return trace.on


def test_a_command_and_its_answer() -> None:
    times = iter((1.0, 1.25))
    trace = Trace(lambda: next(times))
    trace.command(2, REQUEST)
    trace.sent(2, REPLY)
    assert read(trace) == [
        MessageDump(1.0, 0, "agent-2", 0x14, 6, 9, 0, 0x10, "CMND", 0, bytes(4)),
        MessageDump(1.25, 0, "agent-2", 0x14, 6, 9, 0, 0x10, "RESP", 0, b"\x01\x02"),
    ]


@pytest.mark.parametrize(
    ("message", "tag", "status", "payload"),
    [
        (REQUEST[:4] + STATUS.pack(-3), "RESP", -3, b""),
        (REQUEST[:4], "RESP", 0, b""),  # cut to its header
        (REQUEST[:4] + b"\xff\xff", "RESP", 0, b""),  # cut within its status
        (header.HEADER.pack(header.as_delayed(header.pack(0x15, 6, 1))) + STATUS.pack(-9) + b"z", "DLYD", -9, b"z"),
        (header.notification(0x15, 0, b"abcdef"), "NOTI", 0, b"abcdef"),
        (b"", "RESP", 0, b""),
    ],
)
def test_what_was_sent(message: bytes, tag: str, status: int, payload: bytes) -> None:
    trace = Trace(lambda: 0.0)
    trace.sent(1, message)
    (one,) = read(trace)
    assert (one.tag, one.status, one.payload) == (tag, status, payload)


def test_the_newest_stay_and_the_others_are_counted() -> None:
    trace = Trace(lambda: 0.0, 2)
    for token in range(5):
        trace.command(1, header.command(0x10, 0, token))
    assert [one.token for one in read(trace)] == [3, 4]
    answer = trace.answer(trace.drain())
    assert len(answer.pop("lines")) == 2
    assert answer == {"capacity": 2, "recorded": 5, "overwritten": 3}
    assert trace.lines() == []
    assert len(trace) == 0


def test_long_messages_are_cut() -> None:
    trace = Trace(lambda: 0.0)
    trace.command(1, REQUEST[:4] + bytes(4096))
    assert len(read(trace)[0].payload) == MOST - 4


def test_it_is_switched_at_run_time() -> None:
    trace = Trace(lambda: 0.0, 0)
    assert not is_on(trace)
    assert trace.change(TraceRequest(capacity=3)) == {"lines": [], "capacity": 3, "recorded": 0, "overwritten": 0}
    assert is_on(trace)
    for token in range(3):
        trace.command(1, header.command(0x10, 0, token))
    trace.resize(1)
    assert [one.token for one in read(trace)] == [2]
    trace.resize(0)
    assert not is_on(trace)
    assert trace.lines() == []
    for wrong in (-1, MOST_CAPACITY + 1):
        with pytest.raises(LocalError, match="are possible"):
            trace.resize(wrong)
    assert trace.capacity == 0
