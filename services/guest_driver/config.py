"""Settings of the guest service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from common.runtime.config import AdminConfig, BaseConfig, PeerConfig, Seconds, Section

#: The capture whose frames the default workload sends.
DEFAULT_CAPTURE: Final = Path(__file__).resolve().parents[2] / "deploy" / "captures" / "veth.pcap"

#: Queue pairs that a guest may drive a NIC with.
MAX_NET_PAIRS: Final = 64

Entries = Literal[16, 32, 64, 128, 256, 512, 1024]


class WorkloadConfig(Section, kw_only=True):
    """The default workload of each guest."""

    #: start as soon as the guest is up, without being asked by POST /workload/start
    autostart: bool = False
    #: tasks that send SCMI commands, each one after the other
    scmi_workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 8
    #: of four commands this many are polled
    polled_of_four: Annotated[int, msgspec.Meta(ge=0, le=4)] = 2
    #: seconds before an SCMI command times out
    scmi_timeout: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    #: seconds that a worker rests between two commands
    scmi_pause: Seconds = 0.0
    #: network frames in flight, all queue pairs together; 0 sends none
    net_window: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 256
    #: what the NIC does: ``echo`` what is sent, ``replay`` the capture ``pcap``, or ``switch`` between the guests, each
    #: of which sends to the next one
    net: Literal["echo", "replay", "switch"] = "echo"
    #: frames that are sent, and that a NIC with back end ``replay`` plays: an Ethernet capture
    pcap: str = str(DEFAULT_CAPTURE)
    #: seconds between two changes of the NIC's memory map, with each of which a DIMM comes or goes; 0 for none
    map_seconds: Seconds = 2.0
    #: how the VMM says a change: the whole map, or one range (vDPA's ``dma_map`` and ``dma_unmap``)
    map_op: Literal["set_map", "dma_map"] = "set_map"
    #: seconds between two INV commands to the ITS; 0 for none
    inv_seconds: Seconds = 0.25
    #: seconds between two moves of an interrupt to another vCPU; 0 for none
    affinity_seconds: Seconds = 0.5
    #: seconds between two censuses of the SCMI transport's messages (longer with more guests); 0 takes none
    census_seconds: Seconds = 0.02
    #: seconds that stopping waits for what is in flight
    drain_seconds: Seconds = 15.0


class ExpectedFaults(Section, kw_only=True):
    """What the platform is told to do wrong (its own ``[faults]``) and the guest must not hold against it: a setting
    of both services, so that ``--set FAULTS__DELAYED_TWICE=0.1`` reaches both."""

    #: probability that a delayed response is sent twice; the second copies are no sign of a fault of the mesh
    delayed_twice: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class GuestConfig(BaseConfig, kw_only=True):
    """``ringmesh serve guest``."""

    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9101))
    scmi: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7101))
    nic: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7102))
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    guests: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    #: DeviceIDs that the devices' MSIs carry, as the device services are configured
    scmi_device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0x10
    nic_device_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0x20
    cmdq_size: Entries = 256
    eventq_size: Entries = 64
    #: may SCMI drivers choose by themselves to poll, where they must not sleep?
    atomic_transport: bool = True
    #: µs: what takes no longer they poll for (Linux: ``atomic-threshold-us``); 0: they always sleep
    atomic_threshold_us: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    net_queue_size: Entries = 512
    #: queue pairs to drive the NIC with, as far as it has them
    net_pairs: Annotated[int, msgspec.Meta(ge=1, le=MAX_NET_PAIRS)] = 1
    #: MiB of RAM of each guest
    memory_mib: Annotated[int, msgspec.Meta(ge=4, le=1024)] = 16
    #: where the platform keeps what was set (its own ``state``): if anywhere, the workload holds it to that
    state: str = ""
    workload: WorkloadConfig = msgspec.field(default_factory=WorkloadConfig)
    faults: ExpectedFaults = msgspec.field(default_factory=ExpectedFaults)
