"""struct virtio_net_config (virtio 1.3 §5.1.4): what the device shows of itself. Both ends use the table.

Offsets never move; a field exists where a feature that it belongs to is offered, and negotiated once features are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from common.errors import RemoteError
from common.virtio.features import Feature, mask

#: Bits of ``status``.
S_LINK_UP: Final = 1
S_ANNOUNCE: Final = 2

MAC_BYTES: Final = 6
MTU_MIN: Final = 68
MTU_MAX: Final = 65535
PAIRS_MIN: Final = 1
PAIRS_MAX: Final = 0x8000
SPEED_MAX: Final = 0x7FFF_FFFF
SPEED_UNKNOWN: Final = 0xFFFF_FFFF
DUPLEX_HALF: Final = 0
DUPLEX_FULL: Final = 1
DUPLEX_UNKNOWN: Final = 0xFF


@dataclass(slots=True, frozen=True)
class NetConfig:
    """The fields. ``speed`` is in Mbit/s; the last four describe hashing, which our device does not offer."""

    mac: bytes = bytes(MAC_BYTES)
    status: int = S_LINK_UP
    max_virtqueue_pairs: int = 1
    mtu: int = 1500
    speed: int = SPEED_UNKNOWN
    duplex: int = DUPLEX_UNKNOWN
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: int = 0
    supported_tunnel_types: int = 0

    @property
    def link_up(self) -> bool:
        return bool(self.status & S_LINK_UP)

    @property
    def announce(self) -> bool:
        """Does the device ask the driver to send gratuitous packets (§5.1.6.5.4)?"""
        return bool(self.status & S_ANNOUNCE)


@dataclass(slots=True, frozen=True)
class Field:
    """One row: where a field lies, and the features of which any one makes it exist."""

    name: str
    offset: int
    layout: struct.Struct
    features: int

    @property
    def end(self) -> int:
        return self.offset + self.layout.size


_HASH: Final = mask(Feature.NET_RSS, Feature.NET_HASH_REPORT)

#: All fields, by offset. ``mac`` always exists and is valid with NET_MAC only.
FIELDS: Final = (
    Field("mac", 0, struct.Struct("6s"), mask(Feature.NET_MAC)),
    Field("status", 6, struct.Struct("<H"), mask(Feature.NET_STATUS)),
    Field("max_virtqueue_pairs", 8, struct.Struct("<H"), mask(Feature.NET_MQ, Feature.NET_RSS)),
    Field("mtu", 10, struct.Struct("<H"), mask(Feature.NET_MTU)),
    Field("speed", 12, struct.Struct("<I"), mask(Feature.NET_SPEED_DUPLEX)),
    Field("duplex", 16, struct.Struct("<B"), mask(Feature.NET_SPEED_DUPLEX)),
    Field("rss_max_key_size", 17, struct.Struct("<B"), _HASH),
    Field("rss_max_indirection_table_length", 18, struct.Struct("<H"), mask(Feature.NET_RSS)),
    Field("supported_hash_types", 20, struct.Struct("<I"), _HASH),
    Field("supported_tunnel_types", 24, struct.Struct("<I"), mask(Feature.NET_HASH_TUNNEL)),
)

#: What a device may say: the driver refuses anything else.
_LIMITS: Final = {"max_virtqueue_pairs": (PAIRS_MIN, PAIRS_MAX), "mtu": (MTU_MIN, MTU_MAX)}


def pack(config: NetConfig, features: int) -> bytes:
    """The configuration space of a device with ``features`` (u64; those offered, so that a driver can read before it
    negotiates, §2.5.2): up to the last field that exists, zeros where one before it does not."""
    space = bytearray(MAC_BYTES)
    for row in FIELDS:
        if features & row.features:
            space.extend(bytes(row.end - len(space)))
            row.layout.pack_into(space, row.offset, getattr(config, row.name))
    return bytes(space)


def parse(data: bytes, features: int) -> NetConfig:
    """What the driver reads, having negotiated ``features`` (u64). Fields that do not exist keep their defaults: zeros
    for ``mac``, link up, one queue pair. An unheard-of speed or duplex is unknown (§5.1.4.2).

    Raises RemoteError naming the field where the space is too short for it or the value is not one that a device may
    have (§5.1.4.1).
    """
    found: dict[str, Any] = {}
    for row in FIELDS:
        if not features & row.features:
            continue
        if len(data) < row.end:
            raise RemoteError(f"config.{row.name}", len(data), row.end, "bytes of configuration space")
        (value,) = row.layout.unpack_from(data, row.offset)
        low, high = _LIMITS.get(row.name, (None, None))
        if low is not None and not low <= value <= high:
            raise RemoteError(f"config.{row.name}", value, low if value < low else high)
        found[row.name] = value
    if found.get("speed", 0) > SPEED_MAX:
        found["speed"] = SPEED_UNKNOWN
    if found.get("duplex", DUPLEX_UNKNOWN) not in (DUPLEX_HALF, DUPLEX_FULL):
        found["duplex"] = DUPLEX_UNKNOWN
    return NetConfig(**found)
