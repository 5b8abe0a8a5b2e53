"""struct virtio_net_hdr as VERSION_1 devices use it (virtio 1.3 §5.1.6): 12 bytes before every frame."""

from __future__ import annotations

import struct
from typing import Final

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
