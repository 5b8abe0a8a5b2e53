"""The recorder: what is in the file, what other programs find in it, and that nothing in it hurts traffic."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.pcap import INBOUND, OUTBOUND, read_capture
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.backends.record import Record, Recording, RecordStats
from services.vdpa_nic.backends.replay import Replay, at_rate
from services.vdpa_nic.backends.switch import LearningSwitch

MACS = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02"
#: flags NEEDS_CSUM, csum_start 34, csum_offset 6: headers are not recorded whatever they say
HEADER = bytes([1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0])
HANG_GUARD = 60


def packet(number: int, length: int = 60) -> bytes:
    return HEADER + MACS + b"\x88\xb5" + bytes((number,)) * (length - 14)


class Rig:
    """A recording into memory, with a clock that the test moves."""

    def __init__(self, limit: int = 1 << 20, **more: Any) -> None:
        self.file = BytesIO()
        self.time = 1.7e9
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.recording = Recording(
            more.pop("write", self.file.write), lambda: self.time, limit=limit, log=self._log, **more
        )

    def _log(self, event: str, **details: Any) -> None:
        self.said.append((event, details))

    @property
    def stats(self) -> RecordStats:
        return self.recording.stats

    def read(self) -> list[tuple[float, bytes]]:
        return read_capture(BytesIO(self.file.getvalue()), 1 << 17)


def test_both_directions_in_their_order() -> None:
    rig = Rig()
    record = Record(Echo(2), rig.recording, "guest0")
    sent = [packet(1), packet(2)]
    record.transmit(1, sent, 5.0)
    assert list(record.backlog[1]) == [(sent[0], 5.0), (sent[1], 5.0)], "the echo goes on"
    rig.time += 2.5
    record.transmit(0, [packet(3)], 6.0)
    frames = [frame for _, frame in rig.read()]
    assert frames == [p[12:] for p in [*sent, *sent, packet(3), packet(3)]]
    assert [time for time, _ in rig.read()] == [1.7e9] * 4 + [1.7e9 + 2.5] * 2
    assert (rig.stats.packets, rig.stats.missed) == (6, 0)
    assert rig.stats.bytes == len(rig.file.getvalue())
    assert not rig.said


def test_what_a_replay_plays() -> None:
    rig = Rig()
    record = Record(Replay([packet(1)[12:], packet(2)[12:]], at_rate(1.0), limit=2), rig.recording, "guest0")
    for now in range(6):
        record.tick(float(now))
    assert [frame[-1] for _, frame in rig.read()] == [1, 2], "what was not played for want of room is not there"
    assert record.backlog[0].popleft()[0][-1] == 1
    record.backlog[0].appendleft((packet(1), 9.0))
    assert rig.stats.packets == 2, "put back is not received again"


def test_what_another_port_sends() -> None:
    """A switch puts packets in whenever it likes: the recorder is asked for nothing."""
    rig, switch = Rig(), LearningSwitch()
    record = Record(switch.port(lambda: None), rig.recording, "guest0")
    switch.port(lambda: None).transmit(0, [packet(7)], 1.0)
    assert [packet for packet, _ in record.backlog[0]] == [packet(7)]
    assert [frame for _, frame in rig.read()] == [packet(7)[12:]]


def test_a_pair_that_is_switched_off() -> None:
    """The NIC moves what waits there to one that is on: it is not received again."""
    rig = Rig()
    record = Record(Echo(2), rig.recording, "guest0")
    record.transmit(1, [packet(1), packet(2)], 5.0)
    record.backlog[0].extend(record.backlog[1])
    record.backlog[1].clear()
    assert list(record.backlog[0]) == [(packet(1), 5.0), (packet(2), 5.0)]
    assert rig.stats.packets == 4


def test_packets_that_wait_already_stay() -> None:
    echo = Echo()
    echo.transmit(0, [packet(1)], 1.0)
    rig = Rig()
    record = Record(echo, rig.recording, "guest0")
    assert list(record.backlog[0]) == [(packet(1), 1.0)]
    assert rig.stats.packets == 0


def test_a_clock_set_back() -> None:
    rig = Rig()
    record = Record(Echo(), rig.recording, "guest0")
    for step in (0.0, 3.0, -100.0, 98.0):
        rig.time += step
        record.transmit(0, [packet(1)], 1.0)
    assert [time - 1.7e9 for time, _ in rig.read()] == [0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_cut_short() -> None:
    rig = Rig(snaplen=20)
    Record(Echo(), rig.recording, "guest0").transmit(0, [packet(1, 19), packet(2, 20), packet(3, 21)], 1.0)
    assert [frame for _, frame in rig.read()][:3] == [packet(1, 19)[12:], packet(2, 20)[12:], packet(3, 20)[12:]]


@given(batches=st.lists(st.integers(1, 4), max_size=12), limit=st.integers(0, 2500))
def test_the_limit(batches: list[int], limit: int) -> None:
    rig = Rig(limit)
    record = Record(Echo(), rig.recording, "guest0")
    sent = []
    for turn, count in enumerate(batches):
        batch = [packet(turn, 60 + 9 * i) for i in range(count)]
        record.transmit(0, batch, float(turn))
        sent += batch * 2
    assert [packet for packet, _ in record.backlog[0]] == [p for turn, n in enumerate(batches) for p in (
        packet(turn, 60 + 9 * i) for i in range(n)
    )], "traffic goes on"  # fmt: skip
    size = len(rig.file.getvalue())
    assert size == rig.stats.bytes <= limit
    assert rig.stats.packets + rig.stats.missed == len(sent)
    if rig.stats.packets:
        assert [frame for _, frame in rig.read()] == [p[12:] for p in sent[: rig.stats.packets]], "up to one place"
    if rig.stats.missed:
        assert limit - size < 60 + 60 + 27 + 3, "it did not end before it had to"
        assert [details["reason"] for _, details in rig.said] == ["limit"]
    assert rig.stats.write_errors == 0


def failing(after: int, how: Callable[[bytes], int]) -> Callable[[bytes], int]:
    """A file that takes ``after`` writes."""
    left = after

    def write(data: bytes) -> int:
        nonlocal left
        left -= 1
        return len(data) if left >= 0 else how(data)

    return write


def full(_data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize(("how", "reason"), [(full, "No space left"), (lambda data: len(data) - 1, "bytes written")])
def test_a_disk_that_is_full(after: int, how: Callable[[bytes], int], reason: str) -> None:
    rig = Rig(write=failing(after, how))
    record = Record(Echo(), rig.recording, "guest0")
    for turn in range(3):
        record.transmit(0, [packet(turn)], float(turn))
    assert [packet[-1] for packet, _ in record.backlog[0]] == [0, 1, 2]
    recorded = max(0, after - 2)  # the section, the interface, then a write a batch
    assert (rig.stats.packets, rig.stats.missed, rig.stats.write_errors) == (recorded, 6 - recorded, 1)
    assert len(rig.said) == 1
    assert reason in rig.said[0][1]["reason"]


def test_a_real_full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        rig = Rig(write=file.write)
        Record(Echo(), rig.recording, "guest0").transmit(0, [packet(1)], 1.0)
    assert (rig.stats.write_errors, rig.stats.missed) == (1, 2)


# --- other programs ---------------------------------------------------------------------------------------------------


def run(program: str, *args: str) -> str:
    """What ``program`` says; the test is skipped if it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: nothing but dpkt has read the file")
    done = subprocess.run([path, *args], capture_output=True, text=True, timeout=HANG_GUARD, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two guests: one plugged into an echo on two pairs, one that only hears; the second frame is cut short."""
    path = tmp_path / "traffic.pcapng"
    with path.open("wb", buffering=0) as file:
        rig = Rig(write=file.write, snaplen=100)
        first = Record(Echo(2), rig.recording, "guest0")
        second = Record(Replay([packet(9, 70)[12:]], at_rate(1.0)), rig.recording, "guest1")
        assert rig.recording.interface("guest0") == 0, "a guest that starts anew keeps its interface"
        first.transmit(1, [packet(1, 60), packet(2, 200)], 1.0)
        rig.time += 1.25
        second.tick(0.0)
        second.tick(1.0)
    return path


def test_tcpdump_opens_it(recorded: Path) -> None:
    lines = [line for line in run("tcpdump", "-r", str(recorded), "-nn", "-e", "-tt").splitlines() if "length" in line]
    assert [int(line.split("length ")[1].split(":")[0]) for line in lines] == [60, 200, 60, 200, 70]
    assert [line.split()[0] for line in lines] == ["1700000000.000000"] * 4 + ["1700000001.250000"]
    assert all("02:00:00:00:00:02 > 02:00:00:00:00:01" in line for line in lines)
    dump = run("tcpdump", "-r", str(recorded), "-nn", "-xx", "-c", "1")
    data = "".join(part for line in dump.splitlines() if "0x0" in line for part in line.split(":")[1].split())
    assert bytes.fromhex(data) == packet(1, 60)[12:]


def test_tshark_knows_interface_and_direction(recorded: Path) -> None:
    fields = (
        "frame.len", "frame.cap_len", "frame.interface_name", "frame.packet_flags_direction", "frame.time_epoch",
    )  # fmt: skip
    names = [part for field in fields for part in ("-e", field)]
    lines = run("tshark", "-r", str(recorded), "-T", "fields", *names).splitlines()
    got = [(int(n), int(kept), name, int(way, 0), float(time)) for n, kept, name, way, time in map(str.split, lines)]
    assert got == [
        (60, 60, "guest0", OUTBOUND, 1.7e9),
        (200, 100, "guest0", OUTBOUND, 1.7e9),
        (60, 60, "guest0", INBOUND, 1.7e9),
        (200, 100, "guest0", INBOUND, 1.7e9),
        (70, 70, "guest1", INBOUND, 1.7e9 + 1.25),
    ]


def test_dpkt_reads_it(recorded: Path) -> None:
    with recorded.open("rb") as file:
        frames = [frame for _, frame in read_capture(file, 1518)]
    echoed = [packet(1, 60)[12:], packet(2, 200)[12:112]]
    assert frames == [*echoed, *echoed, packet(9, 70)[12:]]
