"""Settings of the SCMI platform service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from common.runtime.config import AdminConfig, ListenConfig, PeerConfig
from common.runtime.device_service import DeviceConfig
from services.scmi_platform.faults import FaultPlan

#: The board that ships with the project.
DEFAULT_BOARD: Final = Path(__file__).resolve().parents[2] / "deploy" / "boards" / "juno-r2.toml"


class ScmiConfig(DeviceConfig, kw_only=True):
    """``ringmesh serve scmi``. ``board`` is the file that says what the platform manages (``RINGMESH_BOARD``)."""

    listen: ListenConfig = msgspec.field(default_factory=lambda: ListenConfig(port=7101))
    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9102))
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0x10
    board: str = str(DEFAULT_BOARD)
    faults: FaultPlan = msgspec.field(default_factory=FaultPlan)
