"""Each fault of the firmware, and what Linux's counters say of it: what drivers/firmware/arm_scmi/driver.c of 6.12
counts.

Linux's time-out is half a second here (``arm,max-rx-timeout-ms``). Every fault strikes one message and the counters'
change is compared whole, so that nothing else moved.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from common.scmi import header
from services.linux_guest.guest import LinuxGuest
from tests.linux.conftest import GUARD, Booted

pytestmark = [pytest.mark.linux, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3 * GUARD)]

TIMEOUT_MS = 500
COUNTERS = "show '' $SCMI/transport/counters/*"
#: A synchronous reading, and one with a delayed response: cpu-temp and p-cpu of the board.
READ = "value /sys/class/hwmon/hwmon0/temp1_input"
READ_LATER = "value /sys/class/hwmon/hwmon0/power1_input"
READING = ["sensor/SENSOR_READING_GET"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(booted: Booted) -> AsyncIterator[LinuxGuest]:
    yield await booted(max_rx_timeout_ms=TIMEOUT_MS)


async def counters(guest: LinuxGuest) -> dict[str, int]:
    return (await guest.run(COUNTERS)).numbers()


async def faults(guest: LinuxGuest, *rules: dict[str, Any]) -> None:
    await guest.post("/faults", {"rules": rules})


async def change(
    guest: LinuxGuest, command: str, *rules: dict[str, Any], after: float = 0.0
) -> tuple[dict[str, int], str, int]:
    """Run ``command`` under ``rules``: the counters that moved (looked at ``after`` seconds), its output and status."""
    before = await counters(guest)
    await faults(guest, *rules)
    done = await guest.run(command)
    await asyncio.sleep(after)
    await faults(guest)
    now = await counters(guest)
    return {name: now[name] - count for name, count in before.items() if now[name] != count}, done.text, done.status


def rule(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "only": READING, "count": 1, **fields}


def constant(seconds: float) -> dict[str, Any]:
    return {"distribution": "constant", "seconds": seconds}


async def test_without_a_fault(guest: LinuxGuest) -> None:
    moved, said, status = await change(guest, READ)
    assert (moved, said, status) == ({"sent_ok": 1, "response_ok": 1}, "42500", 0)


async def test_an_answer_that_is_late_but_in_time(guest: LinuxGuest) -> None:
    moved, said, _ = await change(guest, READ, rule("delay", time=constant(0.1)))
    assert (moved, said) == ({"sent_ok": 1, "response_ok": 1}, "42500")


async def test_an_answer_after_the_time_out(guest: LinuxGuest) -> None:
    moved, _, status = await change(guest, READ, rule("delay", time=constant(1.0)), after=2.0)
    assert status != 0
    assert moved == {"sent_ok": 1, "xfers_response_timeout": 1, "err_msg_unexpected": 1}


async def test_no_answer(guest: LinuxGuest) -> None:
    moved, _, status = await change(guest, READ, rule("never"))
    assert status != 0
    assert moved == {"sent_ok": 1, "xfers_response_timeout": 1}


async def test_a_wrong_token(guest: LinuxGuest) -> None:
    moved, _, status = await change(guest, READ, rule("wrong_token"))
    assert status != 0
    assert moved == {"sent_ok": 1, "err_msg_unexpected": 1, "xfers_response_timeout": 1}


async def test_a_wrong_protocol_is_not_noticed(guest: LinuxGuest) -> None:
    """Linux looks a reply up by its token alone."""
    moved, said, _ = await change(guest, READ, rule("wrong_protocol", protocol=0x14))
    assert (moved, said) == ({"sent_ok": 1, "response_ok": 1}, "42500")


async def test_a_reply_without_its_values_is_not_noticed(guest: LinuxGuest) -> None:
    """Linux takes header and status for a whole reply; what it reads then is what lies in the buffer: its command."""
    moved, said, _ = await change(guest, READ, rule("truncate", length=8))
    assert moved == {"sent_ok": 1, "response_ok": 1}
    assert said != "42500"


async def test_a_reply_without_even_a_header(guest: LinuxGuest) -> None:
    """Linux reads the header of an older message, to which nobody waits for an answer any more."""
    moved, _, status = await change(guest, READ, rule("truncate", length=0))
    assert status != 0
    assert moved == {"sent_ok": 1, "err_msg_unexpected": 1, "xfers_response_timeout": 1}


async def test_answers_out_of_order(guest: LinuxGuest) -> None:
    moved, said, _ = await change(guest, f"{READ} & {READ} & wait", rule("reorder", passing=1))
    assert moved == {"sent_ok": 2, "response_ok": 2}
    assert said.split() == ["42500", "42500"]


async def test_a_delayed_response(guest: LinuxGuest) -> None:
    moved, said, _ = await change(guest, READ_LATER)
    assert (moved, said) == ({"sent_ok": 1, "response_ok": 1, "delayed_response_ok": 1}, "1140000")


async def test_a_delayed_response_twice(guest: LinuxGuest) -> None:
    """The second one is invalid while the transfer is still there, and unexpected once it has gone."""
    moved, said, _ = await change(guest, READ_LATER, rule("twice", of="delayed_response"), after=0.2)
    assert said == "1140000"
    assert moved.pop("err_msg_invalid", 0) + moved.pop("err_msg_unexpected", 0) == 1
    assert moved == {"sent_ok": 1, "response_ok": 1, "delayed_response_ok": 1}


async def test_no_delayed_response(guest: LinuxGuest) -> None:
    """Linux waits two seconds and has no counter for it."""
    moved, _, status = await change(guest, READ_LATER, rule("never", of="delayed_response"))
    assert status != 0
    assert moved == {"sent_ok": 1, "response_ok": 1}


async def test_a_delayed_response_before_its_response(guest: LinuxGuest) -> None:
    """Linux takes the delayed response, and the response that comes after it for a mistake."""
    moved, said, _ = await change(guest, READ_LATER, rule("delay", time=constant(0.1)), after=0.3)
    assert said == "1140000"
    assert moved.pop("err_msg_invalid", 0) + moved.pop("err_msg_unexpected", 0) == 1
    assert moved == {"sent_ok": 1, "delayed_response_ok": 1}


async def test_a_storm_of_notifications(guest: LinuxGuest) -> None:
    storm = {"kind": "storm", "protocol": "sensor", "event": 0, "burst": 100, "count": 100, "unasked": True}
    moved, said, _ = await change(guest, "echo quiet", storm, after=1.0)
    assert (moved, said) == ({"notification_ok": 100}, "quiet")
    moved, said, _ = await change(guest, READ)
    assert said == "42500"


async def test_a_trip_point_tells_the_guest(guest: LinuxGuest) -> None:
    """Raw mode sets the trip point at 90 °C, arms it and asks for its notification; then the sensor gets hot."""
    config = header.command(0x15, 0x5, payload=struct.pack("<IIq", 0, 3, 90_000))  # sensor 0, point 0 both ways, value
    notify = header.command(0x15, 0x4, payload=struct.pack("<II", 0, 1))  # sensor 0, on
    for message in (config, notify):
        answer = bytes.fromhex((await guest.run(f"scmi_raw {message.hex()}")).text)
        assert answer[4:8] == bytes(4), answer.hex()
    before = await counters(guest)
    await guest.post("/scmi/sensor", {"sensor": "cpu-temp", "value": 95_000})
    await asyncio.sleep(0.5)
    assert (await guest.run(READ)).text == "95000"
    await guest.post("/scmi/sensor", {"sensor": "cpu-temp", "value": None})
    await asyncio.sleep(0.5)
    now = await counters(guest)
    assert now["notification_ok"] - before["notification_ok"] == 2  # up and down again


async def test_a_used_element_twice_breaks_the_queue(guest: LinuxGuest) -> None:
    """The last one on this guest: its virtqueue refuses everything from here on."""
    await faults(guest, rule("twice"))
    await guest.run(READ)
    before = await counters(guest)
    done = await guest.run(READ)
    assert done.status != 0
    now = await counters(guest)
    assert {name: now[name] - count for name, count in before.items() if now[name] != count} == {"sent_fail": 1}
    assert "is not a head" in (await guest.run("dmesg | tail -n 20")).text


async def test_polled_commands_without_their_interrupt(booted: Booted) -> None:
    """The platform never interrupts for what enables the clock: Linux finds every one of the answers by polling."""
    silent = {"kind": "silent", "only": ["clock/CLOCK_CONFIG_SET"]}
    guest = await booted(max_rx_timeout_ms=TIMEOUT_MS, faults={"rules": [silent]})
    found = await counters(guest)
    polled = int((await guest.run("grep -c 'scmi_xfer_begin: pt=14 msg_id=07.*poll=1' $TRACE/trace")).text)
    assert found["response_polled_ok"] >= polled > 0
    assert found["sent_ok"] - found["response_ok"] >= polled  # no interrupt brought them
    assert found["xfers_response_polled_timeout"] == found["xfers_response_timeout"] == 0
    (mine,) = (await guest.get("/faults"))["agents"].values()
    assert mine["counts"]["silent"] == polled
    assert (await guest.run(READ)).text == "42500"


async def test_a_polled_command_that_is_never_answered(booted: Booted) -> None:
    never = {"kind": "never", "only": ["clock/CLOCK_CONFIG_SET"], "count": 1}
    guest = await booted(max_rx_timeout_ms=TIMEOUT_MS, faults={"rules": [never]})
    found = await counters(guest)
    assert found["xfers_response_polled_timeout"] == 1
    assert found["xfers_response_timeout"] == 0
    assert (await guest.run(READ)).text == "42500"
