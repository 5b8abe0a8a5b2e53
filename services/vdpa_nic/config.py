"""Settings of the NIC service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from common.runtime.config import AdminConfig, ListenConfig, PeerConfig, Section
from common.runtime.device_service import DeviceConfig

#: The capture that ships with the project.
DEFAULT_CAPTURE: Final = Path(__file__).resolve().parents[2] / "deploy" / "captures" / "veth.pcap"


class BackendConfig(Section, kw_only=True):
    """What the NIC is plugged into: ``echo``, or ``replay`` of ``pcap`` at ``rate`` frames a second."""

    kind: Literal["echo", "replay"] = "echo"
    pcap: str = str(DEFAULT_CAPTURE)
    rate: Annotated[float, msgspec.Meta(gt=0)] = 1000.0


class NicConfig(DeviceConfig, kw_only=True):
    """``ringmesh serve nic``."""

    listen: ListenConfig = msgspec.field(default_factory=lambda: ListenConfig(port=7102))
    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9103))
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0x20
    #: entries of each queue, a power of two
    queue_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = 1024
    backend: BackendConfig = msgspec.field(default_factory=BackendConfig)
