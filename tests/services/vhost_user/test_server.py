"""The SCMI platform behind real sockets: the whole way from a driver's ring to the firmware and back."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from common.scmi import base, clock, header, sensor
from common.scmi.status import Status
from services.scmi_platform.faults import FaultPlan
from tests.services.scmi_platform.scmi_rig import words
from tests.services.vhost_user.front_end import GuestRam
from tests.services.vhost_user.scmi_front import CMDQ, EVENTQ, Guest, Served, guest_at

RATE_GET = (clock.PROTOCOL, clock.Command.CLOCK_RATE_GET)
RATE_SET = (clock.PROTOCOL, clock.Command.CLOCK_RATE_SET)
RATE_NOTIFY = (clock.PROTOCOL, clock.Command.CLOCK_RATE_NOTIFY)
READING_GET = (sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET)
CPU = 0


def rate(reply: bytes) -> int:
    status, value = struct.unpack("<iQ", reply)
    assert status == 0
    return int(value)


@pytest.mark.parametrize("start", [0, 0xFFE0], ids=["from 0", "over the wrap"])
@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "in pieces"])
async def test_many_commands(tmp_path: Path, start: int, pieces: int) -> None:
    """Polled and by interrupt, alone and together, direct and indirect; every reply its own."""
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        for turn in range(60):
            poll = turn % 2 == 0
            wanted = 100 * (1 + turn % 17)
            assert guest.command(*RATE_SET, 0, CPU, wanted, 0, poll=poll, pieces=pieces) == words(0)
            together = 1 + turn % 8
            replies = guest.commands([(*RATE_GET, (CPU,))] * together, poll=not poll, pieces=pieces)
            assert [rate(reply) for reply in replies] == [wanted] * together

    async with Served(str(path)) as served, guest_at(path, start=start) as guest:
        await asyncio.to_thread(drive, guest)
        count = 60 + sum(1 + turn % 8 for turn in range(60))
        assert served.value("ringmesh_scmi_device_commands_total", guest="vm0") == count
        assert served.value("ringmesh_vhost_queue_used_total", guest="vm0", queue="cmdq") == count
        assert served.value("ringmesh_vhost_queue_again_total", guest="vm0", queue="cmdq") == 0


async def test_no_interrupt_for_polled_commands(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> int:
        guest.command(*RATE_GET, CPU)
        guest.interrupts(CMDQ)
        for _ in range(50):
            assert rate(guest.command(*RATE_GET, CPU, poll=True)) == 300
        return guest.interrupts(CMDQ)

    async with Served(str(path)), guest_at(path) as guest:
        assert await asyncio.to_thread(drive, guest) == 0


async def test_replies_are_cut_to_the_room(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, guest_at(path) as guest:
        assert await asyncio.to_thread(guest.command, *RATE_GET, CPU, room=10) == words(0) + b"\x2c\x01"
        assert served.value("ringmesh_scmi_device_truncated_total", guest="vm0") == 1


async def test_notifications_and_delayed_responses(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        assert guest.command(*RATE_NOTIFY, CPU, 1) == words(0)
        guest.command(*RATE_SET, 0, CPU, 400, 0)  # nobody listens: dropped
        guest.feed(8, 136, 136)
        guest.command(*RATE_SET, 0, CPU, 500, 0)
        seen = guest.event()
        assert seen[:4] == header.notification(clock.PROTOCOL, clock.Notification.CLOCK_RATE_CHANGED, b"")
        assert clock.RATE_EVENT.unpack(seen[4:])[1:] == (CPU, 500)
        # the buffer of 8 bytes waits for a message that fits; the last is for what comes late
        guest.command(*RATE_SET, 0, CPU, 600, 0)
        assert clock.RATE_EVENT.unpack(guest.event()[4:])[2] == 600
        assert guest.command(*READING_GET, 0, 1) == words(0)
        late = header.as_delayed(header.pack(sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET, guest.token))
        guest.command(*RATE_GET, CPU)
        guest.feed(136)
        seen = guest.event()
        assert seen[:8] == words(late, 0)

    async with Served(str(path)) as served, guest_at(path) as guest:
        await asyncio.to_thread(drive, guest)
        assert served.value("ringmesh_scmi_device_notifications_dropped_total", guest="vm0") == 1
        assert served.value("ringmesh_scmi_device_events_total", guest="vm0") == 3


async def test_other_memory_while_rings_run(tmp_path: Path) -> None:
    """DIMMs come and go under traffic; both ways in which front ends say so."""
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        for turn in range(8):
            dimm = GuestRam(1 << 16, guest=0x8000_0000, user=0x7E00_0000_0000)
            by_region = turn % 2 == 0
            if by_region:
                assert guest.front.add(dimm) == 0
            else:
                assert guest.front.share(*guest.rams, dimm) == 0
            region = guest.memory.add_region(dimm.guest, dimm.size, memoryview(dimm.bytes))
            below, guest.data = guest.data, dimm.guest
            replies = guest.commands([(*RATE_GET, (CPU,))] * 8, poll=turn % 4 < 2)
            assert [rate(reply) for reply in replies] == [300] * 8
            guest.data = below
            if by_region:
                assert guest.front.remove(dimm) == 0
            else:
                assert guest.front.share(*guest.rams) == 0
            guest.memory.remove_region(dimm.guest)
            del region
            dimm.close()
            assert rate(guest.command(*RATE_GET, CPU)) == 300

    async with Served(str(path)) as served, guest_at(path) as guest:
        await asyncio.to_thread(drive, guest)
        assert served.value("ringmesh_vhost_device_memory_changes_total", guest="vm0") == 17
        assert served.value("ringmesh_vhost_device_starts_total", guest="vm0") == 2


async def test_stopped_and_started_where_it_stood(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        guest.feed(136, 136, 136)
        assert guest.command(*RATE_NOTIFY, CPU, 1) == words(0)
        for turn in range(3):
            guest.command(*RATE_SET, 0, CPU, 400 + 100 * turn, 0)
            assert clock.RATE_EVENT.unpack(guest.event()[4:])[2] == 400 + 100 * turn
            bases = [guest.front.stop_ring(queue) for queue in (CMDQ, EVENTQ)]
            assert bases == [guest.drivers[CMDQ].last_used_idx, turn + 1]
            guest.send(0, header.command(*RATE_GET, 7, words(CPU)))
            guest.feed(136)
            for queue in (CMDQ, EVENTQ):
                guest.start(queue, bases[queue])
            while (got := guest.drivers[CMDQ].get_buf()) is None:
                guest.wait(CMDQ)
            assert got == (0, 16)
            assert rate(guest.memory.read(guest.data + 260, 12)) == 400 + 100 * turn

    async with Served(str(path)) as served, guest_at(path) as guest:
        await asyncio.to_thread(drive, guest)
        assert served.value("ringmesh_vhost_queue_again_total", guest="vm0", queue="cmdq") == 0
        assert served.value("ringmesh_vhost_queue_handed_back_total", guest="vm0", queue="eventq") > 0


async def test_held_answers_are_given_before_the_ring_stops(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        for n in range(4):
            guest.send(n, header.command(*RATE_GET, n, words(CPU)))
        guest.front.kick(CMDQ)
        while guest.front.ask_u64(1) == 0:  # a round trip: the kick was served by now or is soon
            pass
        base = guest.front.stop_ring(CMDQ)
        done = guest.drivers[CMDQ].get_bufs(8)
        assert sorted(n for n, _ in done) == list(range(base))
        assert all(rate(guest.memory.read(guest.data + 512 * n + 260, 12)) == 300 for n, _ in done)

    slow = FaultPlan(after=0, late=1.0, late_seconds=3600.0)
    async with Served(str(path), faults=slow), guest_at(path) as guest:
        await asyncio.to_thread(drive, guest)


async def test_a_driver_that_begins_anew(tmp_path: Path) -> None:
    """A front end that hangs up in the middle: what was set stays, what was asked for is forgotten."""
    path = tmp_path / "vm0.sock"

    def first(guest: Guest) -> None:
        assert guest.command(*RATE_NOTIFY, CPU, 1) == words(0)
        assert guest.command(*RATE_SET, 0, CPU, 700, 0) == words(0)

    def second(guest: Guest) -> None:
        guest.feed(136)
        assert rate(guest.command(*RATE_GET, CPU)) == 700
        guest.command(*RATE_SET, 0, CPU, 800, 0)
        assert guest.drivers[EVENTQ].get_buf() is None

    async with Served(str(path)) as served:
        for drive in (first, second):
            async with guest_at(path) as guest:
                await asyncio.to_thread(drive, guest)
        await served.until(lambda: served.value("ringmesh_vhost_device_resets_total", guest="vm0") == 2)


async def test_a_broken_ring_is_broken_alone(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"

    def drive(guest: Guest) -> None:
        guest.feed(136)
        guest.command(*RATE_NOTIFY, CPU, 1)
        guest.drivers[CMDQ].add([(1 << 50, 8)], [(guest.data, 16)], "nowhere")
        guest.front.kick(CMDQ)

    def after(guest: Guest, other: Guest) -> None:
        assert other.command(*RATE_SET, 0, CPU, 900, 0) == words(0)
        assert clock.RATE_EVENT.unpack(guest.event()[4:])[2] == 900

    async with Served(str(path), f"{tmp_path / 'other.sock'},agent=BOSS") as served, guest_at(path) as guest:
        await asyncio.to_thread(drive, guest)
        await served.until(lambda: served.value("ringmesh_vhost_queue_broken_total", guest="vm0", queue="cmdq") == 1)
        async with guest_at(tmp_path / "other.sock") as other:
            await asyncio.to_thread(after, guest, other)


async def test_every_socket_is_an_agent(tmp_path: Path) -> None:
    paths = [tmp_path / "BOSS.sock", tmp_path / "x.sock", tmp_path / "third.sock"]

    def who(guest: Guest) -> tuple[int, bytes]:
        reply = guest.command(base.PROTOCOL, base.Command.BASE_DISCOVER_AGENT, 0xFFFF_FFFF)
        status, number = struct.unpack_from("<iI", reply)
        assert status == Status.SUCCESS
        return number, reply[8:].rstrip(b"\0")

    async with Served(str(paths[0]), f"{paths[1]},agent=OSPM", str(paths[2])) as served:
        seen = []
        for path in paths:
            async with guest_at(path) as guest:
                seen.append(await asyncio.to_thread(who, guest))
        assert seen == [(2, b"BOSS"), (1, b"OSPM"), (3, b"third")]
        assert served.value("ringmesh_guests") == 3
