"""Feature bits, descriptor and ring flags, device status: the constants of virtio 1.3 (and SUSPEND of 1.4)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

# Descriptor flags, §2.7.5
DESC_F_NEXT: Final = 1
DESC_F_WRITE: Final = 2
DESC_F_INDIRECT: Final = 4

# Ring flags: hints not to notify, §2.7.6 and §2.7.8
AVAIL_F_NO_INTERRUPT: Final = 1
USED_F_NO_NOTIFY: Final = 1

#: Largest split queue, §2.7.
MAX_QUEUE_SIZE: Final = 32768


class Feature(IntEnum):
    """Feature bit numbers, §6. ``mask(…)`` makes the u64 that is negotiated."""

    # virtio-net, §5.1.3
    NET_CSUM = 0
    NET_GUEST_CSUM = 1
    NET_CTRL_GUEST_OFFLOADS = 2
    NET_MTU = 3
    NET_MAC = 5
    NET_GUEST_TSO4 = 7
    NET_GUEST_TSO6 = 8
    NET_GUEST_ECN = 9
    NET_GUEST_UFO = 10
    NET_HOST_TSO4 = 11
    NET_HOST_TSO6 = 12
    NET_HOST_ECN = 13
    NET_HOST_UFO = 14
    NET_MRG_RXBUF = 15
    NET_STATUS = 16
    NET_CTRL_VQ = 17
    NET_CTRL_RX = 18
    NET_CTRL_VLAN = 19
    NET_CTRL_RX_EXTRA = 20
    NET_GUEST_ANNOUNCE = 21
    NET_MQ = 22
    NET_CTRL_MAC_ADDR = 23
    # of every device, §6
    INDIRECT_DESC = 28
    EVENT_IDX = 29
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    NOTIFICATION_DATA = 38
    RING_RESET = 40
    SUSPEND = 43
    # virtio-net again, §5.1.3
    NET_HASH_TUNNEL = 51
    NET_VQ_NOTF_COAL = 52
    NET_NOTF_COAL = 53
    NET_GUEST_USO4 = 54
    NET_GUEST_USO6 = 55
    NET_HOST_USO = 56
    NET_HASH_REPORT = 57
    NET_GUEST_HDRLEN = 59
    NET_RSS = 60
    NET_RSC_EXT = 61
    NET_STANDBY = 62
    NET_SPEED_DUPLEX = 63

    @property
    def bit(self) -> int:
        return 1 << self.value


#: virtio-scmi, §5.17.3: the device has an eventq and may send platform-to-agent messages.
SCMI_F_P2A_CHANNELS: Final = 1 << 0
SCMI_F_SHARED_MEMORY: Final = 1 << 1


def mask(*features: Feature) -> int:
    """The u64 with the bits of ``features`` set."""
    bits = 0
    for feature in features:
        bits |= 1 << feature.value
    return bits


#: virtio-net, §5.1.3.1: what a feature requires, as groups of which each must have one member.
_NET_REQUIRES: Final[dict[Feature, tuple[tuple[Feature, ...], ...]]] = {
    Feature.NET_GUEST_TSO4: ((Feature.NET_GUEST_CSUM,),),
    Feature.NET_GUEST_TSO6: ((Feature.NET_GUEST_CSUM,),),
    Feature.NET_GUEST_ECN: ((Feature.NET_GUEST_TSO4, Feature.NET_GUEST_TSO6),),
    Feature.NET_GUEST_UFO: ((Feature.NET_GUEST_CSUM,),),
    Feature.NET_GUEST_USO4: ((Feature.NET_GUEST_CSUM,),),
    Feature.NET_GUEST_USO6: ((Feature.NET_GUEST_CSUM,),),
    Feature.NET_HOST_TSO4: ((Feature.NET_CSUM,),),
    Feature.NET_HOST_TSO6: ((Feature.NET_CSUM,),),
    Feature.NET_HOST_ECN: ((Feature.NET_HOST_TSO4, Feature.NET_HOST_TSO6),),
    Feature.NET_HOST_UFO: ((Feature.NET_CSUM,),),
    Feature.NET_HOST_USO: ((Feature.NET_CSUM,),),
    Feature.NET_CTRL_RX: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_CTRL_VLAN: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_GUEST_ANNOUNCE: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_MQ: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_CTRL_MAC_ADDR: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_NOTF_COAL: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_RSC_EXT: ((Feature.NET_HOST_TSO4, Feature.NET_HOST_TSO6),),
    Feature.NET_RSS: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_VQ_NOTF_COAL: ((Feature.NET_CTRL_VQ,),),
    Feature.NET_HASH_TUNNEL: ((Feature.NET_CTRL_VQ,), (Feature.NET_RSS, Feature.NET_HASH_REPORT)),
}


def net_unmet(features: int) -> dict[Feature, tuple[Feature, ...]]:
    """The virtio-net features in the u64 ``features`` without what they require (§5.1.3.1), each with the features of
    which it lacks one: a driver must not accept such a set, nor a device offer it (§2.2)."""
    return {
        feature: group
        for feature, groups in _NET_REQUIRES.items()
        for group in groups
        if features & feature.bit and not features & mask(*group)
    }


class Status(IntFlag):
    """Device status bits, §2.1."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    SUSPEND = 16
    DEVICE_NEEDS_RESET = 64
    FAILED = 128


class DeviceId(IntEnum):
    """Device types, §5."""

    NET = 1
    SCMI = 32
