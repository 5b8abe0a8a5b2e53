"""``ringmesh scmi trace`` against the routes of a real guest service with an agent under it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from common.errors import LinkDownError, RemoteError
from common.runtime.admin import Admin
from common.runtime.clock import monotonic
from common.runtime.metrics import Metrics
from services.guest_driver.scmi_session import connect
from services.guest_driver.tracing import Tracing as Routes
from services.guest_driver.tracing import TracingRequest
from services.scmi_cli.trace import Tracing, trace
from tests.services.guest_driver.mesh_rig import until, within
from tests.services.scmi_cli.conftest import TOKEN, scmi


class Guest:
    """An agent at a real platform, traced by the routes of the guest service."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.admin = Admin(metrics=Metrics("guest"), ready=list, token=TOKEN)
        routes = Routes({"vm": agent}, monotonic)
        self.admin.get("/tracing", routes.state)
        self.admin.post("/tracing", routes.switch, TracingRequest)
        self.admin.get("/tracing/trace", routes.trace)
        self.admin.post("/tracing/pipe", lambda _body: routes.pipe())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin.port}"


@pytest.fixture
async def guest(platform: str) -> AsyncIterator[Guest]:
    async with connect(platform, token=TOKEN) as agent:
        made = Guest(agent)
        await made.admin.start("127.0.0.1", 0)
        yield made
        await made.admin.close()


async def test_on_look_off(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    async with Tracing(guest.url + "/", TOKEN) as tracing:
        await within(trace(tracing, None, [], "", False, False))
        assert capsys.readouterr().err == "nothing is traced; --on turns it on\n"
        await within(trace(tracing, True, ["scmi_msg_dump"], "", False, False))
        assert capsys.readouterr().out == "vm: scmi_msg_dump\n"
        await within(guest.agent.clock.rate_get(0))
        await within(trace(tracing, None, [], "", False, False))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(" t=")[1][:4] for line in lines] == ["CMND", "RESP"]
        await within(trace(tracing, None, [], "", False, True))
        assert [json.loads(line)["line"] for line in capsys.readouterr().out.splitlines()] == lines, "it stays"
        await within(trace(tracing, False, [], "vm", False, True))
        assert json.loads(capsys.readouterr().out)["guests"] == {"vm": []}


async def test_follow_gives_each_line_once_and_turns_off_what_it_turned_on(
    guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Tracing(guest.url, TOKEN) as tracing:
        following = asyncio.ensure_future(trace(tracing, True, ["scmi_xfer_end"], "", True, False))
        await until(lambda: guest.agent.tracer is not None)
        said = ""
        for count in (1, 2):
            await within(guest.agent.clock.rate_get(0))
            async with asyncio.timeout(20):
                while said.count("\n") < count:
                    said += capsys.readouterr().out
                    await asyncio.sleep(0.02)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(following)
        assert said.count("scmi_xfer_end") == 2 == said.count("\n")
        assert guest.agent.tracer is None


async def test_errors(guest: Guest) -> None:
    async with Tracing(guest.url, TOKEN) as tracing:
        with pytest.raises(RemoteError, match="no_such_event"):
            await within(tracing.switch(True, ["no_such_event"], ""))
        with pytest.raises(RemoteError, match="vm9"):
            await within(tracing.switch(True, [], "vm9"))
    async with Tracing(guest.url, "guessed") as tracing:
        with pytest.raises(RemoteError, match="401"):
            await within(tracing.switch(True, [], ""))
    async with Tracing("http://127.0.0.1:1", "") as tracing:
        with pytest.raises(LinkDownError, match=r"127\.0\.0\.1:1"):
            await within(tracing.state())


async def test_a_service_that_has_no_agents() -> None:
    admin = Admin(metrics=Metrics("nic"), ready=list, token="")
    await admin.start("127.0.0.1", 0)
    async with Tracing(f"http://127.0.0.1:{admin.port}", "") as tracing:
        with pytest.raises(RemoteError, match=r"404|no guest service"):
            await within(tracing.state())
    await admin.close()


@pytest.mark.parametrize(
    "answer",
    [
        [], "text", 3, None, {}, {"lines": 3}, {"lines": [3]}, {"guests": []}, {"guests": {"vm": 3}},
        {"guests": {"vm": [3]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 404])
async def test_another_service_that_speaks_json(answer: Any, status: int) -> None:
    async def say(_request: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", say)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Tracing(url, "") as tracing:
        for ask in (tracing.state, lambda: tracing.switch(True, [], ""), tracing.held, tracing.pipe):
            with pytest.raises(RemoteError, match=r"no guest service|404"):
                await within(ask())
    said = await asyncio.to_thread(scmi, "trace", url)
    assert said.code == 1
    assert said.err.startswith("ringmesh scmi: ")
    await runner.cleanup()


def test_the_command() -> None:
    assert scmi("trace").code == 2
    result = scmi("trace", "nonsense")
    assert result.code == 2
    assert "is not a URL" in result.err
    result = scmi("trace", "http://127.0.0.1:1")
    assert result.code == 1
    assert result.err.startswith("ringmesh scmi: tracing = 'http://127.0.0.1:1'")
