"""struct virtio_net_hdr, virtio 1.3 §5.1.6: 12 bytes under VERSION_1."""

from __future__ import annotations

from common.virtio.net_header import GSO_NONE, MAX_ETHERNET, NET_HEADER, NET_HEADER_BYTES, RX_PLAIN, TX_PLAIN


def test_headers() -> None:
    assert NET_HEADER_BYTES == NET_HEADER.size == 12
    assert bytes(12) == TX_PLAIN, "num_buffers is 0 on transmission"
    assert bytes(10) + b"\1\0" == RX_PLAIN, "and 1 on reception"
    fields = NET_HEADER.unpack(bytes.fromhex("01030200000400050006 0700"))
    assert fields == (1, 3, 2, 0x400, 0x500, 0x600, 7)
    assert GSO_NONE == 0
    assert MAX_ETHERNET == 1500 + 14 + 4
