"""common.runtime.recording: capture files from a running endpoint, filters, printing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import pytest

from common.errors import FrameError, LinkDownError, RemoteError
from common.runtime.admin import Admin
from common.runtime.capture import CaptureHub
from common.runtime.metrics import Metrics
from common.runtime.recording import FIELDS, Filter, Record, line, read, record, show
from common.wire.codec import encode_body
from common.wire.messages import AnyMessage, Avail, Call, Kick, Used


def _file(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "capture.msgpack"
    path.write_bytes(b"".join(msgpack.packb(r) if not isinstance(r, bytes) else r for r in records))
    return path


def _frames() -> list[list[Any]]:
    return [
        [1.25, "guest/vm0", "in", encode_body(Avail(3, 1, 9, [(2, b"\x01" * 40, [(4096, 40, 0)])], 8))],
        [2.0, "guest/vm0", "out", encode_body(Used(3, 8, [(2, b"")]))],
        [3.0, "guest/vm1", "out", encode_body(Kick(4))],
        [4.0, "guest/vm0", "in", encode_body(Call(1, "set_status", [4]))],
    ]


def test_every_message_has_field_names() -> None:
    assert set(FIELDS) == {cls.__struct_config__.tag for cls in AnyMessage.__args__}
    assert FIELDS["kick"] == ("queue",)


def test_reading_gives_back_what_was_recorded(tmp_path: Path) -> None:
    assert list(read(_file(tmp_path, *_frames()))) == [Record(*r) for r in _frames()]


@pytest.mark.parametrize(
    ("filters", "times"),
    [
        (Filter(), [1.25, 2.0, 3.0, 4.0]),
        (Filter(link="guest"), [1.25, 2.0, 3.0, 4.0]),
        (Filter(link="guest/vm1"), [3.0]),
        (Filter(direction="in"), [1.25, 4.0]),
        (Filter(tag="used"), [2.0]),
        (Filter(queue=3), [1.25, 2.0]),
        (Filter(queue=3, tag="call"), []),
        (Filter(queue=4, direction="out"), [3.0]),
    ],
)
def test_filters(tmp_path: Path, filters: Filter, times: list[float]) -> None:
    assert [r.time for r in read(_file(tmp_path, *_frames()), filters)] == times


def test_a_line_names_fields_and_shortens_payloads(tmp_path: Path) -> None:
    first, second, third, fourth = show(_file(tmp_path, *_frames()))
    head, fields = first.split(" <- ")
    assert head.split()[0].endswith("01.250000")
    assert head.split()[1] == "guest/vm0"
    assert fields == (
        "avail      queue=3 generation=1 first_idx=9 chains=[[2, " + "01" * 16 + "…(40), [[4096, 40, 0]]]] "
        "used_idx=8 again=False"
    )
    assert second.endswith("-> used       queue=3 first_idx=8 elems=[[2, -]]")
    assert third.endswith("guest/vm1    -> kick       queue=4")
    assert fourth.endswith("<- call       seq=1 op='set_status' args=[4]")


def test_an_unknown_tag_is_printed_by_position() -> None:
    assert line(Record(0.0, "x", "in", msgpack.packb(["future", 1, "a"]))).endswith("<- future     0=1 1='a'")
    assert line(Record(0.0, "x", "in", msgpack.packb(["kick", 1, 2]))).endswith("<- kick       queue=1 1=2")


@pytest.mark.parametrize(
    ("bad", "number"),
    [
        ([1.0, "x", "in"], 4),
        ([1, "x", "in", b""], 4),
        ([1.0, "x", "up", b""], 4),
        ({"time": 1}, 4),
        (b"\xc1", 4),
        (msgpack.packb(_frames()[0])[:-1], 4),
        (msgpack.packb([1.0, "x", "in", bytes(200_000)]), 4),
    ],
)
def test_a_damaged_file_names_the_record(tmp_path: Path, bad: Any, number: int) -> None:
    with pytest.raises(FrameError) as caught:
        list(read(_file(tmp_path, *_frames(), bad)))
    assert (caught.value.field, caught.value.value) == ("record", number)


@pytest.mark.parametrize("frame", [b"", b"\x07", b"\x90", b"\x91\x01", b"\xc1", b"\x91"])
def test_a_frame_that_is_no_message_is_a_frame_error(frame: bytes) -> None:
    with pytest.raises(FrameError):
        Record(0.0, "x", "in", frame).message()


async def test_recording_from_an_endpoint(tmp_path: Path, metrics: Metrics) -> None:
    hub = CaptureHub(metrics)
    admin = Admin(metrics=metrics, ready=list, token="s3cret", capture=hub)
    await admin.start("127.0.0.1", 0)
    url = f"http://127.0.0.1:{admin.port}/"
    path = tmp_path / "out.msgpack"
    task = asyncio.create_task(record(url, path, link="guest", direction="in", seconds=0.3, token="s3cret"))
    async with asyncio.timeout(10):
        while hub.tap is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    hub.received("guest/vm0", [encode_body(Kick(1)), encode_body(Kick(2))])
    size = await task
    assert size == path.stat().st_size > 0
    assert [r.message() for r in read(path)] == [["kick", 1], ["kick", 2]]
    with pytest.raises(RemoteError, match="401"):
        await record(url, path, seconds=0.1)
    await admin.close()
    with pytest.raises(LinkDownError):
        await record(url, path, seconds=0.1)
