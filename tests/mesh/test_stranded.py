"""Where a firmware policy loses sight of a buffer, in the running mesh: hold points in the port put the driver's store
of avail->idx and its doorbell where the scenario ``stale-avail`` wants them, nothing is sent afterwards, and the metric
says whether the buffer was left behind.

One guest for each pair of places, so that what one strands is no other's.
"""

from __future__ import annotations

import asyncio
import json
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from services.guest_driver.port import HOLD_POINTS
from tests.mesh.harness import GUARD, TOKEN, Run, clean, running, scrape, stop

pytestmark = pytest.mark.mesh

METRIC: Final = "ringmesh_vdpa_stranded_buffers"
#: where the store falls, where the doorbell, and the policies (read at create, read at kick, replay a kick) that lose
#: the buffer there
PLACEMENTS: Final = (
    ("saved", "destroyed", {"000", "001", "010"}),
    ("created", "created", {"000", "001", "010", "100", "101", "110"}),
    ("resumed", "resumed", {"000", "001", "100", "101"}),
)
#: what loses none, wherever store and doorbell fall; 111 is what ships
GOOD: Final = ("011", "111")
POLICIES: Final = tuple("".join(bits) for bits in product("01", repeat=3))
BAD: Final = tuple(policy for policy in POLICIES if policy not in GOOD)


def settings(policy: str, **workload: object) -> list[str]:
    """Command line of a mesh with this firmware, and nothing under way but what the test asks for."""
    switches = dict(zip(("READ_AT_CREATE", "READ_AT_KICK", "REPLAY_KICK"), policy, strict=True))
    chosen: dict[str, object] = {
        f"FIRMWARE__{name}": "true" if bit == "1" else "false" for name, bit in switches.items()
    }
    quiet = {"SCMI_WORKERS": 0, "INV_SECONDS": 0, "MAP_SECONDS": 0} | workload
    chosen |= {f"WORKLOAD__{name}": value for name, value in quiet.items()}
    return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]


async def ask(run: Run, method: str, path: str, expected: int = 200, /, **body: str) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = run.services()["guest"][1] + path
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url, data=json.dumps(body)) as answer,
    ):
        assert answer.status == expected, await answer.text()
        return await answer.json()


async def received(run: Run, frames: int) -> None:
    """So many frames came back: whoever started the mesh starts the workload when all services are ready."""
    async with asyncio.timeout(GUARD):
        while (await ask(run, "GET", "/report"))["net"]["rx"] < frames:  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.02)


async def held(run: Run, guest: str) -> dict[str, Any]:
    """What came of the guest's hold, once its change of map is over."""
    async with asyncio.timeout(GUARD):
        while True:
            report: dict[str, Any] = (await ask(run, "GET", "/holds"))[guest]["tx0"]
            if report["state"] == "done":
                return report


async def change_map(run: Run, guest: str, store: str, kick: str) -> None:
    """One change of the guest's map, with a store and a doorbell in it."""
    await ask(run, "POST", "/holds", guest=guest, store=store, kick=kick)
    await ask(run, "POST", "/map", guest=guest)
    report = await held(run, guest)
    assert (report["points"], report["stored"]) == (list(HOLD_POINTS), 1)


async def stranded(run: Run, **labels: str) -> float:
    return (await scrape(run.services()["guest"][1])).total(METRIC, **labels)


@pytest.mark.parametrize("policy", BAD)
async def test_a_policy_strands_where_the_lab_says_so(policy: str, tmp_path: Path) -> None:
    # without a look at the kick no frame is ever fetched between two changes of map: traffic would not begin
    window = 64 if policy[1] == "1" else 0
    args = ["--guests", str(len(PLACEMENTS)), *settings(policy, NET_WINDOW=window, DRAIN_SECONDS=0.1)]
    with running("up", *args, report=tmp_path / "r.json") as run:
        await received(run, window)
        await ask(run, "POST", "/workload/stop")
        lost = 0
        for number, (store, kick, bad) in enumerate(PLACEMENTS):
            guest = f"guest{number}"
            await change_map(run, guest, store, kick)
            assert await stranded(run, guest=guest, queue="tx0") == (policy in bad), (store, kick)
            lost += policy in bad
        assert lost
        # nobody ever comes back for it: the books call it lost
        assert stop(run) == 1
        assert clean(run.report()) == {"net.lost": lost}


#: what POST /holds refuses, and what the answer names
REFUSED: Final = (
    ({"guest": "guest9", "store": "saved", "kick": "saved"}, "guest0"),
    ({"guest": "guest0", "store": "saved", "kick": "mid-air"}, "mkey_created"),
    ({"guest": "guest0", "store": "saved"}, "kick"),
    ({"guest": "guest0", "store": "saved", "kick": "saved", "queue": "rx0"}, "tx0"),
)


@pytest.mark.parametrize("policy", GOOD)
async def test_a_good_policy_strands_nowhere(policy: str, tmp_path: Path) -> None:
    """Neither where traffic has stopped nor under load, at every pair of places."""
    with running("up", *settings(policy, NET_WINDOW=64), report=tmp_path / "r.json") as run:
        await received(run, 64)
        await ask(run, "POST", "/workload/stop")
        for store, kick in combinations_with_replacement(HOLD_POINTS, 2):
            await change_map(run, "guest0", store, kick)
            assert await stranded(run) == 0, (store, kick)
        for body, named in REFUSED:
            assert named in str(await ask(run, "POST", "/holds", 400, **body))
        await ask(run, "POST", "/workload/start")
        for store, kick in combinations_with_replacement(HOLD_POINTS, 2):
            await change_map(run, "guest0", store, kick)
        await ask(run, "POST", "/workload/stop")
        assert await stranded(run) == 0
        assert stop(run) == 0, run.text
        assert not clean(run.report())
        assert run.report()["net"]["rx"] > 42
