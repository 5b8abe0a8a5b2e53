"""The firmware is killed during traffic: what was set is still set, and the mesh goes on."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest

from services.guest_driver.scmi_session import connect
from services.scmi_platform.journal import HEADER
from tests.mesh.harness import ROOT, TOKEN, Run, clean, link_port, running, scrape_text, stop, until

pytestmark = pytest.mark.mesh

KILLS = 4
JUNO = ROOT / "deploy" / "boards" / "juno-r2.toml"
#: a clock that the script alone sees
OWN = "HDLCD_1"


def board(path: Path) -> Path:
    """Juno, whose guests see all clocks but one."""
    others = ["BIG_CLK", "LITTLE_CLK", "GPU_CLK", "HDLCD_0", "I2SCLK"]
    text = JUNO.read_text()
    changed = text.replace('name = "OSPM"\n', f'name = "OSPM"\nsees = {{ clocks = {others} }}\n', 1).replace(
        'name = "PSCI"\n', f'name = "PSCI"\nsees = {{ clocks = ["{OWN}"] }}\n', 1
    )
    assert changed.count("sees = ") == 2
    # on the board PSCI is served no clocks
    served = '["power_domain", "system_power"]'
    assert served in changed
    changed = changed.replace(served, '["clock"]')
    path.write_text(changed)
    return path


async def _set_and_kill(run: Run, port: int) -> None:
    """Set one rate after another; kill the firmware as soon as it has said that the last one is set."""
    rng = random.Random(7)
    async with connect(f"127.0.0.1:{port}", guest="PSCI", token=TOKEN) as agent:
        for _ in range(KILLS):
            for _ in range(50):
                rate = 23_750_000 + 250_000 * rng.randrange(566)
                await agent.clock.rate_set(0, rate)
            killed = run.signal_service("scmi", signal.SIGKILL)
            await asyncio.to_thread(_started_again, run, killed)
            assert await agent.clock.rate_get(0) == rate


def _started_again(run: Run, killed: int) -> None:
    until(lambda: run.pids().get("scmi", killed) != killed, "scmi started again")


async def test_what_was_set_stays_set(tmp_path: Path) -> None:
    """So it is for the script; and the guests count a rate that is not what they were told as corrupted."""
    with running("up", "--board", str(board(tmp_path / "b.toml")), report=tmp_path / "r.json") as run:
        await _set_and_kill(run, link_port(run, "scmi"))
        assert await asyncio.to_thread(stop, run) == 0, run.text
        report = run.report()
    assert not clean(report)
    assert report["services"]["scmi"]["restarts"] == KILLS
    assert report["scmi"]["completed"] > 100


async def test_a_state_file_that_cannot_be_believed_is_kept_and_reported(tmp_path: Path) -> None:
    """The service starts with the board's defaults and says so, in its log and in its metrics."""
    (tmp_path / "state").write_bytes(b"not a state file, but somebody's data")
    zero = {"RINGMESH_LISTEN__PORT": "0", "RINGMESH_ADMIN__PORT": "0"}
    with running("serve", "scmi", "--state", str(tmp_path / "state"), variables=zero) as run:
        refused = json.loads(await asyncio.to_thread(until, lambda: run.said("state refused"), "it is said"))
        started = json.loads(await asyncio.to_thread(until, lambda: run.said('"started"'), "the service runs"))
        assert refused["kept"] == str(tmp_path / "state.refused-1")
        assert "state.head" in refused["reason"]
        text = await scrape_text(f"http://127.0.0.1:{started['admin_port']}")
        assert 'ringmesh_scmi_state_files_refused_total{service="scmi"} 1.0' in text
        assert stop(run) == 0, run.text
    assert (tmp_path / "state.refused-1").read_bytes() == b"not a state file, but somebody's data"
    assert (tmp_path / "state").read_bytes().startswith(HEADER)
