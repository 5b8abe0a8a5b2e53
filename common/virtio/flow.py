"""Which frames belong together: one hash for all frames of a flow, as for a NIC's receive scaling."""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

_ETHERNET: Final = 14
_VLAN: Final = b"\x81\x00"
_IPV4: Final = b"\x08\x00"
_IPV6: Final = b"\x86\xdd"
_IPV6_HEADER: Final = 40
#: TCP, UDP, SCTP: the header begins with source and destination port
_WITH_PORTS: Final = frozenset({6, 17, 132})
#: more fragments follow, or this is not the first
_FRAGMENT: Final = 0x3FFF


def flow_hash(frame: bytes) -> int:
    """32 bits over addresses, protocol and ports of an IP packet; over addresses alone of a fragment, which has no
    ports but by chance; over both MACs and the EtherType of anything else. One VLAN tag is looked through."""
    at = _ETHERNET
    kind = frame[12:14]
    if kind == _VLAN:
        kind = frame[16:18]
        at += 4
    if kind == _IPV4 and len(frame) >= at + 20:
        protocol = frame[at + 9]
        (fragment,) = struct.unpack_from(">H", frame, at + 6)
        ports = at + (frame[at] & 15) * 4 if protocol in _WITH_PORTS and not fragment & _FRAGMENT else None
        return _hash(frame, at + 12, at + 20, protocol, ports)
    if kind == _IPV6 and len(frame) >= at + _IPV6_HEADER:
        protocol = frame[at + 6]
        ports = at + _IPV6_HEADER if protocol in _WITH_PORTS else None
        return _hash(frame, at + 8, at + _IPV6_HEADER, protocol, ports)
    return crc32(frame[:12] + kind)


def _hash(frame: bytes, start: int, end: int, protocol: int, ports: int | None) -> int:
    key = frame[start:end] + bytes((protocol,))
    if ports is not None:
        key += frame[ports : ports + 4]
    return crc32(key)
