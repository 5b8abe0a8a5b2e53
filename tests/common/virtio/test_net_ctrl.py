"""The numbers and layouts of the control queue's commands, virtio 1.3 §5.1.6.5."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.virtio.features import Feature
from common.virtio.net_ctrl import (
    COMMANDS,
    CTRL_HEADER,
    GUEST_OFFLOADS,
    NET_ERR,
    NET_OK,
    OFFLOADS,
    VLAN_ID,
    VQ_PAIRS,
    ctrl_name,
    decode_mac_table,
    encode_mac_table,
)
from tests.common.virtio.ringkit import PROFILE

ADDRESS = st.binary(min_size=6, max_size=6)
ONE = bytes.fromhex("020000000001")
GROUP = bytes.fromhex("01005e000001")


def test_every_command_by_number() -> None:
    """(class, command): name, feature, bytes of data."""
    rx, extra = Feature.NET_CTRL_RX, Feature.NET_CTRL_RX_EXTRA
    assert {key: (ctrl_name(*key), row.feature, row.size, row.longer) for key, row in COMMANDS.items()} == {
        (0, 0): ("RX.PROMISC", rx, 1, False),
        (0, 1): ("RX.ALLMULTI", rx, 1, False),
        (0, 2): ("RX.ALLUNI", extra, 1, False),
        (0, 3): ("RX.NOMULTI", extra, 1, False),
        (0, 4): ("RX.NOUNI", extra, 1, False),
        (0, 5): ("RX.NOBCAST", extra, 1, False),
        (1, 0): ("MAC.TABLE_SET", rx, 8, True),
        (1, 1): ("MAC.ADDR_SET", Feature.NET_CTRL_MAC_ADDR, 6, False),
        (2, 0): ("VLAN.ADD", Feature.NET_CTRL_VLAN, 2, False),
        (2, 1): ("VLAN.DEL", Feature.NET_CTRL_VLAN, 2, False),
        (3, 0): ("ANNOUNCE.ACK", Feature.NET_GUEST_ANNOUNCE, 0, False),
        (4, 0): ("MQ.VQ_PAIRS_SET", Feature.NET_MQ, 2, False),
        (5, 0): ("GUEST_OFFLOADS.SET", Feature.NET_CTRL_GUEST_OFFLOADS, 8, False),
    }
    assert ctrl_name(4, 1) == "4.1"
    assert (NET_OK, NET_ERR) == (0, 1)


def test_layouts_are_little_endian() -> None:
    assert CTRL_HEADER.pack(4, 0) == b"\4\0"
    assert VLAN_ID.pack(0x123) == b"\x23\x01"
    assert VQ_PAIRS.pack(0x102) == b"\2\1"
    assert OFFLOADS.pack(GUEST_OFFLOADS) == bytes.fromhex("8207 0000 0000 c000")


def test_mac_table_to_the_byte() -> None:
    assert encode_mac_table([ONE], [GROUP, GROUP]) == b"\1\0\0\0" + ONE + b"\2\0\0\0" + GROUP * 2
    assert encode_mac_table([], []) == bytes(8)


@PROFILE
@given(st.lists(ADDRESS), st.lists(ADDRESS))
def test_mac_tables_come_back(unicast: list[bytes], multicast: list[bytes]) -> None:
    assert decode_mac_table(encode_mac_table(unicast, multicast)) == (unicast, multicast)


@pytest.mark.parametrize(
    ("data", "field", "limit"),
    [
        (b"", "unicast.entries", None),
        (b"\0\0\0", "unicast.entries", None),
        (b"\2\0\0\0" + ONE + bytes(4), "unicast.entries", 1),
        (b"\xff\xff\xff\xff" + ONE, "unicast.entries", 1),
        (bytes(4), "multicast.entries", None),
        (bytes(7), "multicast.entries", None),
        (b"\1\0\0\0" + ONE + b"\1\0\0\0" + GROUP[:5], "multicast.entries", 0),
        (struct.pack("<II", 0, 0x2AAA_AAAB), "multicast.entries", 0),  # 6 times it is 2 modulo 2^32
        (bytes(8) + b"\0", "multicast.entries", None),
        (bytes(4) + b"\1\0\0\0" + GROUP + ONE, "multicast.entries", None),
    ],
)
def test_counts_that_lie(data: bytes, field: str, limit: int | None) -> None:
    with pytest.raises(RemoteError) as caught:
        decode_mac_table(data)
    assert (caught.value.field, caught.value.limit) == (field, limit)
