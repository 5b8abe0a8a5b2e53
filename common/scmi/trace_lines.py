"""Lines in the formats of Linux's SCMI trace points (``include/trace/events/scmi.h``), as ftrace's ``trace`` file has
them: what reads that reads these.

Seconds are those of the writer's clock; ``seq`` is the token; CPU is 0 and the latency flags are dots.
"""

from __future__ import annotations

from typing import Any, Final

from common.scmi.header import unpack
from common.scmi.status import ProtocolId

#: Event → its fields, as printf writes them.
FORMATS: Final = {
    "scmi_xfer_begin": "pt=%02X msg_id=%02X seq=%04X transfer_id=%X poll=%u inflight=%d",
    "scmi_xfer_response_wait": "pt=%02X msg_id=%02X seq=%04X transfer_id=%X tmo_ms=%u poll=%u",
    "scmi_xfer_end": "pt=%02X msg_id=%02X seq=%04X transfer_id=%X s=%d inflight=%d",
    "scmi_rx_done": "pt=%02X msg_id=%02X seq=%04X transfer_id=%X msg_type=%u",
    "scmi_msg_dump": "id=%d ch=%02X pt=%02X t=%s msg_id=%02X seq=%04X s=%d pyld=%s",
}

#: All protocols share the channel of the base protocol.
CHANNEL: Final = ProtocolId.BASE.value
_WORD: Final = 0xFFFF_FFFF


def event_line(seconds: float, task: str, event: str, word: int, transfer_id: int, *values: object) -> str:
    """One line of any event but scmi_msg_dump; ``word`` is the message's header,
    ``values`` what the event says last."""
    head = unpack(word)
    fields = (head.protocol, head.message, head.token, transfer_id & _WORD, *values)
    return _line(seconds, task, 0, event, fields)


def dump_line(
    seconds: float, task: str, word: int, tag: str, status: int, payload: bytes, *, pid: int = 0, instance: int = 0
) -> str:
    """One line of scmi_msg_dump. ``tag``: CMND, RESP, DLYD, NOTI, or what Linux puts for a message that it throws away;
    ``payload``: what follows the header, or the status of a response."""
    head = unpack(word)
    fields = (instance, CHANNEL, head.protocol, tag, head.message, head.token, status, payload.hex())
    return _line(seconds, task, pid, "scmi_msg_dump", fields)


def _line(seconds: float, task: str, pid: int, event: str, fields: tuple[Any, ...]) -> str:
    return f"{task:>16}-{pid:<7} [000] ..... {seconds:12.6f}: {event}: {FORMATS[event] % fields}"
