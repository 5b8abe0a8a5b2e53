"""Settings of the NIC service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from common.runtime.config import AdminConfig, ListenConfig, PeerConfig, Section
from common.runtime.device_service import DeviceConfig
from common.virtio.net_config import MTU_MIN
from common.virtio.policy import PortPolicy

#: The capture that ships with the project.
DEFAULT_CAPTURE: Final = Path(__file__).resolve().parents[2] / "deploy" / "captures" / "veth.pcap"


class BackendConfig(Section, kw_only=True):
    """What the NIC is plugged into: ``echo``; ``replay`` of ``pcap``; or ``switch``, which joins the guests."""

    kind: Literal["echo", "replay", "switch"] = "echo"
    pcap: str = str(DEFAULT_CAPTURE)
    #: a replay keeps ``rate`` (frames a second), or the capture's own timing ``speed`` times as fast
    pace: Literal["rate", "capture"] = "rate"
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 1000.0
    speed: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    #: file for every packet of every guest, pcapng; empty: none
    record: str = ""
    #: bytes after which the recording ends
    record_limit: Annotated[int, msgspec.Meta(ge=4096)] = 1 << 28


class FirmwareConfig(Section, kw_only=True):
    """What the firmware does with avail indices at a change of map. All three as they ship: no buffer is stranded."""

    #: read avail->idx from memory when a queue object is created
    read_at_create: bool = True
    #: and at a kick
    read_at_kick: bool = True
    #: replay a kick that came while the queue could not fetch
    replay_kick: bool = True

    @property
    def policy(self) -> PortPolicy:
        """As the port is told."""
        policy = PortPolicy(0)
        if self.read_at_create:
            policy |= PortPolicy.READ_AT_CREATE
        if self.read_at_kick:
            policy |= PortPolicy.READ_AT_KICK
        if self.replay_kick:
            policy |= PortPolicy.REPLAY_KICK
        return policy


class NicConfig(DeviceConfig, kw_only=True):
    """``ringmesh serve nic``."""

    listen: ListenConfig = msgspec.field(default_factory=lambda: ListenConfig(port=7102))
    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9103))
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0x20
    #: entries of each queue, a power of two
    queue_size: Literal[64, 128, 256, 512, 1024, 2048, 4096] = 1024
    #: max_virtqueue_pairs (virtio 1.3 §5.1.4)
    queue_pairs: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    #: bytes, without Ethernet header
    mtu: Annotated[int, msgspec.Meta(ge=MTU_MIN, le=1500)] = 1500
    firmware: FirmwareConfig = msgspec.field(default_factory=FirmwareConfig)
    backend: BackendConfig = msgspec.field(default_factory=BackendConfig)
