"""Frames out of a pcap file, by dpkt."""

from __future__ import annotations

from typing import BinaryIO, Final

import dpkt

from common.errors import RemoteError

#: More frames than this are not read.
MAX_FRAMES: Final = 65536
#: Shortest frame: an Ethernet header.
MIN_BYTES: Final = 14


def read_frames(file: BinaryIO, longest: int) -> list[bytes]:
    """Ethernet frames of a pcap or pcapng file, in order; those longer than ``longest`` bytes are left out.

    Raises RemoteError if the file is no capture, holds another link type, or no frame that fits.
    """
    try:
        reader = dpkt.pcap.UniversalReader(file)
        link_type = reader.datalink()
        if link_type != dpkt.pcap.DLT_EN10MB:
            raise RemoteError("pcap.link_type", link_type, dpkt.pcap.DLT_EN10MB, "not Ethernet")
        frames = []
        for _, frame in reader:
            if MIN_BYTES <= len(frame) <= longest:
                frames.append(bytes(frame))
                if len(frames) == MAX_FRAMES:
                    break
    except (ValueError, dpkt.Error) as error:
        raise RemoteError("pcap", None, None, str(error)) from None
    if not frames:
        raise RemoteError("pcap.frames", 0, None, f"no frame of {MIN_BYTES} to {longest} bytes")
    return frames
