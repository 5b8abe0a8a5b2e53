"""Lines as Linux's trace points print them."""

from __future__ import annotations

from common.scmi.header import pack
from common.scmi.trace_lines import FORMATS, dump_line, event_line

WORD = pack(0x14, 0x7, 0x2A)


def test_a_message() -> None:
    line = dump_line(1.5, "agent", WORD, "RESP", -3, bytes.fromhex("0102"), pid=4, instance=1)
    assert line == (
        "           agent-4       [000] .....     1.500000: scmi_msg_dump: "
        "id=1 ch=10 pt=14 t=RESP msg_id=07 seq=002A s=-3 pyld=0102"
    )


def test_the_other_events() -> None:
    values = {
        "scmi_xfer_begin": (True, 3),
        "scmi_xfer_response_wait": (60000, False),
        "scmi_xfer_end": (-110, 0),
        "scmi_rx_done": (2,),
    }
    shown = {name: event_line(12.25, "guest0", name, WORD, 0x1_0000_0007, *rest) for name, rest in values.items()}
    head = "          guest0-0       [000] .....    12.250000: "
    message = "pt=14 msg_id=07 seq=002A transfer_id=7"  # transfers are counted in 32 bits
    assert shown == {
        "scmi_xfer_begin": f"{head}scmi_xfer_begin: {message} poll=1 inflight=3",
        "scmi_xfer_response_wait": f"{head}scmi_xfer_response_wait: {message} tmo_ms=60000 poll=0",
        "scmi_xfer_end": f"{head}scmi_xfer_end: {message} s=-110 inflight=0",
        "scmi_rx_done": f"{head}scmi_rx_done: {message} msg_type=2",
    }
    assert FORMATS.keys() == shown.keys() | {"scmi_msg_dump"}
