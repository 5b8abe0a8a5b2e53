"""struct virtio_net_hdr, virtio 1.3 §5.1.6: 12 bytes under VERSION_1, and the checksums that it leaves to be done."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.virtio.features import Feature, mask
from common.virtio.net_header import (
    GSO_NONE,
    HDR_F_DATA_VALID,
    HDR_F_NEEDS_CSUM,
    MAX_ETHERNET,
    NET_HEADER,
    NET_HEADER_BYTES,
    RX_PLAIN,
    TX_PLAIN,
    as_received,
    check_header,
    complete_checksum,
)
from tests.common.virtio.ringkit import PROFILE

CSUM = mask(Feature.VERSION_1, Feature.NET_CSUM)

#: A DNS query over IPv4 as a capture has it, its UDP checksum right: 10.0.0.1:40000 → 10.0.0.2:53.
ETHERNET = bytes.fromhex("020000000002 020000000001 0800")
IPV4 = bytes.fromhex("45000020 00004000 4011 0000 0a000001 0a000002")
UDP_AT = len(ETHERNET) + len(IPV4)


def packet(frame: bytes, start: int, offset: int, flags: int = HDR_F_NEEDS_CSUM) -> bytes:
    return NET_HEADER.pack(flags, GSO_NONE, 0, 0, start, offset, 0) + frame


def ones_complement(data: bytes) -> int:
    """RFC 1071, word by word, as slow as it is plain."""
    total = 0
    for i in range(0, len(data), 2):
        total += data[i] << 8 | (data[i + 1] if i + 1 < len(data) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp(payload: bytes) -> tuple[bytes, bytes]:
    """A frame whose checksum is still the pseudo header's sum, and the pseudo header."""
    length = 8 + len(payload)
    pseudo = IPV4[12:20] + struct.pack(">BBH", 0, 17, length)
    header = struct.pack(">HHHH", 40000, 53, length, ones_complement(pseudo))
    return ETHERNET + IPV4 + header + payload, pseudo


def test_headers() -> None:
    assert NET_HEADER_BYTES == NET_HEADER.size == 12
    assert bytes(12) == TX_PLAIN, "num_buffers is 0 on transmission"
    assert bytes(10) + b"\1\0" == RX_PLAIN, "and 1 on reception"
    fields = NET_HEADER.unpack(bytes.fromhex("01030200000400050006 0700"))
    assert fields == (1, 3, 2, 0x400, 0x500, 0x600, 7)
    assert GSO_NONE == 0
    assert MAX_ETHERNET == 1500 + 14 + 4


def test_a_known_checksum() -> None:
    """RFC 1071's example: the words 0001 f203 f4f5 f6f7 sum up to ddf2."""
    frame = bytes.fromhex("0001f203f4f5f6f7 0000")
    done = complete_checksum(packet(frame, 0, 8))
    assert done == TX_PLAIN + frame[:8] + (0xFFFF - 0xDDF2).to_bytes(2, "big")


@pytest.mark.parametrize("payload", [b"", b"x", b"ab", b"odd", bytes(1400), bytes(range(256)) * 5 + b"\xff"])
def test_udp_is_complete(payload: bytes) -> None:
    frame, pseudo = udp(payload)
    done = complete_checksum(packet(frame, UDP_AT, 6))
    assert done[:NET_HEADER_BYTES] == TX_PLAIN, "flags, csum_start and csum_offset are 0"
    segment = done[NET_HEADER_BYTES + UDP_AT :]
    assert ones_complement(pseudo + segment) == 0xFFFF, "what a receiver checks"
    assert done[NET_HEADER_BYTES : -len(segment)] == frame[:UDP_AT]
    assert segment[:6] + segment[8:] == frame[UDP_AT : UDP_AT + 6] + frame[UDP_AT + 8 :], "nothing else changed"


def test_a_checksum_of_zero_is_sent_as_ffff() -> None:
    # the words 1234 and edcb sum up to ffff, whose complement is 0
    assert complete_checksum(packet(bytes.fromhex("1234edcb0000"), 0, 4))[-2:] == b"\xff\xff"
    assert complete_checksum(packet(bytes(6), 0, 4))[-2:] == b"\xff\xff"


@PROFILE
@given(st.binary(min_size=2, max_size=64), st.integers(0, 62), st.integers(0, 62), st.binary(min_size=4, max_size=4))
def test_checksums_against_rfc_1071(frame: bytes, start: int, offset: int, hints: bytes) -> None:
    header = bytes([HDR_F_NEEDS_CSUM, 0]) + hints + struct.pack("<HHH", start, offset, 9)
    at = start + offset
    if at + 2 > len(frame):
        with pytest.raises(RemoteError, match="csum_start" if start + 2 > len(frame) else "csum_offset"):
            complete_checksum(header + frame)
        return
    done = complete_checksum(header + frame)
    want = 0xFFFF - ones_complement(frame[start:]) or 0xFFFF
    assert (
        done == bytes(2) + hints + struct.pack("<HHH", 0, 0, 9) + frame[:at] + want.to_bytes(2, "big") + frame[at + 2 :]
    )


def test_a_complete_packet_is_left_alone() -> None:
    plain = packet(b"frame", 3, 1, flags=0)
    assert complete_checksum(plain) is plain
    assert as_received(plain, False) is plain
    assert as_received(plain, True) is plain


def test_as_received() -> None:
    frame, _ = udp(b"payload")
    asked = packet(frame, UDP_AT, 6)
    assert as_received(asked, True) is asked
    assert as_received(asked, False) == complete_checksum(asked)
    # what the sender says of validity, or in flags that we do not know, is not the device's word
    more = packet(frame, UDP_AT, 6, HDR_F_NEEDS_CSUM | HDR_F_DATA_VALID | 0x80)
    assert as_received(more, True) == asked
    assert as_received(more, False) == complete_checksum(asked)
    valid = packet(frame, 0, 0, HDR_F_DATA_VALID)
    assert as_received(valid, True) == as_received(valid, False) == TX_PLAIN + frame


@pytest.mark.parametrize("guest_csum", [True, False])
def test_as_received_passes_no_offsets_beyond_the_frame(guest_csum: bool) -> None:
    with pytest.raises(RemoteError, match="csum_offset"):
        as_received(packet(bytes(60), 20, 39), guest_csum)


# --- what may be transmitted ------------------------------------------------------------------------------------------


def test_headers_that_may_be_transmitted() -> None:
    check_header(TX_PLAIN + bytes(60), 0)
    # the device must not look at these without NEEDS_CSUM, nor at flags that it does not know
    check_header(packet(bytes(60), 0xFFFF, 0xFFFF, flags=0), 0)
    check_header(packet(bytes(60), 0xFFFF, 0xFFFF, flags=HDR_F_DATA_VALID | 0x80), 0)
    check_header(packet(bytes(60), 34, 16), CSUM)
    check_header(packet(bytes(60), 58, 0), CSUM)
    check_header(packet(bytes(60), 0, 58), CSUM)


@pytest.mark.parametrize(
    ("data", "features", "field", "limit"),
    [
        (bytes(11), CSUM, "header", 12),
        (packet(bytes(60), 34, 16), CSUM & ~Feature.NET_CSUM.bit, "flags", 0),
        (packet(bytes(60), 34, 25), CSUM, "csum_offset", 24),
        (packet(bytes(60), 59, 0), CSUM, "csum_start", 58),
        (packet(bytes(60), 0xFFFF, 0xFFFF), CSUM, "csum_start", 58),
        (NET_HEADER.pack(0, 1, 54, 1448, 0, 0, 0) + bytes(60), CSUM, "gso_type", 0),
        (NET_HEADER.pack(0, 0x80, 0, 0, 0, 0, 0) + bytes(60), CSUM, "gso_type", 0),
    ],
)
def test_headers_that_may_not(data: bytes, features: int, field: str, limit: int) -> None:
    with pytest.raises(RemoteError) as caught:
        check_header(data, features)
    assert (caught.value.field, caught.value.limit) == (field, limit)
