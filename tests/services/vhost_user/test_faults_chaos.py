"""Plans of all kinds that come and go while commands are under way, queues break, devices are reset and front ends come
back: the service goes on, its event loop is never held up, and when all is over nothing is held any more."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from common.errors import RingError
from common.scmi import clock, header, sensor
from services.scmi_platform.faults_control import FaultRequest
from services.vhost_user.messages import Request
from tests.services.scmi_platform.scmi_rig import words
from tests.services.vhost_user.scmi_front import CMDQ, EVENTQ, Guest, Served, guest_at
from tests.services.vhost_user.test_faults_at_run_time import RATE_GET

PLANS: Final = 60
SIZE: Final = 64
#: Seconds that one turn of the event loop may take on a machine that does other things, too.
TURN: Final = 2.0
#: Commands of all kinds: answered at once, with delayed responses, with notifications.
COMMANDS: Final = (
    (clock.PROTOCOL, 0x7, (0, 1, 0)),
    (clock.PROTOCOL, 0x5, (0, 0, 500, 0)),
    (clock.PROTOCOL, 0x5, (0, 0, 300, 0)),
    (clock.PROTOCOL, 0x5, (1, 0, 300, 0)),
    (clock.PROTOCOL, 0x6, (0,)),
    (clock.PROTOCOL, 0x9, (0, 1)),
    (sensor.PROTOCOL, 0x4, (0, 1)),
)


def plan(rng: random.Random) -> FaultRequest:
    """Any plan: some rules by chance, some of the plain settings."""
    seconds = rng.choice((0.0, 0.001, 0.05, 3600.0))
    time_ = rng.choice(
        (
            {"distribution": "constant", "seconds": seconds},
            {"distribution": "exponential", "mean": 0.01},
            {"distribution": "lognormal", "median": 0.001, "sigma": 3.0},
        )
    )
    of = rng.choice(("response", "delayed_response", "notification"))
    rules: list[dict[str, Any]] = [
        {"kind": "delay", "of": of, "time": time_, "probability": 0.3},
        {"kind": "reorder", "probability": 0.3, "passing": rng.choice((0, 1, 40))},
        {"kind": "never", "of": of, "count": 1, "probability": 0.2},
        {"kind": "twice", "of": of, "probability": 0.02},
        {"kind": "silent", "probability": 0.2},
        {"kind": "wrong_token", "of": of, "probability": 0.2},
        {"kind": "truncate", "of": of, "length": rng.choice((0, 3, 5, 9)), "probability": 0.2},
        {"kind": "wrong_protocol", "of": of, "protocol": 0xFF, "probability": 0.2},
        {"kind": "storm", "protocol": "clock", "burst": 65536, "per_second": 1e5, "unasked": True},
        {"kind": "storm", "protocol": "sensor", "per_second": 1e5, "payload": "ff" * 128, "unasked": True},
    ]
    body: dict[str, Any] = {"rules": rng.sample(rules, rng.randrange(5)), "agent": rng.choice(("", "vm0"))}
    if rng.random() < 0.3:
        body |= {"late": 0.5, "late_seconds": 0.02, "reorder": 0.5, "delayed_twice": 0.5}
    if rng.random() < 0.05:
        body["double_used"] = rng.randrange(1, 50)
    return msgspec.convert(body, FaultRequest)


class Driver:
    """One guest after another at ``path``, until told to stop. A queue that broke, or that lost its messages, is begun
    anew in one of the ways in which drivers do it."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path, self._rng = path, rng
        self.stop = threading.Event()
        self.lives = self.answers = self.broken = 0

    def run(self) -> None:
        while not self.stop.is_set():
            guest = Guest(self._path, size=SIZE)
            try:
                self._live(guest)
            except RingError:
                self.broken += 1
            finally:
                if self._rng.random() < 0.5:
                    for queue in range(2):
                        guest.front.stop_ring(queue)
                if self._rng.random() < 0.5:
                    guest.front.do(Request.RESET_DEVICE)
                guest.close()
            self.lives += 1

    def _live(self, guest: Guest) -> None:
        free = list(range(SIZE // 2))
        end = time.monotonic() + self._rng.random()
        token = 0
        while time.monotonic() < end and not self.stop.is_set():
            if guest.events and self._rng.random() < 0.5:
                guest.feed(self._rng.choice((8, 132)))
            for _ in range(min(len(free), self._rng.randrange(8))):
                protocol, message, payload = self._rng.choice(COMMANDS)
                token = (token + 1) % header.TOKENS
                guest.send(free.pop(), header.command(protocol, message, token, words(*payload)))
            guest.front.kick(CMDQ)
            got = guest.drivers[CMDQ].get_bufs(SIZE)
            self.answers += len(got)
            free += [number for number, _ in got]
            while (event := guest.drivers[EVENTQ].get_buf()) is not None:
                guest.events.append(event[0])


async def longest_turn(longest: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        longest[0] = max(longest[0], time.monotonic() - before)


@pytest.mark.parametrize("seed", range(2))
async def test_plans_come_and_go_under_traffic(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "vm0.sock"
    rng = random.Random(seed)
    driver = Driver(path, random.Random(seed + 100))
    async with Served(str(path)) as served:
        longest = [0.0]
        watch = asyncio.create_task(longest_turn(longest))
        running = asyncio.create_task(asyncio.to_thread(driver.run))
        control, core = served.service.host.faults, served.service.host.cores["vm0"]
        held = 0
        for _ in range(PLANS):
            control.replace(plan(rng))
            await asyncio.sleep(rng.random() * 0.05)
            held = max(held, core.faults.held)
            assert not served.task.done()
        driver.stop.set()
        await running
        assert 0 < held <= 1024 + SIZE
        assert driver.lives > 2
        assert driver.answers > 100
        control.replace(FaultRequest())
        async with guest_at(path) as guest:
            assert await asyncio.to_thread(guest.command, *RATE_GET, 3) is not None
            await served.until(lambda: core.faults.held == 0)
            assert not core.faults.active
        watch.cancel()
        assert longest[0] < TURN
