"""Captures of Ethernet frames: pcap and pcapng read, by dpkt; pcapng written.

pcapng, because it alone says of each frame which interface it passed and in which direction. Its blocks for packets
are packed here: dpkt's writer knows no frame that was cut short.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

import dpkt
from dpkt import pcapng

from common.errors import RemoteError

#: More frames than this are not read.
MAX_FRAMES: Final = 65536
#: Shortest frame: an Ethernet header.
MIN_BYTES: Final = 14

#: Direction of a frame as its interface sees it (epb_flags, bits 0 and 1).
INBOUND: Final = 1
OUTBOUND: Final = 2

#: What a pcapng file begins with.
SECTION_TYPE: Final = bytes.fromhex("0a0d0d0a")

_OPT_IF_NAME: Final = 2
_OPT_EPB_FLAGS: Final = 2
_OPT_EPB_QUEUE: Final = 6
#: block type and length, interface, time stamp (high, low), captured and original length
_PACKET: Final = struct.Struct("<7I")
#: epb_flags, epb_queue, opt_endofopt, and the block's length again
_PACKET_END: Final = struct.Struct("<HHI HHI HH I")


def read_capture(file: BinaryIO, longest: int) -> list[tuple[float, bytes]]:
    """Ethernet frames of a pcap or pcapng file with their time stamps (seconds), in order; those longer than
    ``longest`` bytes are left out.

    Raises RemoteError if the file is no capture, holds another link type, or no frame that fits.
    """
    try:
        reader = dpkt.pcap.UniversalReader(file)
        link_type = reader.datalink()
        if link_type != dpkt.pcap.DLT_EN10MB:
            raise RemoteError("pcap.link_type", link_type, dpkt.pcap.DLT_EN10MB, "not Ethernet")
        frames = []
        for time, frame in reader:
            if MIN_BYTES <= len(frame) <= longest:
                frames.append((float(time), bytes(frame)))
                if len(frames) == MAX_FRAMES:
                    break
    except (ValueError, struct.error, dpkt.Error) as error:
        raise RemoteError("pcap", None, None, str(error)) from None
    if not frames:
        raise RemoteError("pcap.frames", 0, None, f"no frame of {MIN_BYTES} to {longest} bytes")
    return frames


def read_frames(file: BinaryIO, longest: int) -> list[bytes]:
    """As :func:`read_capture`, without the times."""
    return [frame for _, frame in read_capture(file, longest)]


def section_block() -> bytes:
    """What a pcapng file begins with."""
    return bytes(pcapng.SectionHeaderBlockLE())


def interface_block(name: str, snaplen: int) -> bytes:
    """An Ethernet interface; the first one of a file is number 0. Time stamps count microseconds (the default)."""
    options = [
        pcapng.PcapngOptionLE(code=_OPT_IF_NAME, data=name.encode()),
        pcapng.PcapngOptionLE(code=pcapng.PCAPNG_OPT_ENDOFOPT),
    ]
    return bytes(pcapng.InterfaceDescriptionBlockLE(snaplen=snaplen, opts=options))


def packet_block(interface: int, queue: int, direction: int, time: float, frame: bytes, snaplen: int) -> bytes:
    """A frame that passed ``interface`` on its queue ``queue`` at ``time`` (seconds since 1970), at most ``snaplen``
    bytes of it."""
    kept = frame[:snaplen]
    padding = -len(kept) & 3
    size = _PACKET.size + len(kept) + padding + _PACKET_END.size
    stamp = round(time * 1e6)
    start = _PACKET.pack(pcapng.PCAPNG_BT_EPB, size, interface, stamp >> 32, stamp & 0xFFFF_FFFF, len(kept), len(frame))
    end = _PACKET_END.pack(_OPT_EPB_FLAGS, 4, direction, _OPT_EPB_QUEUE, 4, queue, 0, 0, size)
    return start + kept + bytes(padding) + end
