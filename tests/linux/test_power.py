"""The end of a guest: the platform asks for it, Linux's last words, and what both sides wrote down of the whole run."""

from __future__ import annotations

import pytest

from services.linux_guest import ftrace
from services.linux_guest.console import Section
from services.linux_guest.guest import LinuxGuest
from services.linux_guest.trace_compare import compare, once
from services.linux_guest.trace_ladder import ladder
from tests.linux.conftest import GUARD, Booted

pytestmark = [pytest.mark.linux, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3 * GUARD)]

COUNTERS = "transport/counters/"


async def shut_down(guest: LinuxGuest, state: str, section: str) -> Section:
    """Have the platform announce ``state``; the counters that the guest printed at its end."""
    before = len(guest.console.sections)
    await guest.system_power(state)
    assert await guest.ended(GUARD), list(guest.console.lines)[-20:]
    assert len(guest.console.sections) > before
    found = guest.console.section(section)
    assert found is not None, list(guest.console.lines)[-20:]
    return found


async def test_a_shutdown_powers_the_guest_off_and_both_traces_agree(booted: Booted) -> None:
    guest = await booted()
    counters = (await shut_down(guest, "shutdown", "poweroff")).numbers()
    assert any("Power down" in line for line in guest.console.lines)
    assert counters[f"{COUNTERS}notification_ok"] == 1

    await guest.stop()
    text = guest.console.section("trace")
    assert text is not None
    linux, ours = ftrace.parse(text.text), ftrace.parse("\n".join(guest.trace))
    assert (linux.unread, linux.lost, ours.unread) == (0, 0, 0)
    result = compare(linux.messages, ours.messages)
    assert result.equal, result.lines()
    assert len(result.pairs) == len(ours.messages) > 200

    # what Linux counted is what it wrote down, and what the platform wrote down
    kinds = [one.kind for one in once(linux.messages)]
    assert counters[f"{COUNTERS}sent_ok"] == kinds.count("CMND") == sum(one.kind == "CMND" for one in ours.messages)
    assert kinds.count("RESP") == counters[f"{COUNTERS}sent_ok"]
    assert counters[f"{COUNTERS}delayed_response_ok"] == kinds.count("DLYD") > 0
    assert counters[f"{COUNTERS}notification_ok"] == kinds.count("NOTI")
    # a polled reply that the interrupt brought as well counts as both
    both = counters[f"{COUNTERS}response_ok"] + counters[f"{COUNTERS}response_polled_ok"]
    assert both >= counters[f"{COUNTERS}sent_ok"]
    refused = sum(one.kind == "RESP" and one.status != 0 for one in once(linux.messages))
    assert counters[f"{COUNTERS}err_protocol"] <= refused

    drawn = ladder(linux.events, ours.messages).splitlines()
    assert drawn[0].split() == ["cpu0", "cpu1", "platform"]
    assert drawn[-1] == f"guest and platform agree on {len(result.pairs)} messages"


async def test_one_processor_polls_by_itself(booted: Booted) -> None:
    """A clock is enabled with interrupts off: with one processor nobody but the poller can have seen its reply."""
    from services.linux_guest.qemu import Machine

    guest = await booted(machine=Machine(cpus=1))
    counters = guest.console.section("scmi")
    assert counters is not None
    numbers = counters.numbers()
    assert numbers[f"{COUNTERS}response_polled_ok"] > 0
    assert numbers[f"{COUNTERS}xfers_response_polled_timeout"] == 0


async def test_a_warm_reset_restarts_the_guest(booted: Booted) -> None:
    guest = await booted()
    await shut_down(guest, "warm_reset", "reboot")


async def test_the_device_on_virtio_mmio(booted: Booted) -> None:
    from services.linux_guest.qemu import Machine

    guest = await booted(machine=Machine(mmio=True))
    virtio = guest.console.section("virtio")
    assert virtio is not None
    assert virtio.values()["virtio0 device"] == "0x0020"
    shown = guest.console.section("scmi")
    assert shown is not None
    assert shown.values()["transport/is_atomic"] == "Y"
