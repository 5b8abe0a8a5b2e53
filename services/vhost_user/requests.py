"""The table of requests: what each carries, when it is legal, how it is answered.

A connection goes through three phases, each of its rings through two states beside enabled or not::

                SET_OWNER               SET_FEATURES
      FRESH ----------------->  OWNED  ---------------->  READY        connection
                                  ^                         |
                                  +-------------------------+
                                  RESET_DEVICE, SET_STATUS 0

                       SET_VRING_KICK                    ENABLE 1
      STOPPED ------------------------->  STARTED        DISABLED <----> ENABLED
         ^                                   |                   ENABLE 0
         +-----------------------------------+
           GET_VRING_BASE, RESET_DEVICE, SET_STATUS 0    ring

A ring begins DISABLED. SET_FEATURES without bit 30 (VHOST_USER_F_PROTOCOL_FEATURES) enables all of them; a front end
that has that bit enables each with SET_VRING_ENABLE.

Answers: a request with a reply of its own is always answered, if refused with an empty payload (the specification
says so of GET_CONFIG; any front end sees that the size is not what it waits for, and the stream stays in step). Any
other is answered only if NEED_REPLY is set and REPLY_ACK negotiated: u64 0 for done, 1 for refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final

from common.errors import RemoteError
from services.vhost_user.messages import (
    CONFIG,
    MAX_CONFIG,
    MAX_FDS,
    MEM_REG,
    MEM_TABLE,
    REGION,
    U64,
    VRING_ADDR,
    VRING_STATE,
    ProtocolFeature,
    Request,
)


class Phase(IntFlag):
    """Where a connection is; a set of them says where a request is legal."""

    FRESH = 1
    OWNED = 2
    READY = 4


ANY: Final = Phase.FRESH | Phase.OWNED | Phase.READY
OWNED: Final = Phase.OWNED | Phase.READY
READY: Final = Phase.READY


class Rings(StrEnum):
    """What a request asks of the rings."""

    ANY = "any"
    #: the ring that it names must be stopped
    STOPPED = "stopped"


class Refusal(StrEnum):
    """Why a request was refused: the closed set of a metric's label."""

    #: no header that anything could be read behind: the connection ends
    FRAME = "frame"
    UNKNOWN = "unknown"
    #: its protocol feature was not negotiated, or a bit that was not offered is asked for
    FEATURE = "feature"
    PHASE = "phase"
    #: not legal for a ring in this state
    RING = "ring"
    SIZE = "size"
    FDS = "fds"
    #: a field of the payload is out of its range
    VALUE = "value"
    #: the memory table, or an address that is not in it
    MEMORY = "memory"
    #: the device refused
    DEVICE = "device"


#: Needs no protocol feature.
NO_FEATURE: Final = ProtocolFeature(0)

Sizes = tuple[int, int]
"""Least and most bytes of payload."""


@dataclass(slots=True, frozen=True)
class Rule:
    """One row of the table."""

    handler: str
    #: where they differ the payload says its own length, and the handler compares
    size: Sizes = (0, 0)
    #: numbers of descriptors allowed
    fds: range = range(1)
    #: phases in which it is legal
    phase: Phase = OWNED
    #: the protocol feature that it needs negotiated; with ``offered`` it is enough that it was offered
    feature: ProtocolFeature = NO_FEATURE
    offered: bool = False
    rings: Rings = Rings.ANY
    #: the payload begins with a ring's index, in so many bits
    index_bits: int = 0
    #: its reply has a payload of its own
    replies: bool = False


_NONE: Final = (0, 0)
_U64: Final = (U64.size, U64.size)
_STATE: Final = (VRING_STATE.size, VRING_STATE.size)
_ADDR: Final = (VRING_ADDR.size, VRING_ADDR.size)
_CONFIG: Final = (CONFIG.size, CONFIG.size + MAX_CONFIG)
_TABLE: Final = (MEM_TABLE.size, MEM_TABLE.size + MAX_FDS * REGION.size)
_REGION: Final = (MEM_REG.size, MEM_REG.size)
_MAYBE_FD: Final = range(2)
_P: Final = ProtocolFeature
_MQ, _SLOTS = _P.MQ, _P.CONFIGURE_MEM_SLOTS

TABLE: Final[dict[int, Rule]] = {
    Request.GET_FEATURES: Rule("get_features", phase=ANY, replies=True),
    Request.SET_FEATURES: Rule("set_features", _U64),
    Request.GET_PROTOCOL_FEATURES: Rule("get_protocol_features", phase=ANY, replies=True),
    Request.SET_PROTOCOL_FEATURES: Rule("set_protocol_features", _U64, phase=ANY),
    Request.GET_QUEUE_NUM: Rule("get_queue_num", phase=ANY, feature=_MQ, offered=True, replies=True),
    Request.SET_OWNER: Rule("set_owner", phase=Phase.FRESH),
    Request.RESET_OWNER: Rule("reset_owner"),
    Request.RESET_DEVICE: Rule("reset_device", feature=_P.RESET_DEVICE, offered=True),
    Request.SET_STATUS: Rule("set_status", _U64, feature=_P.STATUS),
    Request.GET_STATUS: Rule("get_status", feature=_P.STATUS, replies=True),
    Request.GET_CONFIG: Rule("get_config", _CONFIG, phase=ANY, feature=_P.CONFIG, replies=True),
    Request.SET_CONFIG: Rule("set_config", _CONFIG, feature=_P.CONFIG),
    Request.SET_MEM_TABLE: Rule("set_mem_table", _TABLE, range(MAX_FDS + 1)),
    Request.GET_MAX_MEM_SLOTS: Rule("get_max_mem_slots", phase=ANY, feature=_SLOTS, replies=True),
    Request.ADD_MEM_REG: Rule("add_mem_reg", _REGION, range(1, 2), feature=_SLOTS),
    # it needs no descriptor, but there are front ends that send one; it is closed unused
    Request.REM_MEM_REG: Rule("rem_mem_reg", _REGION, _MAYBE_FD, feature=_SLOTS),
    Request.SET_VRING_NUM: Rule("set_vring_num", _STATE, rings=Rings.STOPPED, index_bits=32),
    Request.SET_VRING_ADDR: Rule("set_vring_addr", _ADDR, rings=Rings.STOPPED, index_bits=32),
    Request.SET_VRING_BASE: Rule("set_vring_base", _STATE, rings=Rings.STOPPED, index_bits=32),
    Request.GET_VRING_BASE: Rule("get_vring_base", _STATE, index_bits=32, replies=True),
    Request.SET_VRING_ENABLE: Rule("set_vring_enable", _STATE, index_bits=32),
    Request.SET_VRING_KICK: Rule("set_vring_kick", _U64, _MAYBE_FD, phase=READY, index_bits=8),
    Request.SET_VRING_CALL: Rule("set_vring_call", _U64, _MAYBE_FD, index_bits=8),
    Request.SET_VRING_ERR: Rule("set_vring_err", _U64, _MAYBE_FD, index_bits=8),
}


class RefusedError(RemoteError):
    """A request that is not carried out, and why. The connection goes on."""

    def __init__(self, kind: Refusal, field: str, value: object = None, limit: object = None, detail: str = "") -> None:
        super().__init__(field, value, limit, detail)
        self.kind = kind
