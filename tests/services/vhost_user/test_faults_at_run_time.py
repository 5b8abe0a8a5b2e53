"""``POST /faults`` for a guest over vhost-user: real sockets, shared memory, the admin endpoint."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from common.errors import RingError
from common.scmi import clock, header
from tests.services.scmi_platform.scmi_rig import words
from tests.services.vhost_user.front_end import GUARD
from tests.services.vhost_user.scmi_front import CMDQ, EVENTQ, Guest, Served, guest_at

RATE_GET = (clock.PROTOCOL, int(clock.Command.CLOCK_RATE_GET))
ANSWER = words(0, 300, 0)


async def faults(served: Served, **body: Any) -> dict[str, Any]:
    """Put a plan in force; what the endpoint shows of the guest."""
    url = f"http://127.0.0.1:{served.service.admin.port}/faults"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        shown = await answer.json()
        assert answer.status == 200, shown
        found: dict[str, Any] = shown["agents"]["vm0"]
        return found


def send(guest: Guest, *numbers: int) -> None:
    """CLOCK_RATE_GET, each with its number for a token."""
    for number in numbers:
        guest.send(number, header.command(*RATE_GET, number, words(0)))
    guest.front.kick(CMDQ)


def take(guest: Guest, count: int) -> list[tuple[int, bytes]]:
    """The next ``count`` answers, in the order of the ring: which command, and what was written for it."""
    got: list[tuple[int, int]] = []
    deadline = time.monotonic() + GUARD
    while len(got) < count:
        got += guest.drivers[CMDQ].get_bufs(count - len(got))
        assert time.monotonic() < deadline
    return [(number, guest.memory.read(guest.data + 512 * number + 256, length)) for number, length in got]


async def test_faults_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, guest_at(path) as guest:
        hour = {"distribution": "constant", "seconds": 3600.0}
        shown = await faults(served, agent="vm0", rules=[{"kind": "delay", "only": ["clock"], "time": hour}])
        assert "vm0" in shown["names"]
        await asyncio.to_thread(send, guest, 1, 2)
        await served.until(lambda: served.value("ringmesh_scmi_faults_late_total", guest="vm0") == 2)
        assert guest.drivers[CMDQ].get_bufs(8) == []
        await faults(served)
        expected = [(n, header.command(*RATE_GET, n, ANSWER)) for n in (1, 2)]
        assert await asyncio.to_thread(take, guest, 2) == expected, "what was held went out by itself"
        assert await asyncio.to_thread(guest.command, *RATE_GET, 0) == ANSWER


async def test_wrong_answers(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, guest_at(path) as guest:
        rules = [{"kind": "wrong_token", "by": 7, "count": 1}, {"kind": "truncate", "length": 8}]
        await faults(served, rules=rules)
        await asyncio.to_thread(send, guest, 1, 2)
        got = await asyncio.to_thread(take, guest, 2)
        assert got == [(1, header.command(*RATE_GET, 8, words(0))), (2, header.command(*RATE_GET, 2, words(0)))]


async def test_a_storm(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, guest_at(path) as guest:
        await asyncio.to_thread(guest.feed, *[132] * 4)
        await faults(served, rules=[{"kind": "storm", "protocol": "clock", "domain": 1, "burst": 9, "unasked": True}])
        for _ in range(4):
            assert await asyncio.to_thread(guest.event) == header.notification(0x14, 0, words(0, 1, 0, 0))
        assert served.value("ringmesh_scmi_faults_storm_dropped_total", guest="vm0") == 5
        assert guest.drivers[EVENTQ].get_buf() is None


async def test_a_second_used_entry_for_one_head(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, guest_at(path) as guest:
        await faults(served, rules=[{"kind": "twice", "count": 1}])
        await asyncio.to_thread(send, guest, 1)
        await asyncio.to_thread(take, guest, 1)
        broken = None
        try:
            await asyncio.to_thread(take, guest, 1)
        except RingError as error:
            broken = error
        assert broken is not None, "the driver sees a used entry for a head that is not in flight"
