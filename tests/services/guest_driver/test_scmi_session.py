"""A script's session against a real SCMI service: no ITS, no vCPUs; the platform away, refusing, restarted."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, HandshakeError, LinkDownError, LocalError, ScmiError
from common.scmi.status import ProtocolId
from services.guest_driver.scmi_session import ScmiSession, connect, parse_address
from tests.services.guest_driver.firmware import TOKEN, Firmware
from tests.services.guest_driver.mesh_rig import until, within

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def firmware() -> AsyncIterator[Firmware]:
    made = Firmware()
    await made.start()
    yield made
    assert await made.stop() == 0


def actors() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_a_script(firmware: Firmware) -> None:
    async with connect(firmware.address, token=TOKEN) as agent:
        assert await within(agent.base.vendor()) == "acme"
        await within(agent.clock.rate_set(0, 400))
        assert await within(agent.clock.rate_get(0)) == 400
        assert await within(agent.clock.rate_get(0, poll=True)) == 400
        assert (await within(agent.sensor.reading_get_async(0)))[0].value == 50000
    with pytest.raises(LinkDownError):
        await agent.base.vendor()


async def test_no_interrupt_leaves_the_process(firmware: Firmware) -> None:
    async with connect(firmware.address, guest="vm", token=TOKEN) as agent:
        for _ in range(50):
            await within(agent.clock.rate_get(0))
        assert agent.stats.response_ok == 50
        assert firmware.service.attachments["vm"].msi.raised == 0


async def test_notifications_come(firmware: Firmware) -> None:
    async with connect(firmware.address, token=TOKEN) as agent, connect(firmware.address, token=TOKEN) as other:
        heard = asyncio.Event()
        await within(agent.notifications.register(ProtocolId.CLOCK, 0, lambda event: heard.set(), 0))
        await within(other.clock.rate_set(0, 400))
        await within(heard.wait())


async def test_who_the_guest_is(firmware: Firmware) -> None:
    async with connect(firmware.address, token=TOKEN) as first, connect(firmware.address, token=TOKEN) as second:
        assert await within(first.base.discover_agent()) == (1, "OSPM"), "the first that is neither trusted nor taken"
        assert await within(second.base.discover_agent()) == (3, "cli2"), "a name that no other session has"
    async with connect(firmware.address, token=TOKEN) as again:
        assert await within(again.base.discover_agent()) == (1, "OSPM"), "cli is the agent that it was"
    async with connect(firmware.address, token=TOKEN, guest="my-script") as named:
        assert await within(named.base.discover_agent()) == (4, "my-script")


async def test_the_platform_restarts(firmware: Firmware) -> None:
    session = ScmiSession(firmware.address, token=TOKEN)
    await within(session.start())
    agent = session.agent
    heard: list[int] = []
    await within(agent.notifications.register(ProtocolId.CLOCK, 0, lambda event: heard.append(event.report.rate), 0))
    await within(agent.clock.rate_set(0, 400))
    await until(lambda: heard == [400])
    later = asyncio.ensure_future(agent.sensor.reading_get_async(0))
    await asyncio.sleep(0)
    assert await firmware.stop() == 0
    await firmware.start()
    with suppress(ScmiError):  # COMMS_ERROR where it had not answered before
        assert (await within(later))[0].value == 50000
    assert await within(agent.clock.rate_get(0)) == 300, "its defaults"
    assert session.restarts == 1
    platform = firmware.service.agents.platform
    await until(lambda: platform.subscribed(ProtocolId.CLOCK, 0, 0))
    await within(agent.clock.rate_set(0, 400))
    await until(lambda: heard == [400, 400])
    await session.close()


async def test_a_lost_connection_costs_nothing(firmware: Firmware) -> None:
    session = ScmiSession(firmware.address, token=TOKEN)
    await within(session.start())
    for link in firmware.service._servers[0].links:
        link.close("test")
    await within(session.agent.clock.rate_set(0, 400))
    assert await within(session.agent.clock.rate_get(0)) == 400
    assert session.restarts == 0
    await session.close()


async def test_nobody_listens() -> None:
    before = actors()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        session = ScmiSession(address)
        with pytest.raises(
            LinkDownError, match=r"connect = '127.0.0.1:\d+': no SCMI platform there within 0.2 s: .*refused|failed"
        ):
            await within(session.start(0.2))
    assert actors() <= before


async def test_somebody_else_listens() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(LinkDownError, match="no answer"):
        await within(ScmiSession(address).start(0.2))
    server.close()
    await within(server.wait_closed())


async def test_a_wrong_token_is_said_at_once(firmware: Firmware) -> None:
    with pytest.raises(HandshakeError, match=r"token: refused by 127.0.0.1:.*: wrong token") as refused:
        async with connect(firmware.address, token="no", connect_timeout=1e6):
            raise AssertionError
    assert refused.value.field == "token"
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "7101", "localhost", "localhost:", ":7101", "h:0", "h:65536", "h:-1", "h:x", "h:²"]
)
async def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        ScmiSession(text)


def test_addresses() -> None:
    assert parse_address("localhost:7101") == ("localhost", 7101)
    assert parse_address("[::1]:1") == ("::1", 1)


async def test_a_name_is_one_sessions(firmware: Firmware) -> None:
    first = ScmiSession(firmware.address, guest="same", token=TOKEN)
    with pytest.raises(LocalError, match=r"another session is guest 'same' of 127\.0\.0\.1"):
        ScmiSession(firmware.address, guest="same", token=TOKEN)
    for same in ("localhost", "127.1"):
        with pytest.raises(LocalError, match=f"another session is guest 'same' of {same}"):
            ScmiSession(firmware.address.replace("127.0.0.1", same), guest="same", token=TOKEN)
    elsewhere = ScmiSession("127.0.0.1:1", guest="same", token=TOKEN)
    await elsewhere.close()
    await first.close()
    async with connect(firmware.address, guest="same", token=TOKEN) as agent:
        assert await within(agent.base.vendor()) == "acme"


async def test_another_machine_cannot_take_the_name_of_a_session(firmware: Firmware) -> None:
    first = ScmiSession(firmware.address, guest="same", token=TOKEN, timeout=30.0)
    first._name.release()  # where this is a machine of its own nobody sees that the name is held
    second = ScmiSession(firmware.address, guest="same", token=TOKEN, timeout=30.0)
    await within(first.start())
    with pytest.raises(HandshakeError, match="another process"):
        await within(second.start())
    await within(first.agent.base.vendor())
    await first.close()


async def test_a_session_that_was_replaced_while_it_was_away_ends(firmware: Firmware) -> None:
    """Another one was this guest meanwhile, and may have changed what the script relies on."""
    session = ScmiSession(firmware.address, guest="same", token=TOKEN)
    await within(session.start())
    assert firmware.service.attachments["same"].link is not None
    firmware.service.attachments["same"].epoch = 1
    firmware.service.attachments["same"].link.close("cut")
    with pytest.raises(LinkDownError):
        await within(_forever(session))
    assert "was guest 'same'" in await within(session.over)
    await session.close()


async def test_what_a_session_sets_outlives_it(firmware: Firmware) -> None:
    async with connect(firmware.address, token=TOKEN) as agent:
        await within(agent.clock.rate_set(0, 400))
    async with connect(firmware.address, token=TOKEN) as agent:
        assert await within(agent.clock.rate_get(0)) == 400


async def _forever(session: ScmiSession) -> None:
    while True:
        await session.agent.base.vendor()


async def test_a_broken_queue_ends_commands_only(firmware: Firmware) -> None:
    session = ScmiSession(firmware.address, token=TOKEN)
    await within(session.start())
    session.driver.rings["cmdq"].broken = True
    with pytest.raises(Exception, match="broken"):
        await within(session.agent.base.vendor())
    await within(session.close())


def test_a_script_that_sets_up_no_log_keeps_its_standard_output(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from services.guest_driver.scmi_session import connect\n"
        "async def main():\n"
        "    async with connect('127.0.0.1:1', connect_timeout=0.1): pass\n"
        "asyncio.run(main())\n"
    )
    done: Any = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not done.stdout
    assert "LinkDownError" in done.stderr


@pytest.mark.parametrize(
    ("guest", "token", "why"),
    [
        ("\x1b[31mred", "", r"guest: '\\x1b\[31mred' is not a name"),
        ("a" * 33, "", "is not a name of at most 32"),
        ("\udcff", "", "is not a name"),
        ("", "\udcff", "token: it is not UTF-8"),
    ],
)
async def test_what_no_platform_would_take(guest: str, token: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ScmiSession("127.0.0.1:1", guest=guest, token=token)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "nul\0"])
async def test_a_name_at_a_host_that_is_not_known(host: str) -> None:
    """Its text stands for it: whoever connects hears that there is none."""
    first = ScmiSession(f"{host}:1", guest="same")
    with pytest.raises(LocalError, match="another session is guest 'same'"):
        ScmiSession(f"{host}:1", guest="same")
    other = ScmiSession(f"{host}:2", guest="same")
    await other.close()
    await first.close()
