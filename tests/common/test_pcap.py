"""Frames out of capture files, good ones and others."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import pcap
from common.errors import RemoteError
from common.pcap import (
    INBOUND,
    OUTBOUND,
    interface_block,
    packet_block,
    read_capture,
    read_frames,
    section_block,
)
from services.vdpa_nic.config import DEFAULT_CAPTURE

FRAMES = [bytes([n]) * (12 + n) for n in range(9)]


def capture(frames: list[bytes], link_type: int = dpkt.pcap.DLT_EN10MB, *, ng: bool = False) -> io.BytesIO:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file) if ng else dpkt.pcap.Writer(file, linktype=link_type)
    for frame in frames:
        writer.writepkt(frame, ts=1.0)
    file.seek(0)
    return file


@pytest.mark.parametrize("ng", [False, True])
def test_frames_in_order_that_fit(ng: bool) -> None:
    assert read_frames(capture(FRAMES, ng=ng), 17) == FRAMES[2:6], "14 to 17 bytes"


@pytest.mark.parametrize("make", [dpkt.pcap.Writer, dpkt.pcapng.Writer, lambda file: dpkt.pcap.Writer(file, nano=True)])
def test_times(make: Callable[[io.BytesIO], Any]) -> None:
    file = io.BytesIO()
    writer = make(file)
    writer.writepkts([(7.25, FRAMES[4]), (7.5, FRAMES[0]), (8.125, FRAMES[2])])
    file.seek(0)
    times = read_capture(file, 100)
    assert times == [(7.25, FRAMES[4]), (8.125, FRAMES[2])]
    assert {type(time) for time, _ in times} == {float}


def test_another_link_type() -> None:
    with pytest.raises(RemoteError) as caught:
        read_frames(capture(FRAMES, 113), 100)
    assert (caught.value.field, caught.value.value) == ("pcap.link_type", 113)


@pytest.mark.parametrize("data", [b"", b"no capture", b"\xd4\xc3\xb2\xa1"])
def test_no_capture(data: bytes) -> None:
    with pytest.raises(RemoteError, match="pcap"):
        read_frames(io.BytesIO(data), 100)


def test_nothing_that_fits() -> None:
    with pytest.raises(RemoteError, match="no frame of 14 to 13 bytes"):
        read_frames(capture(FRAMES), 13)


def test_a_bound_on_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap, "MAX_FRAMES", 3)
    assert read_frames(capture(FRAMES), 100) == FRAMES[2:5]


def test_an_option_without_its_value() -> None:
    """if_tsresol of no bytes: dpkt does not look before it unpacks."""
    options = [dpkt.pcapng.PcapngOptionLE(code=9, data=b""), dpkt.pcapng.PcapngOptionLE(code=0)]
    block = dpkt.pcapng.InterfaceDescriptionBlockLE(snaplen=100, opts=options)
    with pytest.raises(RemoteError, match="pcap"):
        read_frames(io.BytesIO(section_block() + bytes(block)), 100)


@given(
    ng=st.booleans(),
    cut=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_are_refused_or_read(ng: bool, cut: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(capture(FRAMES, ng=ng).getvalue()[: 400 - cut])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    try:
        frames = read_frames(io.BytesIO(bytes(data)), 1500)
    except RemoteError:
        return
    assert all(14 <= len(frame) <= 1500 for frame in frames)


def test_the_capture_that_ships() -> None:
    with Path(DEFAULT_CAPTURE).open("rb") as file:
        assert len(read_frames(file, 1518)) > 10


# --- writing ----------------------------------------------------------------------------------------------------------


def written(lengths: list[int], snaplen: int) -> bytes:
    frames = [bytes([n & 255]) * n for n in lengths]
    blocks = [packet_block(0, 3, OUTBOUND, 1.7e9 + n, frame, snaplen) for n, frame in enumerate(frames)]
    return b"".join([section_block(), interface_block("guest0", snaplen), *blocks])


@given(lengths=st.lists(st.integers(14, 1600), min_size=1, max_size=9), snaplen=st.integers(14, 1600))
def test_what_is_written_is_read(lengths: list[int], snaplen: int) -> None:
    frames = read_capture(io.BytesIO(written(lengths, snaplen)), 2000)
    assert frames == [(1.7e9 + at, bytes([n & 255]) * min(n, snaplen)) for at, n in enumerate(lengths)]


def test_blocks_by_the_letter() -> None:
    """Each field where draft-ietf-opsawg-pcapng has it; dpkt's reader overlooks lengths, directions and queues."""
    interface = interface_block("q", 96)
    assert interface == struct.pack("<IIHHI HHs3x HHI", 1, 32, 1, 0, 96, 2, 1, b"q", 0, 0, 32)
    packet = packet_block(5, 2, INBOUND, 4295.5, b"abcdefg", 6)
    stamp = 4295500000
    assert packet == struct.pack(
        "<IIIIIII 6s2x HHI HHI HH I",
        6, 60, 5, stamp >> 32, stamp & 0xFFFF_FFFF, 6, 7, b"abcdef", 2, 4, 1, 6, 4, 2, 0, 0, 60,
    )  # fmt: skip
    assert stamp >> 32 == 1, "else the high word was not tested"
    assert section_block() == struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
