"""common.runtime.admin: routes, tokens, bad input, captures."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgpack
import msgspec
import pytest

from common.errors import BackpressureError, ConfigError, LocalError, RemoteError
from common.runtime.admin import MAX_BODY, Admin
from common.runtime.capture import CaptureHub
from common.runtime.metrics import Metrics
from common.wire.framing import frame

GUARD = 10.0
Ask = Callable[..., Awaitable[tuple[int, Any]]]


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    rate: int
    name: str = ""


class _Rig:
    def __init__(self, metrics: Metrics, token: str, session: aiohttp.ClientSession) -> None:
        self.reasons: list[str] = []
        self.hub = CaptureHub(metrics)
        self.admin = Admin(metrics=metrics, ready=lambda: self.reasons, token=token, capture=self.hub)
        self.session = session

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin.port}{path}"

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url(path), **options) as response:
            return response.status, await response.json()


@pytest.fixture
async def make(metrics: Metrics) -> AsyncIterator[Callable[..., Awaitable[_Rig]]]:
    rigs: list[_Rig] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GUARD)) as session:

        async def start(token: str = "") -> _Rig:
            rigs.append(_Rig(metrics, token, session))
            await rigs[-1].admin.start("127.0.0.1", 0)
            return rigs[-1]

        yield start
        for rig in rigs:
            await rig.admin.close()


async def test_metrics_health_and_readiness(make: Any) -> None:
    rig = await make()
    async with rig.session.get(rig.url("/metrics")) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "ringmesh_build_info" in await response.text()
    assert await rig.ask("GET", "/healthz") == (200, {"status": "ok"})
    assert await rig.ask("GET", "/readyz") == (200, {"ready": True, "reasons": []})
    rig.reasons.append("link to its is down")
    assert await rig.ask("GET", "/readyz") == (503, {"ready": False, "reasons": ["link to its is down"]})


async def test_services_add_routes_before_and_after_start(make: Any) -> None:
    rig = await make()

    async def report() -> dict[str, int]:
        return {"sent": 3}

    rig.admin.get("/report", report)
    rig.admin.post("/load", lambda load: {"rate": load.rate}, _Load)
    rig.admin.post("/stop", lambda body: body)
    assert await rig.ask("GET", "/report") == (200, {"sent": 3})
    assert await rig.ask("POST", "/load", json={"rate": 5}) == (200, {"rate": 5})
    assert await rig.ask("POST", "/stop") == (200, {})
    with pytest.raises(LocalError, match="already served"):
        rig.admin.get("/report", report)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"rate": "x"}', "rate"),
        (b'{"rate": 1, "colour": 2}', "colour"),
        (b"{}", "rate"),
        (b"[1]", "body"),
        (b"{", "body"),
    ],
)
async def test_a_bad_body_is_answered_with_its_field(make: Any, body: bytes, field: str) -> None:
    rig = await make()
    rig.admin.post("/load", lambda load: None, _Load)
    status, answer = await rig.ask("POST", "/load", data=body)
    assert (status, answer["field"]) == (400, field)
    assert answer["error"]


async def test_errors_of_handlers_have_their_statuses(make: Any) -> None:
    rig = await make()

    def fails_with(error: Exception) -> Callable[[Any], Any]:
        def handler(_body: Any) -> Any:
            raise error

        return handler

    rig.admin.post("/remote", fails_with(RemoteError("guests", 99, 8)))
    rig.admin.post("/busy", fails_with(BackpressureError("full")))
    rig.admin.post("/local", fails_with(LocalError("is running already")))
    rig.admin.post("/bug", fails_with(KeyError("internals")))
    assert await rig.ask("POST", "/remote") == (400, {"error": "guests = 99 (limit 8)", "field": "guests"})
    assert await rig.ask("POST", "/busy") == (429, {"error": "full", "field": ""})
    assert await rig.ask("POST", "/local") == (409, {"error": "is running already", "field": ""})
    status, answer = await rig.ask("POST", "/bug")
    assert (status, "internals" in answer["error"]) == (500, False)
    status, answer = await rig.ask("POST", "/remote", data=io.BytesIO(bytes(MAX_BODY + 1)))
    assert (status, answer["field"]) == (413, "body")


async def test_unknown_paths_and_methods(make: Any) -> None:
    rig = await make()
    assert (await rig.ask("GET", "/nothing"))[0] == 404
    assert (await rig.ask("POST", "/metrics"))[0] == 405
    async with rig.session.head(rig.url("/healthz")) as response:
        assert response.status == 200


async def test_changing_routes_and_captures_want_the_token(make: Any) -> None:
    rig = await make("s3cret")
    rig.admin.post("/stop", lambda body: {"stopped": True})
    rig.admin.get("/payloads", lambda: {"lines": []}, guarded=True)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        assert (await rig.ask("GET", "/payloads", headers=headers))[0] == 401
        assert (await rig.ask("POST", "/stop", headers=headers))[0] == 401
        assert (await rig.ask("GET", "/capture?seconds=0.01", headers=headers))[0] == 401
    assert await rig.ask("POST", "/stop", headers={"Authorization": "Bearer s3cret"}) == (200, {"stopped": True})
    assert (await rig.ask("GET", "/readyz"))[0] == 200


async def test_web_pages_cannot_post_where_no_token_is_set(make: Any) -> None:
    rig = await make()
    rig.admin.post("/stop", lambda body: {})
    assert (await rig.ask("POST", "/stop", headers={"Origin": "http://evil.example"}))[0] == 403


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("seconds=x", "seconds"),
        ("seconds=0", "seconds"),
        ("seconds=nan", "seconds"),
        ("seconds=1e9", "seconds"),
        ("direction=up", "direction"),
        ("colour=red", "colour"),
    ],
)
async def test_a_bad_capture_query_is_answered_with_its_field(make: Any, query: str, field: str) -> None:
    rig = await make()
    status, answer = await rig.ask("GET", f"/capture?{query}")
    assert (status, answer["field"]) == (400, field)
    assert rig.hub.tap is None


async def test_a_capture_streams_records_and_ends(make: Any) -> None:
    rig = await make()
    async with rig.session.get(rig.url("/capture?seconds=0.3&link=guest&direction=out")) as response:
        assert response.status == 200
        rig.hub.tap.received("guest", [b"in"])
        rig.hub.tap.sent("guest/vm0", frame(b"one") + frame(b"two"))
        rig.hub.tap.sent("its", frame(b"other"))
        data = await response.read()
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    assert [record[1:] for record in unpacker] == [["guest/vm0", "out", b"one"], ["guest/vm0", "out", b"two"]]
    assert rig.hub.tap is None


async def test_a_capture_whose_reader_left_is_closed(make: Any) -> None:
    rig = await make()
    response = await rig.session.get(rig.url("/capture?seconds=600"))
    assert rig.hub.tap is not None
    response.close()
    async with asyncio.timeout(GUARD):
        while rig.hub.tap is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_closing_ends_captures(make: Any) -> None:
    rig = await make()
    async with rig.session.get(rig.url("/capture?seconds=600")) as response:
        async with asyncio.timeout(GUARD):
            await rig.admin.close()
        assert await response.read() == b""


async def test_too_many_captures_are_refused(make: Any) -> None:
    rig = await make()
    recorders = [rig.hub.open() for _ in range(4)]
    assert (await rig.ask("GET", "/capture"))[0] == 429
    for recorder in recorders:
        recorder.close()


async def test_an_address_in_use_is_a_config_error(make: Any, metrics: Metrics) -> None:
    rig = await make()
    other = Admin(metrics=metrics, ready=list)
    with pytest.raises(LocalError, match="not started"):
        _ = other.port
    with pytest.raises(ConfigError, match="cannot listen"):
        await other.start("127.0.0.1", rig.admin.port)
    await other.close()
