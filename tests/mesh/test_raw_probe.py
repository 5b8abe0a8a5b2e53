"""What a booting Linux asks its firmware, through the raw port of a real ``ringmesh serve scmi``: a well-formed reply
of the shape that the guest expects to each of the 66 commands."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from common.scmi import header
from tests.mesh.harness import GUARD, ROOT, Run, running, stop, until

pytestmark = pytest.mark.mesh

PROBE: Final = ROOT / "tests" / "vectors" / "linux-probe.jsonl"
BOARD: Final = ROOT / "deploy" / "boards" / "virt.toml"


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def is_name(data: bytes) -> bool:
    """16 bytes: text, at least one NUL, and nothing after it."""
    text, nul, rest = data.partition(b"\0")
    return len(data) == 16 and bool(nul) and not rest.strip(b"\0") and text.isascii()


def size(*sizes: int) -> Callable[[bytes], bool]:
    return lambda data: len(data) in sizes


def with_name(length: int, at: int) -> Callable[[bytes], bool]:
    return lambda data: len(data) == length and is_name(data[at : at + 16])


def protocols(data: bytes) -> bool:
    """BASE_DISCOVER_LIST_PROTOCOLS: a count, so many ids, filled up to words; the base protocol is not listed."""
    count = word(data, 0)
    ids = data[4 : 4 + count]
    return (
        len(data) == 4 + (count + 3) // 4 * 4
        and list(ids) == sorted(set(ids))
        and 0x10 not in ids
        and not any(data[4 + count :])
    )


def levels(data: bytes) -> bool:
    """PERFORMANCE_DESCRIBE_LEVELS: three words a level, five where levels are indexed; rising."""
    count, left = word(data, 0) & 0xFFF, len(data) - 4
    stride = left // count if count else 0
    values = [word(data, 4 + n * stride) for n in range(count)]
    return bool(count) and left % count == 0 and stride in (12, 20) and values == sorted(set(values))


def last_levels(data: bytes) -> bool:
    """… where the guest asks for the rest of them: there may be none."""
    return levels(data) or data == bytes(4)


def values_of(item: int) -> Callable[[bytes], bool]:
    """A list of ``item``-byte values, or a triplet lowest, highest, step: rates of clocks, levels of voltages."""

    def check(data: bytes) -> bool:
        count, triplet = word(data, 0) & 0xFFF, word(data, 0) >> 12 & 1
        got = [int.from_bytes(data[at : at + item], "little", signed=item == 4) for at in range(4, len(data), item)]
        if triplet:
            return count == 3 and len(data) == 4 + 3 * item and got[0] <= got[1]
        return count > 0 and len(data) == 4 + count * item and got == sorted(set(got))

    return check


def sensors(data: bytes) -> bool:
    """SENSOR_DESCRIPTION_GET: descriptors of one size, ids counted up from 0, names at their 13th byte."""
    count, left = word(data, 0) & 0xFFF, len(data) - 4
    stride = left // count if count else 0
    return (
        bool(count)
        and left % count == 0
        and [word(data, 4 + n * stride) for n in range(count)] == list(range(count))
        and all(is_name(data[16 + n * stride : 32 + n * stride]) for n in range(count))
    )


def intervals(data: bytes) -> bool:
    """SENSOR_LIST_UPDATE_INTERVALS: a word each, or a triplet."""
    count, triplet = word(data, 0) & 0xFFF, word(data, 0) >> 12 & 1
    return len(data) == 4 + 4 * (3 if triplet else count)


#: (protocol, message) → is what follows the status word of a SUCCESS what the guest reads? DEN0056E §4.2–4.10
SHAPES: Final[dict[tuple[int, int], Callable[[bytes], bool]]] = {
    **{(protocol, 0x0): size(4) for protocol in range(0x10, 0x18)},
    **{(protocol, 0x2): size(4) for protocol in range(0x10, 0x18)},
    **{(protocol, 0x1): size(4) for protocol in (0x10, 0x12, 0x14, 0x16, 0x17)},
    **{(protocol, 0x1): size(16) for protocol in (0x11, 0x13, 0x15)},
    (0x10, 0x3): is_name,
    (0x10, 0x4): is_name,
    (0x10, 0x5): size(4),
    (0x10, 0x6): protocols,
    (0x10, 0x7): with_name(20, 4),
    (0x11, 0x3): with_name(20, 4),
    (0x11, 0x4): size(0),
    (0x11, 0x5): size(4),
    (0x12, 0x5): size(0),
    (0x13, 0x3): with_name(32, 16),
    (0x13, 0x4): last_levels,
    (0x13, 0x8): size(4),
    (0x14, 0x3): with_name(24, 4),
    (0x14, 0x4): values_of(8),
    (0x14, 0x6): size(8),
    (0x14, 0x7): size(0),
    (0x15, 0x3): sensors,
    (0x15, 0x8): intervals,
    (0x16, 0x3): with_name(24, 8),
    (0x16, 0x4): size(0),
    (0x17, 0x3): with_name(20, 4),
    (0x17, 0x4): values_of(4),
    (0x17, 0x6): size(4),
    (0x17, 0x8): size(4),
}


class Client:
    """The raw port's client of docs/raw-port.md; ``events`` are what was sent unasked."""

    def __init__(self, address: str) -> None:
        kind, _, rest = address.partition(":")
        if kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(GUARD)
            self.sock.connect(rest)
        else:
            host, _, port = rest.rpartition(":")
            self.sock = socket.create_connection((host, int(port)), GUARD)
        self.events: list[bytes] = []

    def read(self, count: int) -> bytes:
        data = self.sock.recv(count, socket.MSG_WAITALL)
        assert len(data) == count, "the connection was closed"
        return data

    def ask(self, message: bytes) -> bytes:
        self.sock.sendall(struct.pack("<I", len(message)) + message)
        while (reply := self.read(struct.unpack("<I", self.read(4))[0]))[:4] != message[:4]:
            self.events.append(reply)
        return reply

    def command(self, protocol: int, message: int, params: bytes = b"", token: int = 0) -> tuple[int, bytes]:
        """Status and return values."""
        reply = self.ask(header.command(protocol, message, token, params))
        return struct.unpack_from("<i", reply, 4)[0], reply[8:]


@pytest.fixture(scope="module", params=["tcp", "unix"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, str]]:
    """A platform without a mesh, and the address that it says its raw port is at."""
    listen = f"unix:{tmp_path_factory.mktemp('raw')}/s" if request.param == "unix" else "tcp:127.0.0.1:0"
    zero = {"RINGMESH_LISTEN__PORT": "0", "RINGMESH_ADMIN__PORT": "0", "RINGMESH_BOARD": str(BOARD)}
    with running("serve", "scmi", "--raw", listen, variables=zero) as run:
        line = until(lambda: run.said('"raw port"') or run.popen.poll(), "the raw port listens")
        assert isinstance(line, str), run.text
        address = json.loads(line)["address"]
        yield run, address
        assert stop(run) == 0, run.text
    if listen.startswith("unix:"):
        assert not Path(listen.removeprefix("unix:")).exists()
    assert "Traceback" not in run.text


@pytest.fixture(scope="module")
def linux(service: tuple[Run, str]) -> Iterator[Client]:
    """The agent that sends the probe. It speaks the versions that the recorded platform reported: Linux goes by those,
    and where they differ from ours says so by NEGOTIATE_PROTOCOL_VERSION (DEN0056E §4.2.2)."""
    client = Client(service[1])
    for line in map(json.loads, PROBE.read_text().splitlines()):
        if line["message"] == 0:
            version = bytes.fromhex(line["return"])
            assert client.command(line["protocol"], 0x10, version) == (0, b""), hex(line["protocol"])
    yield client
    client.sock.close()


def requests() -> list[Any]:
    lines = [json.loads(line) for line in PROBE.read_text().splitlines()]
    return [
        pytest.param(line, id=f"{number}-{line['protocol']:x}/{line['message']:x}") for number, line in enumerate(lines)
    ]


def test_the_probe_is_whole() -> None:
    assert len(requests()) == 66


@pytest.mark.parametrize("line", requests())
def test_a_reply_as_linux_expects_it(linux: Client, line: dict[str, Any]) -> None:
    protocol, message, params = line["protocol"], line["message"], bytes.fromhex(line["params"])
    request = header.command(protocol, message, line["token"], params)
    reply = linux.ask(request)
    status, values = struct.unpack_from("<i", reply, 4)[0], reply[8:]
    if line["status"]:
        # the platform that the probe was recorded with left it out; another may have it
        assert status in (0, line["status"])
    elif (protocol, message) == (0x13, 0x4) and word(params, 4):
        # the rest of a list that the recorded platform split in two: OUT_OF_RANGE where there is no rest
        assert status in (0, -5)
    else:
        assert status == 0
    if status:
        assert not values, "nothing follows the status of what was refused"
    else:
        assert SHAPES[protocol, message](values), values.hex()
        # of what may be longer than the guest's buffer it would have read less
        assert len(reply) <= line["reply_capacity"]
    if not line["status"] and message not in {0x3, 0x4, 0x6} | ({0x2} if protocol == 0x13 else set()):
        assert len(values) == len(bytes.fromhex(line["return"]))


def test_counts_agree(linux: Client) -> None:
    """What the attributes count is what can be asked for."""
    number = linux.command(0x10, 0x1)[1][0]
    assert number == word(linux.command(0x10, 0x6, bytes(4))[1], 0)
    counted = {0x11: 0xFFFF, 0x13: 0xFFFF, 0x14: 0xFFFF, 0x16: 0xFFFF, 0x17: 0xFFFF}
    for protocol, mask in counted.items():
        status, attributes = linux.command(protocol, 0x1)
        assert status == 0, hex(protocol)
        count = word(attributes, 0) & mask
        assert count, hex(protocol)
        assert linux.command(protocol, 0x3, struct.pack("<I", count - 1))[0] == 0
        assert linux.command(protocol, 0x3, struct.pack("<I", count))[0] == -4, "NOT_FOUND"


def test_another_connection_is_another_agent(service: tuple[Run, str], linux: Client) -> None:
    me = bytes.fromhex("ffffffff")
    other = Client(service[1])
    assert linux.command(0x10, 0x7, me)[1][:4] != other.command(0x10, 0x7, me)[1][:4]
    other.sock.close()


def test_a_length_that_cannot_be_is_said_and_closes_one_connection(service: tuple[Run, str], linux: Client) -> None:
    run, address = service
    bad = Client(address)
    bad.sock.sendall(struct.pack("<I", 1 << 30))
    assert bad.sock.recv(1) == b""
    bad.sock.close()
    assert until(lambda: run.said(f"frame.length = {1 << 30}"), "the log names field and limit")
    assert linux.command(0x10, 0x0)[0] == 0


def test_the_script_of_the_page(service: tuple[Run, str]) -> None:
    script = (ROOT / "docs" / "raw-port.md").read_text().partition("```python\n")[2].partition("```")[0]
    kind, _, rest = service[1].partition(":")
    if kind == "unix":
        pytest.skip("the page's script is for TCP")
    script = script.replace('("127.0.0.1", 7190)', f'("127.0.0.1", {rest.rpartition(":")[2]})')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=GUARD, check=True)
    assert done.stdout == "0 ringmesh\n"


def test_an_address_that_cannot_be_had() -> None:
    with running("serve", "scmi", "--raw", "here", variables={"RINGMESH_BOARD": os.fspath(BOARD)}) as run:
        assert run.wait() == 2
        assert run.said("raw.listen")
    with running("serve", "nic", "--raw", "tcp:127.0.0.1:0") as run:
        assert run.wait() == 2
        assert run.said("--raw")
