"""The control queue, the device's side: every command, every way to refuse it, and nonsense."""

from __future__ import annotations

import struct
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.virtio.features import Feature, mask
from common.virtio.net_ctrl import (
    COMMANDS,
    NET_ERR,
    NET_OK,
    AnnounceCommand,
    CtrlClass,
    RxCommand,
    VlanCommand,
    encode_mac_table,
)
from services.vdpa_nic.ctrl import Control, CtrlStats, carries_out
from services.vdpa_nic.net_state import NetState
from tests.common.virtio.ringkit import PROFILE

MAC = bytes.fromhex("02524d000001")
OTHER = bytes.fromhex("02524d0000ff")
GROUP = bytes.fromhex("01005e000001")
ALL = mask(
    Feature.NET_CTRL_VQ,
    Feature.NET_CTRL_RX,
    Feature.NET_CTRL_RX_EXTRA,
    Feature.NET_CTRL_VLAN,
    Feature.NET_CTRL_MAC_ADDR,
    Feature.NET_GUEST_ANNOUNCE,
    Feature.NET_MQ,
    Feature.NET_CTRL_GUEST_OFFLOADS,
    Feature.NET_GUEST_CSUM,
)
#: One good command of each kind.
GOOD: dict[tuple[int, int], bytes] = {
    **{(CtrlClass.RX, mode): bytes([0, mode, 1]) for mode in RxCommand},
    (1, 0): bytes([1, 0]) + encode_mac_table([OTHER], [GROUP]),
    (1, 1): bytes([1, 1]) + OTHER,
    (2, 0): bytes([2, 0, 0x23, 0x01]),
    (2, 1): bytes([2, 1, 0x23, 0x01]),
    (3, 0): bytes([3, 0]),
    (4, 0): bytes([4, 0, 3, 0]),
    (5, 0): bytes([5, 0]) + Feature.NET_GUEST_CSUM.bit.to_bytes(8, "little"),
}


class Bench:
    def __init__(self, features: int = ALL) -> None:
        self.pairs: list[int] = []
        self.lines: list[dict[str, Any]] = []
        self.features = features
        self.changes = 0
        self.state = NetState(mac=MAC, max_pairs=4, changed=self.changed)
        self.state.negotiated(features)
        self.stats = CtrlStats()
        self.control = self.attach()

    def attach(self) -> Control:
        return Control(self.state, self.features, on_pairs=self.set, log=self.log, stats=self.stats)

    def changed(self) -> None:
        self.changes += 1

    def set(self, pairs: int) -> None:
        assert self.state.pairs == pairs, "the state is set before"
        self.pairs.append(pairs)

    def log(self, event: str, **fields: Any) -> None:
        assert event == "control command refused"
        self.lines.append(fields)

    def snapshot(self) -> dict[str, Any]:
        names = [name for name in NetState.__slots__ if name != "_changed"]
        return {name: bytes(self.state.vlans) if name == "vlans" else getattr(self.state, name) for name in names}

    def refuses(self, data: bytes, reason: str) -> None:
        """The command is refused for ``reason``, and nothing else happens."""
        before, counted = self.snapshot(), asdict(self.stats)
        assert self.control.handle(data) == NET_ERR
        assert self.snapshot() == before
        assert (self.pairs, self.changes) == ([], 0)
        counted["ctrl_commands"] += 1
        counted[f"ctrl_{reason}"] += 1
        assert asdict(self.stats) == counted


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- what they do -----------------------------------------------------------------------------------------------------


def test_every_command_is_carried_out(bench: Bench) -> None:
    assert GOOD.keys() == COMMANDS.keys()
    for data in GOOD.values():
        assert bench.control.handle(data) == NET_OK, data
    assert asdict(bench.stats) == {**dict.fromkeys(asdict(bench.stats), 0), "ctrl_commands": len(GOOD)}
    assert bench.lines == []


@pytest.mark.parametrize("mode", RxCommand)
def test_rx_modes(bench: Bench, mode: RxCommand) -> None:
    name = mode.name.lower()
    for on in (0, 1, 0):
        assert bench.control.handle(bytes([CtrlClass.RX, mode, on])) == NET_OK
        assert getattr(bench.state, name) is bool(on)
    bench.refuses(bytes([CtrlClass.RX, mode, 2]), "bad_value")
    others = {m.name.lower() for m in RxCommand} - {name}
    assert {o: getattr(bench.state, o) for o in others} == {o: o == "promisc" for o in others}


def test_mac_table(bench: Bench) -> None:
    assert bench.control.handle(GOOD[1, 0]) == NET_OK
    assert bench.state.unicast == frozenset({OTHER})
    assert bench.state.multicast == frozenset({GROUP})
    many = [bytes([2, 0, 0, 0, 1, n]) for n in range(65)]
    assert bench.control.handle(bytes([1, 0]) + encode_mac_table(many, [GROUP])) == NET_OK
    assert (len(bench.state.unicast), bench.state.unicast_overflow) == (0, True)
    assert bench.control.handle(bytes([1, 0]) + bytes(8)) == NET_OK
    assert not any((bench.state.unicast, bench.state.multicast, bench.state.unicast_overflow))


def test_mac_address_is_in_the_configuration_space_before_the_answer(bench: Bench) -> None:
    """§5.1.6.5.2.1"""
    assert bench.control.handle(bytes([1, 1]) + OTHER) == NET_OK
    assert bench.state.config(Feature.NET_MAC.bit) == OTHER
    assert (bench.changes, bench.state.generation) == (1, 1)


def test_vlans(bench: Bench) -> None:
    assert bench.control.handle(bytes([2, VlanCommand.ADD, 0x23, 0x01])) == NET_OK
    assert [vlan for vlan, on in enumerate(bench.state.vlans) if on] == [0x123]
    assert bench.control.handle(bytes([2, VlanCommand.DEL, 0x23, 0x01])) == NET_OK
    assert not any(bench.state.vlans)
    assert bench.control.handle(bytes([2, VlanCommand.DEL, 0x23, 0x01])) == NET_OK, "it is not there, as wanted"


def test_announce_is_acknowledged(bench: Bench) -> None:
    assert bench.state.ask_announce()
    assert bench.control.handle(bytes([3, AnnounceCommand.ACK])) == NET_OK
    assert not bench.state.announce
    assert bench.control.handle(bytes([3, AnnounceCommand.ACK])) == NET_OK, "as after a restart of the device"


def test_pairs(bench: Bench) -> None:
    for n in (4, 1, 1):
        assert bench.control.handle(bytes([4, 0, n, 0])) == NET_OK
    assert bench.pairs == [4, 1, 1]


def test_offloads(bench: Bench) -> None:
    stood = []
    for data in (bytes([5, 0]) + bytes(8), GOOD[5, 0]):
        stood.append(bench.state.guest_csum)
        assert bench.control.handle(data) == NET_OK
    assert [*stood, bench.state.guest_csum] == [True, False, True]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_no_room_for_a_command(bench: Bench, data: bytes) -> None:
    bench.refuses(data, "truncated")
    assert bench.lines == [{"reason": "truncated", "command": None, "length": len(data)}]


@pytest.mark.parametrize("data", [b"\0\6\1", b"\1\2" + OTHER, b"\2\2\1\0", b"\3\1", b"\4\1", b"\4\2", b"\5\1", b"\6\0"])
def test_unknown_commands(bench: Bench, data: bytes) -> None:
    bench.refuses(data, "unknown")
    assert bench.lines == [{"reason": "unknown", "command": f"{data[0]}.{data[1]}"}]


@pytest.mark.parametrize("key", COMMANDS)
def test_what_was_not_negotiated_is_refused(key: tuple[int, int]) -> None:
    feature = COMMANDS[key].feature
    without = Bench(ALL & ~feature.bit)
    without.refuses(GOOD[key], "not_negotiated")
    assert without.lines[0]["feature"] == feature.name
    Bench(ALL & ~Feature.NET_CTRL_VQ.bit).refuses(GOOD[key], "not_negotiated")
    assert Bench(mask(feature, Feature.NET_CTRL_VQ, Feature.NET_GUEST_CSUM)).control.handle(GOOD[key]) == NET_OK


@pytest.mark.parametrize("key", COMMANDS)
def test_wrong_lengths(bench: Bench, key: tuple[int, int]) -> None:
    good, row = GOOD[key], COMMANDS[key]
    for size in range(row.size):
        bench.refuses(good[: 2 + size], "bad_length")
    bench.refuses(good + b"\0", "bad_value" if row.longer else "bad_length")


@pytest.mark.parametrize(
    "data",
    [
        bytes([1, 0]) + struct.pack("<I", 2) + OTHER + bytes(4),
        bytes([1, 0]) + struct.pack("<I", 0xFFFF_FFFF) + bytes(60),
        bytes([1, 0]) + struct.pack("<II", 0, 1) + OTHER[:5],
        bytes([1, 1]) + GROUP,
        bytes([1, 1]) + bytes(6),
        bytes([2, 0, 0xFF, 0x0F]),
        bytes([2, 1, 0x00, 0x10]),
        bytes([2, 0, 0xFF, 0xFF]),
        bytes([4, 0, 0, 0]),
        bytes([4, 0, 5, 0]),
        bytes([4, 0, 0, 1]),
        bytes([5, 0]) + Feature.NET_GUEST_TSO4.bit.to_bytes(8, "little"),
        bytes([5, 0]) + b"\xff" * 8,
    ],
)
def test_wrong_values(bench: Bench, data: bytes) -> None:
    bench.refuses(data, "bad_value")
    assert bench.lines[0]["error"]


def test_each_reason_is_logged_once_over_all_resets(bench: Bench) -> None:
    for _ in range(3):
        for data in (b"", b"\x09\x09", b"\x04\x00", b"\x04\x00\x00\x00"):
            assert bench.control.handle(data) == NET_ERR
        bench.control = bench.attach()
    assert [line["reason"] for line in bench.lines] == ["truncated", "unknown", "bad_length", "bad_value"]
    assert [line["command"] for line in bench.lines] == [None, "9.9", "MQ.VQ_PAIRS_SET", "MQ.VQ_PAIRS_SET"]
    assert bench.stats.ctrl_bad_value == 3


def test_counters_of_its_own() -> None:
    control = Control(NetState(mac=MAC), 0, on_pairs=lambda _: None, log=lambda *_, **__: None)
    assert control.handle(b"\0\0\0") == NET_ERR
    assert control.stats == CtrlStats(ctrl_commands=1, ctrl_not_negotiated=1)


def test_binding_twice_is_refused() -> None:
    with pytest.raises(LocalError, match=r"RX\.PROMISC: bound twice"):
        carries_out(CtrlClass.RX, RxCommand.PROMISC)(lambda _control, _row, _data: None)
    with pytest.raises(LocalError, match=r"4\.1: no such row"):
        carries_out(CtrlClass.MQ, 1)(lambda _control, _row, _data: None)


# --- nonsense ---------------------------------------------------------------------------------------------------------

NEAR = st.builds(
    lambda good, cut, tail, at, byte: (good[:at] + bytes([byte]) + good[at + 1 :])[: len(good) - cut] + tail,
    st.sampled_from(list(GOOD.values())),
    st.integers(0, 3),
    st.binary(max_size=3),
    st.integers(0, 20),
    st.integers(0, 255),
)
COUNTS = st.builds(
    lambda uni, multi, data: bytes([1, 0]) + struct.pack("<I", uni) + data + struct.pack("<I", multi) + data,
    st.integers(0, 0xFFFF_FFFF) | st.integers(0, 70),
    st.integers(0, 0xFFFF_FFFF) | st.integers(0, 70),
    st.integers(0, 70).map(lambda n: bytes(6 * n)),
)
PREFIXED = st.builds(
    lambda cls, command, data: bytes([cls, command]) + data,
    st.integers(0, 6),
    st.integers(0, 6),
    st.binary(max_size=24),
)


@PROFILE
@given(st.integers(0, (1 << 64) - 1) | st.just(ALL), st.lists(st.binary() | NEAR | COUNTS | PREFIXED, max_size=30))
def test_control_queue_nonsense(features: int, commands: list[bytes]) -> None:
    """Whatever comes: an answer, counted, and a state that a device may be in; a refusal changes nothing."""
    bench = Bench(features)
    answers = []
    for data in commands:
        before, generation = bench.snapshot(), bench.state.generation
        answers.append(answer := bench.control.handle(data))
        assert answer in (NET_OK, NET_ERR)
        if answer == NET_ERR:
            assert bench.snapshot() == before
        else:
            assert features & COMMANDS[data[0], data[1]].feature.bit
            after = bench.snapshot()
            assert bench.control.handle(data) == NET_OK
            assert bench.snapshot() == after, "a command that is executed again after a restart does no harm"
        state = bench.state
        assert 1 <= state.pairs <= state.max_pairs
        assert len(state.mac) == 6
        assert not state.mac[0] & 1
        assert all(len(address) == 6 for address in state.unicast | state.multicast)
        assert len(state.unicast) + len(state.multicast) <= 64
        assert len(state.vlans) == 4096
        assert not state.guest_offloads & ~features
        assert (state.config(Feature.NET_MAC.bit) != before["mac"]) <= (state.generation != generation)
        state.accepts(data)
    stats = asdict(bench.stats)
    refused = sum(stats.values()) - stats["ctrl_commands"]
    assert refused == answers.count(NET_ERR)
    assert stats["ctrl_commands"] == refused + 2 * answers.count(NET_OK)
    assert len(bench.lines) == sum(1 for name, n in stats.items() if n and name != "ctrl_commands")
