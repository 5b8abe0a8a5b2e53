"""The switch: what an IEEE 802.1Q bridge does, its bounds, and any traffic against a simple model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.vdpa_nic.backends.switch import LearningSwitch, SwitchPort

#: NEEDS_CSUM, TCPv4, hdr_len 54, gso_size 1448, csum_start 34, csum_offset 16: passes through untouched
HEADER = bytes([1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0])
EVERYBODY = b"\xff" * 6
GROUP = b"\x01\0\x5e\0\0\x05"


def mac(number: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes((number,))


def packet(to: bytes, source: int | bytes, vlan: int | None = None, body: bytes = bytes(46)) -> bytes:
    """``vlan``: the whole tag control information."""
    tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
    return HEADER + to + (mac(source) if isinstance(source, int) else source) + tag + b"\x88\xb5" + body


class Lan:
    """A switch with ports, and who was woken how often."""

    def __init__(self, count: int = 3, **options: Any) -> None:
        self.switch = LearningSwitch(**options)
        self.woken = [0] * count
        self.ports = [self.switch.port(self._waker(number), max_pairs=4) for number in range(count)]

    def _waker(self, number: int) -> Any:
        def wake() -> None:
            self.woken[number] += 1

        return wake

    def came(self) -> list[list[bytes]]:
        """What every port has, all pairs; taken out."""
        out = []
        for port in self.ports:
            out.append([packet for waiting in port.backlog for packet, _ in waiting])
            for waiting in port.backlog:
                waiting.clear()
        return out

    def stats(self, *names: str) -> list[int]:
        return [getattr(self.switch.stats, name) for name in names]


def test_learns_and_forwards() -> None:
    lan = Lan()
    asked, answer = packet(mac(2), 1), packet(mac(1), 2)
    lan.ports[0].transmit(0, [asked], 1.0)
    assert lan.came() == [[], [asked], [asked]], "unknown: to all but its own port"
    lan.ports[1].transmit(0, [answer], 2.0)
    assert lan.came() == [[answer], [], []]
    lan.ports[0].transmit(0, [asked], 3.0)
    assert lan.came() == [[], [asked], []]
    assert lan.stats("learned", "flooded", "forwarded") == [2, 1, 2]
    assert lan.woken == [1, 2, 1]


@pytest.mark.parametrize("to", [EVERYBODY, GROUP])
def test_groups_are_flooded(to: bytes) -> None:
    lan = Lan()
    lan.ports[1].transmit(0, [packet(mac(9), to)], 1.0)
    lan.came()
    lan.ports[0].transmit(0, [packet(to, 1)], 1.0)
    assert [len(came) for came in lan.came()] == [0, 1, 1]
    assert lan.stats("learned", "flooded") == [1, 2], "a group that claims to send is not learned"


def test_neighbours_on_one_port() -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1), packet(mac(1), 2)], 1.0)
    assert [len(came) for came in lan.came()] == [0, 1, 1]
    assert lan.stats("filtered") == [1]


@pytest.mark.parametrize(("last", "relayed"), [(0, False), (0x0E, False), (0x0F, False), (0x10, True)])
def test_addresses_for_bridges(last: int, relayed: bool) -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [packet(b"\x01\x80\xc2\0\0" + bytes((last,)), 1)], 1.0)
    assert [bool(came) for came in lan.came()] == [False, relayed, relayed]
    assert lan.stats("reserved") == [not relayed]


def test_stations_move() -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1)], 1.0)
    lan.ports[1].transmit(0, [packet(EVERYBODY, 1)], 2.0)
    lan.came()
    lan.ports[2].transmit(0, [packet(mac(1), 3)], 3.0)
    assert [len(came) for came in lan.came()] == [0, 1, 0]
    assert lan.stats("learned", "moved") == [2, 1]
    assert [port.stations for port in lan.ports] == [0, 1, 1]


def test_ageing() -> None:
    lan = Lan(ageing=300.0)
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1)], 10.0)
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1)], 50.0)
    lan.came()
    lan.ports[1].tick(350.0)
    lan.ports[1].transmit(0, [packet(mac(1), 2)], 350.0)
    assert [len(came) for came in lan.came()] == [1, 0, 0], "heard of 300 s ago, not longer"
    lan.ports[1].transmit(0, [packet(mac(1), 2)], 350.5)
    assert [len(came) for came in lan.came()] == [1, 0, 1], "too old, although nobody has looked"
    lan.ports[1].tick(350.5)
    assert lan.stats("aged") == [0], "not a second since the last look"
    lan.ports[1].tick(351.0)
    assert lan.stats("aged") == [1]
    assert [port.stations for port in lan.ports] == [0, 1, 0]


def test_made_up_addresses_fill_ones_own_share() -> None:
    lan = Lan(max_stations=4)
    lan.ports[0].transmit(0, [packet(EVERYBODY, n) for n in range(10)], 1.0)
    assert lan.stats("learned", "not_learned") == [4, 6]
    lan.ports[1].transmit(0, [packet(EVERYBODY, 20)], 1.0)
    assert [port.stations for port in lan.ports] == [4, 1, 0]
    lan.came()
    lan.ports[2].transmit(0, [packet(mac(20), 30), packet(mac(9), 30)], 1.0)
    assert [len(came) for came in lan.came()] == [1, 2, 0], "not remembered, so flooded"
    lan.ports[0].transmit(0, [packet(EVERYBODY, 20)], 2.0)
    assert lan.stats("not_learned", "moved") == [7, 0]
    assert [port.stations for port in lan.ports] == [4, 0, 1]
    lan.came()
    lan.ports[2].transmit(0, [packet(mac(20), 30)], 2.0)
    assert [len(came) for came in lan.came()] == [1, 1, 0], "it is not where it was: no longer believed"


def test_vlans_learn_apart() -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1, 5)], 1.0)
    lan.ports[1].transmit(0, [packet(EVERYBODY, 1, 6)], 1.0)
    lan.came()
    tagged = [packet(mac(1), 2, vlan) for vlan in (5, 6, 7, 0xE005, 0, None)]
    lan.ports[2].transmit(0, tagged, 2.0)
    five, six, seven, five_urgent, zero, none = tagged
    assert lan.came() == [[five, seven, five_urgent, zero, none], [six, seven, zero, none], []]
    lan.ports[1].transmit(0, [packet(mac(2), 9, 0x6000)], 3.0)
    assert [len(came) for came in lan.came()] == [0, 0, 1], "priority alone is no VLAN"


@pytest.mark.parametrize(
    "short", [b"", HEADER[:5], HEADER, packet(mac(2), 1)[:25], packet(mac(2), 1, 5)[:28], packet(mac(2), 1, 5)[:29]]
)
def test_no_whole_header(short: bytes) -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [short, packet(mac(2), 1, 5)[:30], packet(mac(2), 1)[:26]], 1.0)
    assert [len(came) for came in lan.came()] == [0, 2, 2]
    assert lan.stats("malformed", "flooded") == [1, 2]


def test_a_full_backlog() -> None:
    lan = Lan(limit=3)
    packets = [packet(mac(9), 1, body=bytes((n,)) * 46) for n in range(5)]
    lan.ports[0].transmit(0, packets, 1.0)
    assert lan.came() == [[], packets[:3], packets[:3]]
    lan.ports[1].backlog[0].extend((p, 1.0) for p in packets)  # the NIC put back more than came
    lan.ports[0].transmit(0, packets[:2], 2.0)
    assert lan.came() == [[], packets, packets[:2]]
    assert [(port.stats.delivered, port.stats.dropped) for port in lan.ports] == [(0, 0), (3, 4), (5, 2)]
    assert lan.woken == [0, 1, 2], "nobody is woken for what was dropped"


def test_pairs() -> None:
    lan = Lan(2)
    lan.ports[1].pairs = 3
    packets = [packet(mac(9), 1, body=bytes((n,)) * 46) for n in range(8)]
    for number, one in enumerate(packets):
        lan.ports[0].transmit(number % 4, [one], float(number))
    came = [list(waiting) for waiting in lan.ports[1].backlog]
    zero, one_, two, three, *_ = zip(packets, map(float, range(8)), strict=True)
    assert came[0] == [zero, three, (packets[4], 4.0), (packets[7], 7.0)], "pairs 0 and 3"
    assert came[1] == [one_, (packets[5], 5.0)]
    assert came[2] == [two, (packets[6], 6.0)]
    assert not came[3]


def test_one_wake_a_batch_and_after_all_deliveries() -> None:
    switch, seen = LearningSwitch(), []
    ports: list[SwitchPort] = []

    def wake() -> None:
        seen.append([len(port.backlog[0]) for port in ports])

    ports += [switch.port(wake) for _ in range(3)]
    ports[0].transmit(0, [packet(EVERYBODY, 1)] * 5, 1.0)
    assert seen == [[0, 5, 5]] * 2


def test_ports_leave() -> None:
    lan = Lan()
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1)], 1.0)
    lan.ports[1].transmit(0, [packet(EVERYBODY, 2)], 1.0)
    lan.came()
    lan.ports[0].leave()
    lan.ports[0].leave()
    lan.ports[0].transmit(0, [packet(EVERYBODY, 1)], 2.0)
    assert lan.came() == [[], [], []], "heard no more"
    lan.ports[1].transmit(0, [packet(mac(1), 2)], 3.0)
    assert [len(came) for came in lan.came()] == [0, 0, 1], "nor known"
    lan.ports.append(lan.switch.port(lambda: None))
    lan.ports[1].transmit(0, [packet(mac(1), 2)], 4.0)
    assert [len(came) for came in lan.came()] == [0, 0, 1, 1]
    lan.ports[2].transmit(0, [packet(mac(2), 3)], 4.0)
    assert [len(came) for came in lan.came()] == [0, 1, 0, 0], "others are still known"
    assert lan.ports[0].stations == 0


LIMIT, SHARE, AGE = 6, 3, 10.0
ADDRESSES = st.sampled_from([mac(n) for n in range(5)])
TARGETS = st.one_of(ADDRESSES, st.sampled_from([EVERYBODY, GROUP, b"\x01\x80\xc2\0\0\x02"]))


class SwitchMachine(RuleBasedStateMachine):
    """The model: a list of what every port was to get by pair, and a dict of (VLAN, address) → [port, when]."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = LearningSwitch(ageing=AGE, max_stations=SHARE, limit=LIMIT)
        self.ports: list[SwitchPort] = []
        self.wanted: dict[SwitchPort, list[list[bytes]]] = {}
        self.known: dict[tuple[int, bytes], tuple[SwitchPort, float]] = {}
        self.woken: list[SwitchPort] = []
        self.now = 0.0
        self.swept = 0.0
        self.serial = 0

    @precondition(lambda self: len(self.ports) < 4)
    @rule(pairs=st.integers(1, 3))
    def join(self, pairs: int) -> None:
        port = self.switch.port(lambda: self.woken.append(port), max_pairs=3)
        port.pairs = pairs
        self.ports.append(port)
        self.wanted[port] = [[], [], []]

    @precondition(lambda self: self.ports)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(self.ports))
        port.leave()
        self.ports.remove(port)
        self.known = {key: value for key, value in self.known.items() if value[0] is not port}

    @precondition(lambda self: self.ports)
    @rule(
        data=st.data(),
        pair=st.integers(0, 2),
        frames=st.lists(
            st.tuples(TARGETS, ADDRESSES, st.sampled_from([None, 0, 5, 0x4005, 6])), min_size=1, max_size=4
        ),
    )
    def transmit(self, data: st.DataObject, pair: int, frames: list[tuple[bytes, bytes, int | None]]) -> None:
        source = data.draw(st.sampled_from(self.ports))
        packets = []
        reached = set()
        for to, by, tag in frames:
            self.serial += 1
            one = packet(to, by, tag, self.serial.to_bytes(46, "big"))
            packets.append(one)
            vlan = (tag or 0) & 0xFFF
            self._learn((vlan, by), source)
            for port in self._targets(source, vlan, to):
                waiting = self.wanted[port][pair % port.pairs]
                if len(waiting) < LIMIT:
                    waiting.append(one)
                    reached.add(port)
        source.transmit(pair, packets, self.now)
        assert len(self.woken) == len(reached)
        assert set(self.woken) == reached
        self.woken.clear()

    def _learn(self, key: tuple[int, bytes], source: SwitchPort) -> None:
        if key not in self.known or self.known[key][0] is not source:
            self.known.pop(key, None)
            if [port for port, _ in self.known.values()].count(source) >= SHARE:
                return
        self.known[key] = (source, self.now)

    def _targets(self, source: SwitchPort, vlan: int, to: bytes) -> list[SwitchPort]:
        if to.startswith(b"\x01\x80\xc2"):
            return []
        port, seen = self.known.get((vlan, to), (None, 0.0))
        if port is None or self.now - seen > AGE:
            return [other for other in self.ports if other is not source]
        return [] if port is source else [port]

    @rule(step=st.sampled_from([0.25, 1.0, 4.0, 11.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @precondition(lambda self: self.ports)
    @rule()
    def tick(self) -> None:
        self.ports[0].tick(self.now)
        if self.now - self.swept >= 1.0:
            self.swept = self.now
            self.known = {key: value for key, value in self.known.items() if self.now - value[1] <= AGE}

    @precondition(lambda self: self.ports)
    @rule(data=st.data(), pair=st.integers(0, 2), count=st.integers(1, LIMIT))
    def fetch(self, data: st.DataObject, pair: int, count: int) -> None:
        port = data.draw(st.sampled_from(self.ports))
        for _ in range(min(count, len(port.backlog[pair]))):
            assert port.backlog[pair].popleft()[0] == self.wanted[port][pair].pop(0)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        for port, wanted in self.wanted.items():
            assert [[packet for packet, _ in waiting] for waiting in port.backlog] == wanted
        for port in self.ports:
            assert port.stations == [at for at, _ in self.known.values()].count(port) <= SHARE


TestSwitch = SwitchMachine.TestCase
