"""The control queue of virtio-net (virtio 1.3 §5.1.6.5): classes, commands and their data. Both ends use the tables.

A command is u8 class, u8 command and its data, all device-readable, and one device-writable byte for the answer.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from common.errors import RemoteError
from common.virtio.features import Feature, mask
from common.virtio.net_config import MAC_BYTES

#: u8 class, u8 command
CTRL_HEADER: Final = struct.Struct("<BB")

# the answer
NET_OK: Final = 0
NET_ERR: Final = 1


class CtrlClass(IntEnum):
    RX = 0
    MAC = 1
    VLAN = 2
    ANNOUNCE = 3
    MQ = 4
    GUEST_OFFLOADS = 5


class RxCommand(IntEnum):
    """Each turns a mode of the receive filter on (1) or off (0), §5.1.6.5.1."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


class MacCommand(IntEnum):
    TABLE_SET = 0
    ADDR_SET = 1


class VlanCommand(IntEnum):
    ADD = 0
    DEL = 1


class AnnounceCommand(IntEnum):
    ACK = 0


class MqCommand(IntEnum):
    VQ_PAIRS_SET = 0


class OffloadsCommand(IntEnum):
    SET = 0


#: u8: a mode of :class:`RxCommand`, 0 or 1
RX_MODE: Final = struct.Struct("<B")
#: le16 VLAN id
VLAN_ID: Final = struct.Struct("<H")
#: le16 virtqueue_pairs
VQ_PAIRS: Final = struct.Struct("<H")
#: le64 of GUEST_OFFLOADS bits
OFFLOADS: Final = struct.Struct("<Q")
#: le32 entries, before each of the two tables of MAC.TABLE_SET
MAC_ENTRIES: Final = struct.Struct("<I")

#: Largest VLAN id that names a VLAN (IEEE 802.1Q: 0xfff is reserved).
VLAN_MAX: Final = 4094

#: Feature bits that stand for themselves in GUEST_OFFLOADS.SET (§5.1.6.5.8).
GUEST_OFFLOADS: Final = mask(
    Feature.NET_GUEST_CSUM,
    Feature.NET_GUEST_TSO4,
    Feature.NET_GUEST_TSO6,
    Feature.NET_GUEST_ECN,
    Feature.NET_GUEST_UFO,
    Feature.NET_GUEST_USO4,
    Feature.NET_GUEST_USO6,
)


@dataclass(slots=True, frozen=True)
class CtrlCommand:
    """One row: a command, the feature that it needs, the bytes of its data (the least where ``longer``)."""

    cls: CtrlClass
    command: IntEnum
    feature: Feature
    size: int
    longer: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return self.cls, self.command


_ROWS: Final = (
    CtrlCommand(CtrlClass.RX, RxCommand.PROMISC, Feature.NET_CTRL_RX, RX_MODE.size),
    CtrlCommand(CtrlClass.RX, RxCommand.ALLMULTI, Feature.NET_CTRL_RX, RX_MODE.size),
    CtrlCommand(CtrlClass.RX, RxCommand.ALLUNI, Feature.NET_CTRL_RX_EXTRA, RX_MODE.size),
    CtrlCommand(CtrlClass.RX, RxCommand.NOMULTI, Feature.NET_CTRL_RX_EXTRA, RX_MODE.size),
    CtrlCommand(CtrlClass.RX, RxCommand.NOUNI, Feature.NET_CTRL_RX_EXTRA, RX_MODE.size),
    CtrlCommand(CtrlClass.RX, RxCommand.NOBCAST, Feature.NET_CTRL_RX_EXTRA, RX_MODE.size),
    CtrlCommand(CtrlClass.MAC, MacCommand.TABLE_SET, Feature.NET_CTRL_RX, 2 * MAC_ENTRIES.size, longer=True),
    # Linux asks for CTRL_MAC_ADDR alone here, where §5.1.6.5.2.2 has every MAC command depend on CTRL_RX
    CtrlCommand(CtrlClass.MAC, MacCommand.ADDR_SET, Feature.NET_CTRL_MAC_ADDR, MAC_BYTES),
    CtrlCommand(CtrlClass.VLAN, VlanCommand.ADD, Feature.NET_CTRL_VLAN, VLAN_ID.size),
    CtrlCommand(CtrlClass.VLAN, VlanCommand.DEL, Feature.NET_CTRL_VLAN, VLAN_ID.size),
    CtrlCommand(CtrlClass.ANNOUNCE, AnnounceCommand.ACK, Feature.NET_GUEST_ANNOUNCE, 0),
    CtrlCommand(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, Feature.NET_MQ, VQ_PAIRS.size),
    CtrlCommand(CtrlClass.GUEST_OFFLOADS, OffloadsCommand.SET, Feature.NET_CTRL_GUEST_OFFLOADS, OFFLOADS.size),
)

#: Every command that we know, by (class, command).
COMMANDS: Final = {row.key: row for row in _ROWS}


def ctrl_name(cls: int, command: int) -> str:
    """``MAC.TABLE_SET``; the numbers where the table has no such command."""
    row = COMMANDS.get((cls, command))
    return f"{row.cls.name}.{row.command.name}" if row is not None else f"{cls}.{command}"


def encode_mac_table(unicast: Collection[bytes], multicast: Collection[bytes]) -> bytes:
    """The data of MAC.TABLE_SET: addresses of 6 bytes, unicast first (§5.1.6.5.2)."""
    return b"".join((MAC_ENTRIES.pack(len(unicast)), *unicast, MAC_ENTRIES.pack(len(multicast)), *multicast))


def decode_mac_table(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The unicast and the multicast addresses in the data of MAC.TABLE_SET.

    Raises RemoteError with ``field`` ``unicast.entries`` or ``multicast.entries`` unless both counts tell exactly the
    bytes that are there.
    """
    unicast, rest = _addresses("unicast", data)
    multicast, rest = _addresses("multicast", rest)
    if rest:
        raise RemoteError("multicast.entries", len(multicast), None, f"{len(rest)} bytes follow")
    return unicast, multicast


def _addresses(which: str, data: bytes) -> tuple[list[bytes], bytes]:
    """One table, and what follows it."""
    if len(data) < MAC_ENTRIES.size:
        raise RemoteError(f"{which}.entries", None, None, f"{len(data)} bytes where the number of entries should be")
    (entries,) = MAC_ENTRIES.unpack_from(data)
    end = MAC_ENTRIES.size + entries * MAC_BYTES
    if end > len(data):
        raise RemoteError(f"{which}.entries", entries, (len(data) - MAC_ENTRIES.size) // MAC_BYTES)
    return [data[at : at + MAC_BYTES] for at in range(MAC_ENTRIES.size, end, MAC_BYTES)], data[end:]
