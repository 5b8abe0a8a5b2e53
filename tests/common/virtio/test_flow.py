"""Flow hashes: what must be alike, what should differ. Frames are made by dpkt."""

from __future__ import annotations

import dpkt
from hypothesis import given
from hypothesis import strategies as st

from common.virtio.flow import flow_hash

MACS = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02"
TAG = b"\x81\0\x20\x07"


def ipv4(sport: int = 1000, host: int = 1, payload: bytes = b"x", *, protocol: int = 17, **more: int) -> bytes:
    data = dpkt.udp.UDP(sport=sport, dport=53, data=payload)
    packet = dpkt.ip.IP(src=b"\x0a\0\0" + bytes((host,)), dst=b"\x0a\0\0\x09", p=protocol, data=data, **more)
    return MACS + b"\x08\0" + bytes(packet)


def ipv6(sport: int = 1000, host: int = 1, payload: bytes = b"x", *, protocol: int = 17) -> bytes:
    data = dpkt.udp.UDP(sport=sport, dport=53, data=payload)
    packet = dpkt.ip6.IP6(src=bytes(15) + bytes((host,)), dst=bytes(15) + b"\x09", nxt=protocol, data=data)
    packet.extension_hdrs = {}
    return MACS + b"\x86\xdd" + bytes(packet)


def tagged(frame: bytes) -> bytes:
    return frame[:12] + TAG + frame[12:]


def test_one_flow_one_hash() -> None:
    for make in (ipv4, ipv6):
        assert flow_hash(make(payload=b"one")) == flow_hash(make(payload=b"another")) == flow_hash(tagged(make()))
    assert flow_hash(MACS + b"\x08\x06" + bytes(46)) == flow_hash(MACS + b"\x08\x06" + bytes(45) + b"x")


def test_flows_differ() -> None:
    for make in (ipv4, ipv6):
        for wrap in (bytes, tagged):
            some = {flow_hash(wrap(make(sport, host))) for sport in range(8) for host in range(8)}
            assert len(some) == 64
        assert flow_hash(make(protocol=6)) != flow_hash(make(protocol=17))
    arp = MACS + b"\x08\x06" + bytes(46)
    others = [arp, arp[6:12] + arp[:6] + arp[12:], MACS + b"\x88\xcc" + bytes(46)]
    assert len({flow_hash(frame) for frame in others}) == 3
    assert [flow_hash(tagged(frame)) for frame in others] == [flow_hash(frame) for frame in others]


def test_no_ports_where_there_are_none() -> None:
    assert flow_hash(ipv4(1, protocol=1)) == flow_hash(ipv4(2, protocol=1)), "ICMP"
    assert flow_hash(ipv6(1, protocol=58)) == flow_hash(ipv6(2, protocol=58)), "ICMPv6"
    first, later = ipv4(1, mf=1), ipv4(2, offset=1480)
    assert flow_hash(first) == flow_hash(later), "fragments of one datagram stay together"
    assert flow_hash(ipv4(1, df=1)) != flow_hash(ipv4(2, df=1)), "may not be fragmented, so it is not"


def test_ports_behind_options() -> None:
    def with_options(sport: int) -> bytes:
        packet = dpkt.ip.IP(src=b"\x0a\0\0\x01", dst=b"\x0a\0\0\x02", p=17, hl=6, opts=b"\x01\x01\x01\0")
        packet.data = dpkt.udp.UDP(sport=sport, dport=53)
        return MACS + b"\x08\0" + bytes(packet)

    assert flow_hash(with_options(1)) != flow_hash(with_options(2))


@given(frame=st.binary(max_size=80), kind=st.sampled_from([b"\x08\0", b"\x86\xdd", TAG + b"\x08\0", TAG, b"\x81"]))
def test_any_bytes(frame: bytes, kind: bytes) -> None:
    assert 0 <= flow_hash(MACS + kind + frame) < 1 << 32
    assert 0 <= flow_hash(frame) < 1 << 32
