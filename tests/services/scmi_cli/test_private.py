"""A platform of one's own: it serves the board that was asked for and ends with the session."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import ConfigError, LinkDownError, LocalError
from services.scmi_cli.private import PrivatePlatform, private, private_session
from tests.services.scmi_cli.conftest import ROOT
from tests.services.scmi_platform.scmi_rig import SMALL


def children() -> list[Any]:
    """The platforms that this process runs; another test's helper process is none."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "serve" in child.cmdline()]


async def test_the_board_that_ships_and_ones_own() -> None:
    async with private() as agent, private(SMALL) as other:
        assert await agent.base.vendor() == "arm"
        assert await other.base.vendor() == "acme"
        assert len(children()) == 2
    assert not children()


async def test_it_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError):
        async with private(SMALL):
            raise ZeroDivisionError
    assert not children()


def test_a_script_reads_only_what_it_prints() -> None:
    script = (
        "import asyncio\n"
        "from services.scmi_cli.private import private\n"
        "async def main():\n"
        f"    async with private({str(SMALL)!r}) as agent: print(await agent.base.vendor())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("acme\n", "")


async def test_a_board_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        async with private(tmp_path / "none.toml"):
            raise AssertionError
    assert not children()


async def test_a_platform_that_does_not_come_up_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = PrivatePlatform(SMALL)
    other = PrivatePlatform(SMALL)
    monkeypatch.setattr(other, "_links", platform._links)
    platform.start()
    async with asyncio.timeout(60):
        await platform.unless_it_ends(platform.listening())
        other.start()
        with pytest.raises(LocalError, match=r"the platform ended with code \d+: .*listen"):
            await other.unless_it_ends(asyncio.sleep(3600))
    await other.stop()
    await platform.stop()


async def test_a_platform_that_is_killed_ends_commands() -> None:
    async with private_session(SMALL, timeout=1.0) as session:
        (child,) = children()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="no response") as error:
            await session.agent.base.vendor()
        assert not isinstance(error.value, LinkDownError)


async def test_a_platform_that_hangs_before_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scmi_cli.private.START_TIMEOUT", 0.2)
    monkeypatch.setattr("services.scmi_cli.private.STOP_TIMEOUT", 0.2)
    platform = PrivatePlatform(SMALL)
    platform.start()
    (child,) = children()
    os.kill(child.pid, signal.SIGSTOP)
    async with asyncio.timeout(60):
        with pytest.raises(LocalError, match=r"the platform does not listen after 0\.2 s: it said nothing"):
            await platform.unless_it_ends(platform.listening())
        await platform.stop()
    assert not children()
