"""What the driver set on the NIC: life, configuration space, and the receive filter against a plain model of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError, RemoteError
from common.virtio.features import Feature, mask
from common.virtio.net_config import SPEED_UNKNOWN, parse
from common.virtio.net_ctrl import RxCommand
from common.virtio.net_header import MAX_ETHERNET
from services.vdpa_nic.net_state import ETHERNET_OVERHEAD, MAC_TABLE_ENTRIES, NetState
from tests.common.virtio.ringkit import PROFILE

MAC = bytes.fromhex("02524d000001")
OTHER = bytes.fromhex("02524d0000ff")
GROUP = bytes.fromhex("01005e000001")
BROADCAST = b"\xff" * 6
FROM = bytes.fromhex("02524d0000ee")
PLAIN = mask(Feature.NET_CTRL_VQ, Feature.NET_CTRL_RX, Feature.NET_CTRL_RX_EXTRA, Feature.NET_CTRL_MAC_ADDR)
VLAN = PLAIN | Feature.NET_CTRL_VLAN.bit
SHOWN = mask(Feature.NET_MAC, Feature.NET_STATUS, Feature.NET_MQ, Feature.NET_MTU, Feature.NET_SPEED_DUPLEX)


class Bench:
    def __init__(self, **own: Any) -> None:
        self.changes = 0
        self.state = NetState(mac=MAC, changed=self.changed, **own)

    def changed(self) -> None:
        self.changes += 1


def state(features: int = PLAIN, promisc: bool = False) -> NetState:
    made = NetState(mac=MAC)
    made.negotiated(features)
    made.set_rx_mode(RxCommand.PROMISC, promisc)
    return made


def frame(to: bytes, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else b"\x81\x00" + (0xF000 | vlan).to_bytes(2, "big")
    return to + FROM + tag + b"\x08\x00" + bytes(46)


# --- what the device has ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [{"mac": MAC[:5]}, {"mac": GROUP}, {"max_pairs": 0}, {"max_pairs": 0x8001}, {"mtu": 67}, {"mtu": 65536}],
)
def test_a_device_must_not_be_made_otherwise(own: dict[str, Any]) -> None:
    with pytest.raises(LocalError, match=next(iter(own))):
        NetState(**{"mac": MAC} | own)


def test_the_configuration_space() -> None:
    known = parse(NetState(mac=MAC, max_pairs=4, mtu=9000, speed=25_000).config(SHOWN), SHOWN)
    assert (known.mac, known.link_up, known.announce, known.max_virtqueue_pairs) == (MAC, True, False, 4)
    assert (known.mtu, known.speed, known.duplex) == (9000, 25_000, 1)
    unknown = parse(NetState(mac=MAC).config(SHOWN), SHOWN)
    assert (unknown.mtu, unknown.speed, unknown.duplex) == (1500, SPEED_UNKNOWN, 0xFF)


def test_link_changes_are_told_once() -> None:
    bench = Bench()
    bench.state.set_link(True)
    assert (bench.changes, bench.state.generation) == (0, 0), "it was up"
    bench.state.set_link(False)
    assert (bench.changes, bench.state.generation) == (1, 1)
    assert not parse(bench.state.config(SHOWN), SHOWN).link_up
    bench.state.set_link(True)
    assert (bench.changes, bench.state.generation) == (2, 2)


def test_announce() -> None:
    bench = Bench()
    assert not bench.state.ask_announce(), "nobody negotiated it"
    bench.state.negotiated(mask(Feature.NET_CTRL_VQ, Feature.NET_GUEST_ANNOUNCE))
    assert bench.state.ask_announce()
    assert bench.state.ask_announce(), "asked twice before it was seen"
    assert (bench.changes, bench.state.generation) == (1, 1)
    assert parse(bench.state.config(SHOWN), SHOWN).announce
    bench.state.announced()
    bench.state.announced()
    assert (bench.changes, bench.state.generation) == (2, 2)
    assert not parse(bench.state.config(SHOWN), SHOWN).announce


def test_generation_is_32_bits() -> None:
    bench = Bench()
    bench.state.generation = 0xFFFF_FFFF
    bench.state.set_link(False)
    assert bench.state.generation == 0


def test_set_mac() -> None:
    bench = Bench()
    bench.state.negotiated(PLAIN)
    bench.state.set_rx_mode(RxCommand.PROMISC, False)
    assert not bench.state.accepts(frame(OTHER))
    bench.state.set_mac(MAC)
    assert bench.changes == 0, "the same address is no change"
    bench.state.set_mac(OTHER)
    assert (bench.changes, bench.state.generation) == (1, 1)
    assert bench.state.accepts(frame(OTHER))
    assert not bench.state.accepts(frame(MAC))
    assert bench.state.config(SHOWN)[:6] == OTHER
    for nobody in (GROUP, BROADCAST, bytes(6)):
        with pytest.raises(RemoteError, match="mac"):
            bench.state.set_mac(nobody)
    assert (bench.state.mac, bench.changes) == (OTHER, 1)


def test_reset_forgets_what_was_set() -> None:
    bench = Bench(max_pairs=2)
    bench.state.negotiated(VLAN | mask(Feature.NET_GUEST_ANNOUNCE, Feature.NET_GUEST_CSUM, Feature.NET_MTU))
    for mode in RxCommand:
        bench.state.set_rx_mode(mode, mode != RxCommand.PROMISC)
    bench.state.set_mac_table([OTHER], [GROUP])
    bench.state.set_vlan(7, True)
    bench.state.set_pairs(2)
    bench.state.ask_announce()
    assert bench.changes == 1
    bench.state.reset()
    assert (bench.changes, bench.state.generation) == (2, 2), "ANNOUNCE is gone from the configuration space"
    bench.state.reset()
    assert bench.changes == 2, "nothing that is shown changed"
    fresh = NetState(mac=MAC, max_pairs=2)
    names = [name for name in NetState.__slots__ if name not in ("_changed", "generation")]
    assert {name: getattr(bench.state, name) for name in names} == {name: getattr(fresh, name) for name in names}
    assert not bench.state.filtering
    bench.state.set_mac(OTHER)
    bench.state.reset()
    assert (bench.state.mac, bench.state.generation) == (MAC, 4)


def test_pairs() -> None:
    made = NetState(mac=MAC, max_pairs=4)
    assert made.pairs == 1
    made.set_pairs(4)
    for many in (0, 5, 0x8001):
        with pytest.raises(RemoteError, match="virtqueue_pairs"):
            made.set_pairs(many)
    assert made.pairs == 4


def test_guest_offloads() -> None:
    made = NetState(mac=MAC)
    csum = Feature.NET_GUEST_CSUM.bit

    def stands() -> tuple[bool, int]:
        return made.guest_csum, made.guest_offloads

    made.negotiated(csum | mask(Feature.NET_CSUM, Feature.VERSION_1))
    assert stands() == (True, csum), "negotiated, it is on"
    made.set_guest_offloads(0)
    assert stands() == (False, 0)
    for bits in (Feature.NET_GUEST_TSO4.bit, Feature.NET_CSUM.bit, 1 << 63):
        with pytest.raises(RemoteError, match="offloads"):
            made.set_guest_offloads(bits | csum)
    assert stands() == (False, 0), "nothing of it was taken"
    made.set_guest_offloads(csum)
    assert stands() == (True, csum)


def test_the_longest_frame() -> None:
    made = NetState(mac=MAC, mtu=9000)
    assert made.max_frame == MAX_ETHERNET == 1500 + ETHERNET_OVERHEAD, "a driver that does not know of the MTU"
    made.negotiated(mask(Feature.NET_MTU))
    assert made.max_frame == 9000 + ETHERNET_OVERHEAD


# --- the receive filter -----------------------------------------------------------------------------------------------


def test_promiscuous_takes_all() -> None:
    made = state(VLAN, promisc=True)
    for mode in (RxCommand.NOUNI, RxCommand.NOMULTI, RxCommand.NOBCAST):
        made.set_rx_mode(mode, True)
    assert not made.filtering
    for to in (MAC, OTHER, GROUP, BROADCAST):
        assert made.accepts(frame(to))
        assert made.accepts(frame(to, 9)), "the VLAN filter too is passed over"
    assert made.accepts(b"")
    made.set_rx_mode(RxCommand.PROMISC, False)
    assert made.filtering


def test_runts_are_filtered() -> None:
    made = state()
    made.set_rx_mode(RxCommand.ALLUNI, True)
    assert not made.accepts(b"")
    assert not made.accepts(frame(MAC)[:13])
    assert made.accepts(frame(MAC)[:14])
    assert not state(VLAN).accepts(frame(MAC, 1)[:14]), "a tag that is cut off is of VLAN 0"


def test_vlan_filter() -> None:
    assert state().accepts(frame(MAC, 5)), "without CTRL_VLAN every tag is accepted"
    made = state(VLAN)
    assert made.accepts(frame(MAC))
    for vlan in (0, 5, 4094, 4095):
        assert not made.accepts(frame(MAC, vlan)), "the table is empty at first"
    for vlan in (0, 5, 4094):
        made.set_vlan(vlan, True)
        assert made.accepts(frame(MAC, vlan)), "whatever the priority bits"
    assert not made.accepts(frame(MAC, 6))
    assert not made.accepts(frame(OTHER, 5)), "both filters must agree"
    made.set_vlan(5, False)
    assert not made.accepts(frame(MAC, 5))
    with pytest.raises(RemoteError, match="vlan"):
        made.set_vlan(4095, True)


def test_what_suppresses_goes_before_what_opens() -> None:
    made = state()
    made.set_rx_mode(RxCommand.ALLMULTI, True)
    made.set_rx_mode(RxCommand.ALLUNI, True)
    made.set_mac_table([MAC, OTHER], [GROUP, BROADCAST])
    kinds = {RxCommand.NOBCAST: BROADCAST, RxCommand.NOMULTI: GROUP, RxCommand.NOUNI: MAC}
    for mode, to in kinds.items():
        made.set_rx_mode(mode, True)
        assert [other for other in kinds.values() if not made.accepts(frame(other))] == [to]
        made.set_rx_mode(mode, False)


def test_an_address_in_the_wrong_table_admits_nothing() -> None:
    made = state()
    made.set_mac_table([GROUP, BROADCAST], [OTHER])
    assert not made.accepts(frame(GROUP))
    assert not made.accepts(frame(OTHER))


@pytest.mark.parametrize(
    ("unicast", "multicast", "kept"),
    [
        (64, 0, (64, 0, False, False)),
        (65, 0, (0, 0, True, False)),
        (60, 4, (60, 4, False, False)),
        (60, 5, (60, 0, False, True)),
        (65, 64, (0, 64, True, False)),
        (65, 65, (0, 0, True, True)),
    ],
)
def test_a_table_that_overflows(unicast: int, multicast: int, kept: tuple[int, int, bool, bool]) -> None:
    """As QEMU has it: one table of 64 for both kinds."""
    assert MAC_TABLE_ENTRIES == 64
    made = state()
    many = [bytes([2, 0, 0, 0, 1, n]) for n in range(unicast)], [bytes([3, 0, 0, 0, 1, n]) for n in range(multicast)]
    made.set_mac_table(*many)
    assert (len(made.unicast), len(made.multicast), made.unicast_overflow, made.multicast_overflow) == kept
    for table, overflow in zip(many, kept[2:], strict=True):
        assert all(made.accepts(frame(to)) for to in table), "what was asked for is received in any case"
        if table:
            assert made.accepts(frame(bytes([table[0][0], 9, 9, 9, 9, 9]))) == overflow
    made.set_rx_mode(RxCommand.NOUNI, True)
    made.set_rx_mode(RxCommand.NOMULTI, True)
    assert not any(made.accepts(frame(to)) for table in many for to in table), "suppression goes first"
    made.set_mac_table([], [])
    assert not any((made.unicast_overflow, made.multicast_overflow))


def model(made: NetState, to: bytes, vlan: int | None) -> bool:
    """§5.1.6.5.1 to .3, sentence by sentence."""
    if made.promisc:
        return True
    if made.features & Feature.NET_CTRL_VLAN.bit and vlan is not None and not made.vlans[vlan]:
        return False
    if to == BROADCAST:
        return not made.nobcast
    if to[0] & 1:
        return not made.nomulti and (made.allmulti or made.multicast_overflow or to in made.multicast)
    return not made.nouni and (made.alluni or made.unicast_overflow or to in {made.mac, *made.unicast})


#: a few addresses, so that they meet
ADDRESSES = [MAC, OTHER, FROM, GROUP, BROADCAST, bytes.fromhex("333300000001"), bytes(6)]
TABLE = st.lists(st.sampled_from(ADDRESSES), max_size=4) | st.just([OTHER] * (MAC_TABLE_ENTRIES + 1))
SETTING = st.one_of(
    st.tuples(st.just("set_rx_mode"), st.sampled_from(RxCommand), st.booleans()),
    st.tuples(st.just("set_mac_table"), TABLE, TABLE),
    st.tuples(st.just("set_vlan"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("set_mac"), st.sampled_from([MAC, OTHER, FROM])),
)


@PROFILE
@given(st.booleans(), st.lists(SETTING, max_size=12), st.none() | st.integers(0, 3))
def test_the_filter_against_the_model(vlans: bool, settings: list[Any], vlan: int | None) -> None:
    made = state(VLAN if vlans else PLAIN)
    for name, *args in settings:
        getattr(made, name)(*args)
        for to in ADDRESSES:
            assert made.accepts(frame(to, vlan)) == model(made, to, vlan)
        assert made.filtering == (not made.promisc)
