"""``GET`` and ``POST /faults`` of a platform that runs: faults come, are counted, and go, under load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.mesh.harness import GUARD, TOKEN, clean, running, scrape, stop

pytestmark = pytest.mark.mesh

SECOND = {"distribution": "constant", "seconds": 0.3}


class Platform:
    """The admin endpoint of the platform."""

    def __init__(self, url: str, token: str = TOKEN) -> None:
        self.url = f"{url}/faults"
        self.headers = {"Authorization": f"Bearer {token}"}

    async def get(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(self.url) as answer:
            assert answer.status == 200
            found: dict[str, Any] = await answer.json()
            return found

    async def post(self, **body: Any) -> tuple[int, dict[str, Any]]:
        async with (
            aiohttp.ClientSession(headers=self.headers) as session,
            session.post(self.url, data=json.dumps(body)) as answer,
        ):
            return answer.status, await answer.json()

    async def until(self, holds: Callable[[dict[str, Any]], Any], guest: str = "guest0") -> dict[str, Any]:
        """The guest's faults, once ``holds`` is true of them."""
        async with asyncio.timeout(GUARD):
            while not holds(shown := (await self.get())["agents"][guest]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return dict(shown)


async def refusals(url: str) -> None:
    """What is not taken changes nothing."""
    platform = Platform(url)
    assert (await Platform(url, "wrong").post(late=1.0))[0] == 401
    for body, field, why in (
        ({"late": 2.0}, "late", "<= 1"),
        ({"lat": 1.0}, "lat", "no such setting"),
        ({"rules": [{"kind": "twice", "only": ["clocks"]}]}, "rules[0]", "clocks"),
        ({"agent": "nobody"}, "agent", "guest0"),
        ({"never": 128}, "faults.never", "127"),
        ({"rules": [{"kind": "never", "count": 100}, {"kind": "never", "count": 28}]}, "faults.rules.count", "127"),
    ):
        status, answer = await platform.post(**body)
        assert (status, answer["field"]) == (400, field), answer
        assert why in answer["error"]
    shown = await platform.get()
    assert not any(shown["agents"]["guest0"]["counts"].values())
    assert shown["agents"]["guest0"]["plan"] == shown["plan"]
    assert shown["plan"]["rules"] == []


async def come_and_go(url: str) -> None:
    platform = Platform(url)
    shown = (await platform.get())["agents"]
    assert sorted(shown) == ["guest0", "guest1"]
    assert "OSPM" in shown["guest0"]["names"]

    # one guest's clock commands are late, the others' are not
    late = {"kind": "delay", "only": ["clock"], "time": SECOND}
    status, answer = await platform.post(agent="guest0", rules=[late, {"kind": "reorder", "only": ["0x15"]}])
    assert status == 200, answer
    assert answer["agents"]["guest0"]["plan"]["after"] == 0, "at once"
    seen = await platform.until(lambda one: one["counts"]["late"] > 10 and one["counts"]["overtaken"])
    assert seen["rules"][0] == seen["counts"]["late"]
    assert seen["held"] > 0
    assert not any((await platform.get())["agents"]["guest1"]["counts"].values())
    metrics = await scrape(url)
    assert metrics.total("ringmesh_scmi_faults_late_total", guest="guest0") >= seen["counts"]["late"]
    assert metrics.total("ringmesh_scmi_faults_late_total", guest="guest1") == 0

    # nothing any more, for all: what was held has gone
    status, answer = await platform.post()
    assert status == 200
    assert (await platform.until(lambda one: not one["held"]))["rules"] == []
    counts = (await platform.get())["agents"]["guest0"]["counts"]
    commands = (await scrape(url)).total("ringmesh_scmi_device_commands_total", guest="guest0")
    async with asyncio.timeout(GUARD):
        while (await scrape(url)).total("ringmesh_scmi_device_commands_total", guest="guest0") < commands + 500:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await platform.get())["agents"]["guest0"]["counts"] == counts

    # a storm of what nobody asked for
    storm = {"kind": "storm", "protocol": "power", "event": "power_state_changed", "per_second": 200, "unasked": True}
    assert (await platform.post(rules=[storm | {"count": 50}]))[0] == 200
    for guest in ("guest0", "guest1"):
        seen = await platform.until(lambda one: sum(one["rules"]) == 50, guest)
        assert seen["counts"]["storm"] + seen["counts"]["storm_dropped"] == 50
        assert seen["counts"]["storm"] > 0
    await platform.post()


def test_faults_come_and_go_and_the_mesh_stays_clean(tmp_path: Path) -> None:
    args = ("--guests", "2", "--set", "WORKLOAD__NET_WINDOW=4")
    with running("up", *args, report=tmp_path / "r.json") as run:
        url = run.services()["scmi"][1]
        asyncio.run(refusals(url))
        asyncio.run(come_and_go(url))
        assert stop(run) == 0, run.text
        assert not clean(run.report()), run.text
    assert run.said("faults on purpose")


async def broken(url: str, guest: str) -> None:
    platform = Platform(url)
    twice = {"kind": "twice", "only": ["clock/rate_get"], "count": 1}
    assert (await platform.post(rules=[twice]))[0] == 200
    seen = await platform.until(lambda one: one["counts"]["double_used"])
    assert seen["rules"] == [1]
    async with asyncio.timeout(GUARD):
        while not (await scrape(guest)).total("ringmesh_scmi_channels_broken_total"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def test_a_chain_used_twice_at_run_time_breaks_the_queue_and_nothing_else(tmp_path: Path) -> None:
    # four commands wait longer than the copy takes, so that its head is nobody else's by then
    args = ("--set", "WORKLOAD__NET_WINDOW=4", "--set", "WORKLOAD__POLLED_OF_FOUR=0")
    with running("up", *args, report=tmp_path / "r.json") as run:
        services = run.services()
        pids = run.pids()
        asyncio.run(broken(services["scmi"][1], services["guest"][1]))
        assert run.pids() == pids
        assert stop(run) == 1, run.text
        assert not any(run.report()["net"][key] for key in ("lost", "duplicated", "corrupted"))
    assert not any("Traceback" in line for line in run.log), run.text
