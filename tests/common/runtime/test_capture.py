"""common.runtime.capture: the tap on real links, bounds, filters."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from common.errors import BackpressureError
from common.runtime.capture import CaptureHub, link_matches
from common.runtime.clock import ManualClock
from common.runtime.link import LinkClient
from common.runtime.metrics import Metrics
from common.wire.codec import encode_body
from common.wire.framing import frame
from common.wire.messages import Call, Return


@pytest.mark.parametrize(
    ("name", "wanted", "matches"),
    [
        ("guest/vm0", "", True),
        ("guest/vm0", "guest", True),
        ("guest/vm0", "guest/vm0", True),
        ("guest/vm01", "guest/vm0", False),
        ("its", "it", False),
    ],
)
def test_a_link_is_meant_by_role_or_by_name(name: str, wanted: str, matches: bool) -> None:
    assert link_matches(name, wanted) is matches


async def _records(recorder: Any) -> list[Any]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(await recorder.chunk(0.01))
    return list(unpacker)


async def test_a_tap_on_a_link_sees_both_directions_and_no_handshake(
    serve: Any, handler: Any, metrics: Metrics, dial: Any
) -> None:
    hub = CaptureHub(metrics, ManualClock(1000.5))
    recorder = hub.open()
    server = await serve(capture=hub)
    handler.on_frame = lambda link, message: link.send(Return(message.seq, 0))
    peer = await dial(server.port)
    await peer.greet(guest="vm0")
    peer.write(Call(1, "op", []), Call(2, "op", []))
    assert await peer.read() == Return(1, 0)
    records = await _records(recorder)
    assert b"s3cret" not in repr(records).encode()
    calls = [record for record in records if record[2] == "in"]
    assert calls == [[1000.5, "guest/vm0", "in", encode_body(Call(n, "op", []))] for n in (1, 2)]
    answers = [record[3] for record in records if record[2] == "out"]
    assert answers[-2:] == [encode_body(Return(n, 0)) for n in (1, 2)]
    recorder.close()
    assert hub.tap is None
    peer.write(Call(3, "op", []))
    await handler.until(lambda: len(handler.frames) == 3)
    assert await _records(recorder) == []
    assert metrics.value("ringmesh_capture_records_total") == len(records)


async def test_a_full_buffer_drops_and_counts(metrics: Metrics) -> None:
    hub = CaptureHub(metrics, buffer_limit=100)
    recorder = hub.open()
    hub.received("guest", [bytes(40)] * 5)
    assert (recorder.taken, recorder.dropped) == (1, 4)
    assert metrics.value("ringmesh_capture_dropped_total") == 4
    assert len(await _records(recorder)) == 1
    hub.received("guest", [bytes(40)])
    assert len(await _records(recorder)) == 1


async def test_each_recorder_gets_what_it_asked_for() -> None:
    hub = CaptureHub(max_recorders=2)
    guest, out = hub.open("guest"), hub.open("", "out")
    hub.received("guest/vm0", [b"a"])
    hub.sent("its", frame(b"b"))
    assert [record[1:] for record in await _records(guest)] == [["guest/vm0", "in", b"a"]]
    assert [record[1:] for record in await _records(out)] == [["its", "out", b"b"]]
    with pytest.raises(BackpressureError, match="2 captures"):
        hub.open()
    guest.close()
    guest.close()
    assert hub.tap is hub
    hub.received("guest/vm0", [b"nobody wants this"])
    out.close()
    assert hub.tap is None


async def test_a_client_does_not_record_its_own_hello(serve: Any, noting: Any, metrics: Metrics) -> None:
    hub = CaptureHub()
    recorder = hub.open()
    server = await serve()
    mine = noting()
    client = LinkClient(
        role="guest", peer="scmi", host="127.0.0.1", port=server.port, token="s3cret", epoch=1, handler=mine,
        metrics=metrics, capture=hub,
    )  # fmt: skip
    await client.start()
    await mine.until(lambda: mine.link is not None)
    mine.link.send(Call(1, "op", []))
    mine.link.flush()
    assert [record[1:] for record in await _records(recorder)] == [["scmi", "out", encode_body(Call(1, "op", []))]]
    await client.close()
