"""ftrace's text into events: lines of a real 6.12 kernel, of older ones, of our own traces, and broken ones."""

from __future__ import annotations

from common.scmi.header import pack
from common.scmi.trace_lines import dump_line, event_line
from services.linux_guest.ftrace import MessageDump, ResponseWait, RxDone, XferBegin, XferEnd, parse

#: From Linux 6.12.117 on our platform.
REAL = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 907/907   #P:2
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
            init-62      [001] .....     1.214404: scmi_xfer_begin: pt=14 msg_id=06 seq=0030 transfer_id=430 poll=1
            init-62      [001] .....     1.214437: scmi_msg_dump: id=0 ch=10 pt=14 t=CMND msg_id=06 seq=0030 s=0 pyld=00000000
            init-62      [001] .....     1.214452: scmi_xfer_response_wait: pt=14 msg_id=06 seq=0030 transfer_id=430 tmo_ms=60000 poll=0
          <idle>-0       [000] d.h..     1.214685: scmi_msg_dump: id=0 ch=10 pt=14 t=RESP msg_id=06 seq=0030 s=-2 pyld=00366e0100000000
          <idle>-0       [000] d.h..     1.214691: scmi_rx_done: pt=14 msg_id=06 seq=0030 transfer_id=430 msg_type=0
            init-62      [001] .....     1.219965: scmi_xfer_end: pt=14 msg_id=06 seq=0030 transfer_id=430 s=-22
"""  # noqa: E501


def test_a_transfer_of_a_real_kernel() -> None:
    trace = parse(REAL)
    assert (trace.unread, trace.lost) == (0, 0)
    where = (1.214404, 1, "init-62", 0x14, 0x06, 0x30)
    assert trace.events == [
        XferBegin(*where, transfer=0x430, poll=True, inflight=None),
        MessageDump(1.214437, *where[1:], instance=0, channel=0x10, tag="CMND", status=0, payload=bytes(4)),
        ResponseWait(1.214452, *where[1:], transfer=0x430, timeout=60.0, poll=False),
        MessageDump(
            1.214685, 0, "<idle>-0", *where[3:], instance=0, channel=0x10, tag="RESP", status=-2,
            payload=bytes.fromhex("00366e0100000000"),
        ),
        RxDone(1.214691, 0, "<idle>-0", *where[3:], transfer=0x430, type=0),
        XferEnd(1.219965, *where[1:], transfer=0x430, status=-22, inflight=None),
    ]  # fmt: skip
    assert [one.tag for one in trace.messages] == ["CMND", "RESP"]


def test_newer_kernels_say_how_many_are_in_flight() -> None:
    head = "            init-1       [000] .....     1.5: "
    begin, end = parse(
        f"{head}scmi_xfer_begin: pt=10 msg_id=00 seq=0001 transfer_id=1 poll=0 inflight=3\n"
        f"{head}scmi_xfer_end: pt=10 msg_id=00 seq=0001 transfer_id=1 s=0 inflight=2\n"
    ).events
    assert isinstance(begin, XferBegin)
    assert isinstance(end, XferEnd)
    assert (begin.inflight, end.inflight) == (3, 2)


def test_other_columns_and_task_names() -> None:
    dump = "scmi_msg_dump: id=1 ch=11 pt=15 t=!dlyd msg_id=06 seq=000A s=-1 pyld="
    without_irq_info = f"  kworker/0:1-evm-12 [003] 100.25: {dump}"
    with_tgid = f"  a b-c-7 (     7) [002] d.h.. 100.25: {dump}"
    first, second = parse(f"{without_irq_info}\n{with_tgid}\n").messages
    assert (first.task, first.cpu) == ("kworker/0:1-evm-12", 3)
    assert (second.task, second.cpu) == ("a b-c-7", 2)
    assert (first.kind, first.thrown_away, first.payload, first.instance, first.channel) == ("DLYD", True, b"", 1, 0x11)


def test_what_our_own_traces_say_is_read() -> None:
    word = pack(0x14, 0x5, 7)
    lines = [
        dump_line(2.5, "agent", word, "RESP", -3, b"\x01", pid=2),
        event_line(2.5, "guest0", "scmi_xfer_begin", word, 9, True, 4),
        event_line(2.5, "guest0", "scmi_xfer_response_wait", word, 9, 250, False),
    ]
    dump, begin, wait = parse("\n".join(lines)).events
    assert dump == MessageDump(2.5, 0, "agent-2", 0x14, 5, 7, 0, 0x10, "RESP", -3, b"\x01")
    assert begin == XferBegin(2.5, 0, "guest0-0", 0x14, 5, 7, 9, True, 4)
    assert wait == ResponseWait(2.5, 0, "guest0-0", 0x14, 5, 7, 9, 0.25, False)


def test_what_cannot_be_read_is_counted_and_the_rest_is_not() -> None:
    head = "            init-1       [000] .....     1.5: "
    text = "\n".join(
        [
            "GUEST-READY uptime 1",
            "CPU:0 [LOST 17 EVENTS]",
            "CPU:1 [LOST 3 EVENTS]",
            f"{head}scmi_fc_call: pt=13 msg_id=07 res_id=0 vals=1:0",
            f"{head}sched_switch: prev_comm=a",
            f"{head}scmi_xfer_end: pt=10 msg_id=00 seq=0001",
            f"{head}scmi_msg_dump: id=0 ch=10 pt=14 t=CMND msg_id=06 seq=0030 s=0 pyld=0",
            "[000] scmi_rx_done: pt=14",
        ]
    )
    trace = parse(text)
    assert (trace.events, trace.unread, trace.lost) == ([], 3, 20)
    assert parse("    x [000] 1.0 scmi_rx_done: y").unread == 1
