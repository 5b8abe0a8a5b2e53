"""``ringmesh scmi watch``: each notification once, as it comes; nothing stays enabled."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from common.errors import ConfigError, ScmiError
from services.guest_driver import scmi_session
from services.guest_driver.scmi_session import ScmiSession, connect
from services.scmi_cli.base_view import BASE
from services.scmi_cli.clock_view import CLOCK
from services.scmi_cli.sensor_view import SENSOR
from services.scmi_cli.watch import sources, watch
from tests.services.guest_driver.firmware import TOKEN as FIRMWARE_TOKEN
from tests.services.guest_driver.firmware import Firmware
from tests.services.guest_driver.mesh_rig import until, within
from tests.services.scmi_cli.conftest import GUARD, ROOT, TOKEN, clean_env, scmi


@pytest.fixture
async def firmware() -> AsyncIterator[Firmware]:
    made = Firmware()
    await made.start()
    yield made
    assert await made.stop() == 0


@pytest.fixture
async def session(firmware: Firmware) -> AsyncIterator[ScmiSession]:
    made = ScmiSession(firmware.address, token=FIRMWARE_TOKEN)
    await within(made.start())
    yield made
    await made.close()


def subscribed(firmware: Firmware) -> int:
    platform = firmware.service.agents.platform
    return sum(len(agents) for domains in platform._subscribers.values() for agents in domains.values())


async def test_a_rate_change(firmware: Firmware, session: ScmiSession, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = await within(sources(session.agent, [CLOCK], "cpu", False))
    assert [(one.event.name, one.domain.id) for one in wanted] == [("rate_changed", 0)]
    watching = asyncio.ensure_future(watch(session, wanted, None, 2, False))
    await until(lambda: subscribed(firmware) == 1)
    async with connect(firmware.address, token=FIRMWARE_TOKEN) as other:
        for rate in (400, 1200):
            await within(other.clock.rate_set(0, rate))
        number, _ = await within(other.base.discover_agent())
    await within(watching)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].endswith(f"  clock 0 cpu rate_changed  400 Hz  by agent {number}")
    assert lines[1].endswith(f"  clock 0 cpu rate_changed  1.2 kHz  by agent {number}")
    assert subscribed(firmware) == 0


async def test_it_ends_in_time_and_disables(firmware: Firmware, session: ScmiSession) -> None:
    wanted = await within(sources(session.agent, [BASE, CLOCK, SENSOR], "", False))
    assert {one.view.name for one in wanted} == {"base", "clock", "sensor"}
    await within(watch(session, wanted, 0.2, None, True))
    assert subscribed(firmware) == 0


async def test_cancelled_it_disables(firmware: Firmware, session: ScmiSession) -> None:
    wanted = await within(sources(session.agent, [CLOCK], "", False))
    watching = asyncio.ensure_future(watch(session, wanted, None, None, False))
    await until(lambda: subscribed(firmware) == len(wanted))
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(watching)
    assert subscribed(firmware) == 0


async def test_it_goes_on_after_a_restart(
    firmware: Firmware, session: ScmiSession, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = await within(sources(session.agent, [CLOCK], "0", False))
    watching = asyncio.ensure_future(watch(session, wanted, None, 1, True))
    await until(lambda: subscribed(firmware) == 1)
    assert await firmware.stop() == 0
    await until(lambda: "the platform is away; waiting for it" in capsys.readouterr().err)
    await firmware.start()
    await until(lambda: subscribed(firmware) == 1)
    await until(lambda: "the platform is back" in capsys.readouterr().err)
    await within(session.agent.clock.rate_set(0, 400))
    await within(watching)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["protocol"], said["id"], said["name"], said["event"], said["rate"]) == (
        "clock", 0, "cpu", "rate_changed", 400,
    )  # fmt: skip


async def test_what_is_refused_is_said_and_left_out(
    session: ScmiSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await within(sources(session.agent, [CLOCK], "", False))
    register = session.agent.notifications.register

    async def picky(protocol: int, event: int, handler: Any, source: int | None = None) -> None:
        if source:
            raise ScmiError("CLOCK_RATE_NOTIFY", -3, "DENIED")
        await register(protocol, event, handler, source)

    monkeypatch.setattr(type(session.agent.notifications), "register", lambda _self, *args: picky(*args))
    await within(watch(session, wanted, 0.05, None, False))
    assert "clock 1 pixel rate_changed: not enabled: DENIED (-3)" in capsys.readouterr().err
    with pytest.raises(ScmiError):
        await within(watch(session, wanted[1:], 0.05, None, False))


async def test_nothing_to_watch(session: ScmiSession) -> None:
    with pytest.raises(ConfigError, match="no notifications: clock"):
        await within(sources(session.agent, [type(CLOCK)(**_without_events())], "", False))


def _without_events() -> dict[str, Any]:
    fields = ("name", "protocol", "summary", "domains", "describe", "domain", "attributes")
    return {name: getattr(CLOCK, name) for name in fields}


def test_updates_as_json(platform: str) -> None:
    said = scmi("watch", "sensor", "0", "--count", "2", "--json", address=platform)
    assert said.code == 0
    first, second = map(json.loads, said.out.splitlines())
    assert first["event"] == "update"
    assert first["readings"][0]["unit"] == "degrees_c"
    assert first["time"] < second["time"]
    assert said.err == "watching 2 notifications; Ctrl-C ends it\n"


def test_ctrl_c_ends_it(platform: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "services.cli", "scmi", "watch", "sensor", "0", "--connect", platform, "--token", TOKEN],
        cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "update" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(GUARD) == 0
        assert time.monotonic() - began < GUARD / 2
        assert process.stderr is not None
        assert process.stderr.read() == "watching 2 notifications; Ctrl-C ends it\n"


def test_a_private_platform_that_dies_ends_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "services.cli", "scmi", "watch"],
        cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "update" in process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        _, said = process.communicate(timeout=GUARD)
        assert process.returncode == 1
        assert said.splitlines()[-1] == "ringmesh scmi: the platform ended with code -9: no reason given"


def test_another_session_of_the_same_name_is_refused(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "services.cli", "scmi", "watch", "--guest", "twin", "--token", TOKEN, "--connect"]
    with subprocess.Popen(
        [*command, platform], cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "update" in process.stdout.readline()
        # as on another machine, where nobody sees that the name is held
        monkeypatch.setattr(scmi_session, "_where", lambda _address: "elsewhere")
        twin = scmi("get", "clock", "0", "rate", "--guest", "twin", address=platform)
        assert twin.code == 1
        assert "another process" in twin.err
        assert "update" in process.stdout.readline(), "the first goes on"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=GUARD)
