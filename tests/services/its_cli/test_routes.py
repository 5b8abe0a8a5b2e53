"""The ITS of a mesh over HTTP: answers, refusals, strangers."""

from __future__ import annotations

import pytest
from aiohttp import web

from common.errors import LinkDownError, RemoteError
from common.gic.saved import decode, encode
from common.runtime.admin import MAX_BODY
from services.its_cli.routes import ItsOfMesh, Restored
from tests.common.gic.its_memory import SMALL
from tests.services.guest_driver.test_its_routes import OTHER, Mesh, saved
from tests.services.its_cli.conftest import TOKEN


async def test_save_and_restore(mesh: Mesh) -> None:
    async with ItsOfMesh(mesh.url + "/", TOKEN, "guest1") as its:
        assert decode(await its.save()) == saved(OTHER)
        assert await its.restore(encode(saved(SMALL))) == Restored("guest1", 2)
        assert decode(await its.save()) == saved(SMALL)


async def test_refusals_are_told(mesh: Mesh) -> None:
    async with ItsOfMesh(mesh.url, TOKEN) as its:
        with pytest.raises(RemoteError, match=r"400: guest = '' \(limit 'guest0, guest1'\)"):
            await its.save()
    async with ItsOfMesh(mesh.url, "wrong", "guest0") as its:
        with pytest.raises(RemoteError, match="401: a Bearer token is required"):
            await its.save()


async def test_a_file_that_is_too_large_for_the_endpoint(mesh: Mesh) -> None:
    async with ItsOfMesh(mesh.url, TOKEN, "guest0") as its:
        await its.restore(encode(saved(SMALL)))
        with pytest.raises(RemoteError, match="more bytes than an admin endpoint takes") as caught:
            await its.restore(bytes(MAX_BODY))
        assert caught.value.limit == MAX_BODY


async def test_nobody_there() -> None:
    async with ItsOfMesh("http://127.0.0.1:1", "") as its:
        with pytest.raises(LinkDownError, match=r"127\.0\.0\.1:1"):
            await its.save()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<html>", 200),
        ("[]", 200),
        ('{"guest": "g"}', 200),
        ("<html>", 404),
        ('{"error": "there is no /its/save"}', 404),
    ],
)
async def test_a_stranger(text: str, status: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ItsOfMesh(f"http://127.0.0.1:{runner.addresses[0][1]}", "") as its:
            with pytest.raises(RemoteError, match="no guest service answers there"):
                await its.save()
    finally:
        await runner.cleanup()
