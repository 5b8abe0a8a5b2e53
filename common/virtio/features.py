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

    NET_CSUM = 0
    NET_GUEST_CSUM = 1
    NET_MTU = 3
    NET_MAC = 5
    NET_MRG_RXBUF = 15
    NET_STATUS = 16
    NET_CTRL_VQ = 17
    NET_MQ = 22
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
