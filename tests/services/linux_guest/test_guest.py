"""A guest and the platform started, talked to and ended; what cannot work is refused before anything runs."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError, LinkDownError, LocalError, RemoteError
from services.linux_guest.guest import Boot, LinuxGuest
from services.linux_guest.qemu import Machine
from tests.services.linux_guest.conftest import Plan

GUARD = 60.0


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def running(guest: LinuxGuest) -> bool:
    return guest.running


def tidy(guest: LinuxGuest) -> bool:
    return not Path(guest._directory.name).exists()


async def test_from_start_to_end(plan: Plan) -> None:
    shown: list[tuple[str, str]] = []
    async with LinuxGuest(replace(plan(), script=b"true\n"), lambda *line: shown.append(line)) as guest:
        assert await guest.ready(GUARD)
        assert guest.console.banner is not None
        assert (await guest.run("hello there")).text == "hello there"
        assert (await guest.get("/trace"))["capacity"] > 0
        assert (await guest.post("/trace/pipe"))["lines"] == []
        assert running(guest)
        guest._qemu.type("poweroff")  # type: ignore[union-attr]
        assert await guest.ended(GUARD)
        assert not running(guest)
        platform = guest._platform
        assert platform is not None
    assert ("console", "GUEST-INIT uptime 0.5") in shown
    (line,) = (line for source, line in shown if source == "qemu")
    assert "-initrd" in line
    assert "/initramfs " in line  # the one with the script
    assert "trace_event=scmi:*" in line
    assert gone(platform.pid)
    await guest.stop()
    assert tidy(guest)


async def test_both_end_with_the_block(plan: Plan) -> None:
    async with LinuxGuest(replace(plan(), traced=False, append="more=1")) as guest:
        assert await guest.ready(GUARD)
        pids = [process.pid for process in (guest._platform, guest._qemu.process) if process]  # type: ignore[union-attr]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    assert "trace_event" not in guest.log[0]
    assert guest.log[0].split("-append ")[1].startswith("console=ttyAMA0")
    assert "more=1" in guest.log[0]


async def test_both_are_killed_at_once(plan: Plan) -> None:
    guest = LinuxGuest(plan())
    guest.kill()
    async with guest:
        guest.kill()
        assert await guest.ended(GUARD)
        assert guest._platform is not None
        assert await guest._platform.wait() == -signal.SIGKILL


async def test_one_that_ends_early_is_not_waited_for(plan: Plan) -> None:
    async with LinuxGuest(plan(("Kernel panic",), stays=False)) as guest:
        assert not await guest.ready(GUARD)
        assert await guest.ended(GUARD)
        assert not await guest.until(lambda: False, GUARD)


async def test_one_that_never_gets_ready_is_given_up(plan: Plan) -> None:
    async with LinuxGuest(plan(("booting",))) as guest:
        assert not await guest.ready(0.1)
        assert not await guest.ended(0.1)
        assert guest._qemu is not None
        guest._qemu.process.send_signal(signal.SIGSTOP)  # a stand-in that runs may answer at once
        with pytest.raises(LocalError, match="did not run 'x' in 0 s"):
            await guest.run("x", timeout=0.0)
        guest._qemu.process.send_signal(signal.SIGCONT)


async def test_the_platforms_refusals(plan: Plan) -> None:
    async with LinuxGuest(plan()) as guest:
        with pytest.raises(RemoteError, match="nonsense"):
            await guest.system_power("nonsense")
        with pytest.raises(RemoteError):
            await guest.get("/nowhere")
        assert guest._platform is not None
        await guest._platform.stop(GUARD)
        with pytest.raises(LinkDownError):
            await guest.get("/trace")


async def test_faults_hold_before_the_guest_starts(plan: Plan) -> None:
    rule = {"kind": "never", "only": ["clock"], "count": 1}
    async with LinuxGuest(replace(plan(), faults={"rules": [rule]})) as guest:
        assert "never" in str(await guest.get("/faults"))
    with pytest.raises(RemoteError, match="rules"):
        async with LinuxGuest(replace(plan(), faults={"rules": [{"kind": "nonsense"}]})):
            raise AssertionError


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"machine": Machine(cpus=0)}, "--cpus"),
        ({"machine": Machine(cpus=9)}, "--cpus"),
        ({"board": Path("/nowhere/board.toml")}, "board.toml"),
    ],
)
async def test_what_cannot_work(change: dict[str, object], reason: str, plan: Plan) -> None:
    boot: Boot = replace(plan(), **change)  # type: ignore[arg-type]
    guest = LinuxGuest(boot)
    with pytest.raises(ConfigError, match=reason):
        await guest.__aenter__()
    assert guest._platform is None
    assert tidy(guest)


async def test_a_setting_that_the_platform_refuses_is_told(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"platform: .*NONSENSE"):
        async with LinuxGuest(replace(plan(), settings={"RINGMESH_NONSENSE": "1"})):
            raise AssertionError


async def test_an_old_qemu(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"8\.1 is needed"):
        async with LinuxGuest(plan(version="7.2.0")):
            raise AssertionError
