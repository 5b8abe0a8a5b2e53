"""Operations of a virtio device by the names of Linux's ``struct vdpa_config_ops``: arguments, and when each is legal.

A device type adds its own to :data:`OPS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Annotated, Any, Final

import msgspec


class Phase(IntFlag):
    """Where the driver is in the initialisation of virtio 1.3 §3.1.1."""

    RESET = 1
    FEATURES = 2
    """ACKNOWLEDGE and DRIVER set, FEATURES_OK not yet"""
    SETUP = 4
    """FEATURES_OK set, DRIVER_OK not yet"""
    RUNNING = 8
    ANY = 15


@dataclass(slots=True, frozen=True)
class Op:
    """One operation: types of its arguments, phases in which it is legal."""

    args: Any
    phases: Phase


#: queue, avail index, and the used index where it is another
VqState = Annotated[list[int], msgspec.Meta(min_length=2, max_length=3)]

OPS: Final[dict[str, Op]] = {
    "get_device_id": Op(tuple[()], Phase.ANY),
    "get_device_features": Op(tuple[()], Phase.ANY),
    "get_driver_features": Op(tuple[()], Phase.ANY),
    "set_driver_features": Op(tuple[int], Phase.FEATURES),
    "get_status": Op(tuple[()], Phase.ANY),
    "set_status": Op(tuple[int], Phase.ANY),
    "reset": Op(tuple[()], Phase.ANY),
    "get_config_size": Op(tuple[()], Phase.ANY),
    "get_config": Op(tuple[int, int], Phase.ANY),
    "get_generation": Op(tuple[()], Phase.ANY),
    "get_vq_num_max": Op(tuple[int], Phase.ANY),
    "set_vq_num": Op(tuple[int, int], Phase.SETUP),
    "set_vq_address": Op(tuple[int, int, int, int], Phase.SETUP),
    "set_vq_cb": Op(tuple[int, int], Phase.SETUP | Phase.RUNNING),
    "set_vq_state": Op(VqState, Phase.SETUP),
    "get_vq_state": Op(tuple[int], Phase.ANY),
    "set_vq_ready": Op(tuple[int, bool], Phase.SETUP),
    "get_vq_ready": Op(tuple[int], Phase.ANY),
    "kick_vq": Op(tuple[int], Phase.RUNNING),
}

#: Answer of an operation that is not done yet: the device answers the call later.
LATER: Final = object()


class Refusal(Exception):  # noqa: N818  (an answer, not an error of ours)
    """A call is answered with ``errno`` and a sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
