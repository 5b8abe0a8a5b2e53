"""struct virtio_net_hdr as VERSION_1 devices use it (virtio 1.3 §5.1.6): 12 bytes before every frame.

A *packet* is these 12 bytes and the Ethernet frame after them, from the destination MAC on, without check sequence.
"""

from __future__ import annotations

import struct
from typing import Final

from common.errors import RemoteError
from common.virtio.features import Feature

#: u8 flags, gso_type; le16 hdr_len, gso_size, csum_start, csum_offset, num_buffers
NET_HEADER: Final = struct.Struct("<BBHHHHH")
NET_HEADER_BYTES: Final = NET_HEADER.size

HDR_F_NEEDS_CSUM: Final = 1
HDR_F_DATA_VALID: Final = 2
GSO_NONE: Final = 0

#: What a driver puts before a frame that needs nothing done (num_buffers is 0 on transmission, §5.1.6.2).
TX_PLAIN: Final = NET_HEADER.pack(0, GSO_NONE, 0, 0, 0, 0, 0)
#: What a device without MRG_RXBUF puts before a received frame (num_buffers is 1, §5.1.6.4).
RX_PLAIN: Final = NET_HEADER.pack(0, GSO_NONE, 0, 0, 0, 0, 1)

#: Largest frame without its check sequence: 14 bytes of Ethernet header, 4 of VLAN tag, 1500 of payload.
MAX_ETHERNET: Final = 1518

_CSUM: Final = struct.Struct("<HH")
_CSUM_AT: Final = 6
_CSUM_FIELD: Final = struct.Struct(">H")
#: flags 0, gso_type NONE
_NOTHING_ASKED: Final = bytes(2)
_NEEDS_CSUM: Final = bytes([HDR_F_NEEDS_CSUM])


def check_header(packet: bytes, features: int) -> None:
    """May a driver that negotiated ``features`` (u64) have this packet transmitted (§5.1.6.2)?

    Raises RemoteError with ``field`` ``header``, ``flags``, ``gso_type``, ``csum_start`` or ``csum_offset``. Flags
    that the device does not know are ignored, as are the checksum fields without NEEDS_CSUM (§5.1.6.2.2).
    """
    if len(packet) < NET_HEADER_BYTES:
        raise RemoteError("header", len(packet), NET_HEADER_BYTES, "bytes")
    if packet.startswith(_NOTHING_ASKED):
        return
    flags, gso_type = packet[0], packet[1]
    if gso_type != GSO_NONE:
        raise RemoteError("gso_type", gso_type, GSO_NONE, "no HOST_TSO4, TSO6, UFO or USO negotiated")
    if flags & HDR_F_NEEDS_CSUM:
        if not features & Feature.NET_CSUM.bit:
            raise RemoteError("flags", flags, 0, "NEEDS_CSUM, and CSUM is not negotiated")
        _checksum_field(packet)


def as_received(packet: bytes, guest_csum: bool) -> bytes:
    """``packet``, as the other side transmitted it, for a driver with or without GUEST_CSUM (§5.1.6.4).

    Without it every flag is clear and the frame fully checksummed. With it NEEDS_CSUM stays as it is; other flags are
    the sender's word, which a device must not pass on as its own. Raises RemoteError as :func:`complete_checksum`.
    """
    flags = packet[0]
    if not flags:
        return packet
    if not flags & HDR_F_NEEDS_CSUM:
        return b"\0" + packet[1:]
    if not guest_csum:
        return complete_checksum(packet)
    _checksum_field(packet)
    return packet if flags == HDR_F_NEEDS_CSUM else _NEEDS_CSUM + packet[1:]


def complete_checksum(packet: bytes) -> bytes:
    """The packet with its checksum computed from csum_start to its end and stored at csum_start + csum_offset.

    Returns it with flags, csum_start and csum_offset 0; a packet without NEEDS_CSUM as it is. The field in the frame
    holds the sum of the pseudo header before (§5.1.6.2). Raises RemoteError with ``field`` ``csum_start`` or
    ``csum_offset`` where they point outside the frame.
    """
    if not packet[0] & HDR_F_NEEDS_CSUM:
        return packet
    start, at = _checksum_field(packet)
    # 2^16 is 1 modulo 0xffff, so the ones' complement sum of 16-bit words is the remainder of the whole number. A sum
    # of 0xffff has the remainder 0 and becomes the checksum 0xffff: 0 never comes out, which to UDP means none.
    summed = packet[start:] if (len(packet) - start) % 2 == 0 else packet[start:] + b"\0"
    checksum = 0xFFFF - int.from_bytes(summed, "big") % 0xFFFF
    return b"".join(
        (
            b"\0",
            packet[1:_CSUM_AT],
            bytes(_CSUM.size),
            packet[_CSUM_AT + _CSUM.size : at],
            _CSUM_FIELD.pack(checksum),
            packet[at + _CSUM_FIELD.size :],
        )
    )


def _checksum_field(packet: bytes) -> tuple[int, int]:
    """Offsets within the packet where the sum begins and where the checksum is stored."""
    start, offset = _CSUM.unpack_from(packet, _CSUM_AT)
    room = len(packet) - NET_HEADER_BYTES - _CSUM_FIELD.size
    if start > room:
        raise RemoteError("csum_start", start, room, "the checksum is outside the frame")
    if start + offset > room:
        raise RemoteError("csum_offset", offset, room - start, f"behind csum_start {start}: outside the frame")
    return NET_HEADER_BYTES + start, NET_HEADER_BYTES + start + offset
