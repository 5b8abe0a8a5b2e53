"""The admin routes of the SCMI service that move the board, on a real endpoint and real metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.runtime.admin import Admin
from common.runtime.metrics import Metrics
from services.scmi_platform.control import Control
from tests.services.scmi_platform.scmi_rig import SMALL, Rig, words

PROTOCOLS = Path(__file__).parent / "protocols"
POWER, SYSTEM, RESET, SENSOR = 0x11, 0x12, 0x16, 0x15


class Endpoint:
    """``rig`` behind an admin endpoint; what was logged is in ``logged``."""

    def __init__(self, board: Path) -> None:
        self.rig = Rig(board)
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.metrics = Metrics("scmi")
        self.admin = Admin(metrics=self.metrics, ready=list)
        Control(self.rig.platform, self.log).serve(self.admin, self.metrics)

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self.admin.port}{path}", json=body) as answer,
        ):
            return answer.status, await answer.json()

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def power() -> AsyncIterator[Endpoint]:
    made = Endpoint(PROTOCOLS / "board_power.toml")
    await made.admin.start("127.0.0.1", 0)
    yield made
    await made.admin.close()


@pytest.fixture
async def small() -> AsyncIterator[Endpoint]:
    made = Endpoint(SMALL)
    await made.admin.start("127.0.0.1", 0)
    yield made
    await made.admin.close()


# --- system power -----------------------------------------------------------------------------------------------------


async def test_the_platform_asks_for_a_shutdown(power: Endpoint) -> None:
    power.rig.ask(SYSTEM, 0x5, words(1))
    assert await power.post("/scmi/system-power", {"state": "shutdown", "timeout_ms": 500}) == (
        200,
        {"state": "shutdown", "before": "power_up"},
    )
    assert [(agent, payload) for agent, _, payload in power.rig.take()] == [(1, words(0, 1, 0, 500))]
    said = {"agent": 0, "state": "shutdown", "graceful": True, "timeout_ms": 500}
    assert power.logged == [("system power state asked for", said)]
    status, answer = await power.post("/scmi/system-power", {"state": "cold_reset", "graceful": False})
    assert (status, answer["before"]) == (200, "shutdown")
    assert power.rig.take()[0][2] == words(0, 0, 1, 0)
    power.rig.ask(SYSTEM, 0x3, words(0, 2), agent=2)
    assert power.logged[-1][1]["agent"] == 2, "what agents ask for is logged too"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"state": "shutdown", "graceful": False, "timeout_ms": 1}, 400, "only a graceful shutdown has one"),
        ({"state": "cold_reset", "timeout_ms": 1}, 400, "only a graceful shutdown has one"),
        ({"state": "off"}, 400, "state"),
        ({}, 400, "state"),
        ({"state": "shutdown", "soon": True}, 400, "soon"),
        ({"state": "shutdown", "timeout_ms": 1 << 32}, 400, "timeout_ms"),
        ({"state": "suspend"}, 409, "the board has no system state suspend"),
    ],
)
async def test_what_the_system_is_not_asked(power: Endpoint, body: dict[str, Any], status: int, reason: str) -> None:
    answered, text = await power.post("/scmi/system-power", body)
    assert (answered, reason in str(text)) == (status, True), text
    assert power.rig.ask(SYSTEM, 0x4) == words(0, 3)
    assert power.logged == []


async def test_a_board_without_system_power(small: Endpoint) -> None:
    status, answer = await small.post("/scmi/system-power", {"state": "shutdown"})
    assert status == 409
    assert "[system_power]" in str(answer)


# --- sensors ----------------------------------------------------------------------------------------------------------


async def test_a_reading_is_forced(small: Endpoint) -> None:
    forced = {"id": 0, "sensor": "temp", "axis": 0, "value": -5}
    assert await small.post("/scmi/sensor", {"sensor": "temp", "value": -5}) == (200, forced)
    assert small.rig.ask(SENSOR, 0x6, words(0, 0))[4:12] == words(-5, -1)
    assert (await small.post("/scmi/sensor", {"sensor": 0, "value": None}))[0] == 200
    assert small.rig.ask(SENSOR, 0x6, words(0, 0))[4:12] == words(50000, 0)
    lid = {"sensor": "accelerometer-of-the-lid", "value": 7, "axis": 1}
    assert (await small.post("/scmi/sensor", lid))[1]["id"] == 1
    readings = small.rig.ask(SENSOR, 0x6, words(1, 0))
    assert (readings[4:12], readings[20:28]) == (words(-5, -1), words(7, 0))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"sensor": "tamp", "value": 1}, "'tamp': not on the board"),
        ({"sensor": 3, "value": 1}, "3: not on the board"),
        ({"sensor": "temp", "value": 1, "axis": 1}, "axis = 1 (limit 0)"),
        ({"sensor": "temp", "value": 1_000_000}, "value = 1000000 (limit"),
        ({"sensor": "temp", "value": 1.5}, "value"),
        ({"sensor": "temp", "value": 1 << 63}, "value"),
        ({"sensor": "temp"}, "value"),
        ({"value": 1}, "sensor"),
    ],
)
async def test_a_reading_that_cannot_be_forced(small: Endpoint, body: dict[str, Any], reason: str) -> None:
    before = small.rig.ask(SENSOR, 0x6, words(0, 0))
    status, answer = await small.post("/scmi/sensor", body)
    assert (status, reason in str(answer.values())) == (400, True), answer
    assert small.rig.ask(SENSOR, 0x6, words(0, 0)) == before


async def test_a_board_without_sensors(power: Endpoint) -> None:
    status, answer = await power.post("/scmi/sensor", {"sensor": 0, "value": 1})
    assert (status, "no sensors" in str(answer)) == (409, True)


# --- what no command reads --------------------------------------------------------------------------------------------


async def test_gauges(power: Endpoint) -> None:
    assert power.sample("ringmesh_scmi_power_state", domain="gpu", service="scmi") == 0x4000_0000
    power.rig.ask(POWER, 0x4, words(0, 2, 0))
    assert power.sample("ringmesh_scmi_power_state", domain="gpu", service="scmi") == 0
    assert power.sample("ringmesh_scmi_power_state", domain="soc", service="scmi") == 0
    assert power.sample("ringmesh_scmi_system_state", service="scmi") == 3
    power.rig.ask(SYSTEM, 0x3, words(0, 1), agent=2)
    assert power.sample("ringmesh_scmi_system_state", service="scmi") == 1


def test_who_holds_a_domain_in_reset() -> None:
    end = Endpoint(PROTOCOLS / "board_reset.toml")
    assert end.sample("ringmesh_scmi_reset_held_by", domain="uart", service="scmi") == 0
    end.rig.ask(RESET, 0x4, words(2, 2, 0))
    assert end.sample("ringmesh_scmi_reset_held_by", domain="uart", service="scmi") == 1
    assert end.sample("ringmesh_scmi_reset_held_by", domain="mmc", service="scmi") == 0
