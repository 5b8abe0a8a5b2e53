"""Settings of the SCMI platform service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from common.runtime.config import AdminConfig, ListenConfig, PeerConfig, Section
from common.runtime.device_service import DeviceConfig
from services.scmi_platform.boards.agent import ProfileName
from services.scmi_platform.faults import FaultPlan
from services.scmi_platform.trace import MOST_CAPACITY

#: The board that ships with the project.
DEFAULT_BOARD: Final = Path(__file__).resolve().parents[2] / "deploy" / "boards" / "juno-r2.toml"


#: Bytes of the longest SCMI message that the raw port may be set to take; those of the shortest such limit.
MAX_RAW_MESSAGE: Final = 64 * 1024
LEAST_RAW_MESSAGE: Final = 132


class RawConfig(Section, kw_only=True):
    """The raw port. ``listen`` is ``tcp:HOST:PORT`` or ``unix:/path``, empty for none; ``max_message`` the longest
    message in bytes, header included; ``agent`` the name of the board's agent that the first connection is."""

    listen: str = ""
    max_message: Annotated[int, msgspec.Meta(ge=LEAST_RAW_MESSAGE, le=MAX_RAW_MESSAGE)] = 4096
    agent: str = ""


class ScmiConfig(DeviceConfig, kw_only=True):
    """``ringmesh serve scmi``. ``board`` is the file that says what the platform manages (``RINGMESH_BOARD``);
    ``profile`` takes the place of the board's (``RINGMESH_PROFILE``), "" leaves it;
    ``state`` the one that keeps what agents set over a restart, "" for none; ``trace`` how many messages ``GET /trace``
    shows."""

    listen: ListenConfig = msgspec.field(default_factory=lambda: ListenConfig(port=7101))
    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9102))
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0x10
    board: str = str(DEFAULT_BOARD)
    profile: Literal["", ProfileName] = ""
    state: str = ""
    trace: Annotated[int, msgspec.Meta(ge=0, le=MOST_CAPACITY)] = 0
    raw: RawConfig = msgspec.field(default_factory=RawConfig)
    faults: FaultPlan = msgspec.field(default_factory=FaultPlan)
