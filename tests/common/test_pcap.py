"""Frames out of capture files, good ones and others."""

from __future__ import annotations

import io
from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import pcap
from common.errors import RemoteError
from common.pcap import read_frames
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
