"""A learning Ethernet switch between the guests of one NIC service: each guest's back end is a port of it.

Forwarding is that of an IEEE 802.1Q bridge with independent learning: addresses are learned by VLAN, every port is a
member of every VLAN, tags are carried as they are. Untagged and priority-tagged (VLAN 0) frames are one VLAN. The
virtio_net_hdr travels with its frame untouched: who receives finds the checksum as far as its sender had got with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final

from common.virtio.net_header import NET_HEADER_BYTES
from services.vdpa_nic.backends.backend import BACKLOG_LIMIT, Waiting, empty_backlog

#: Seconds after which a station that was not heard of is forgotten (IEEE 802.1D-2004 table 7-5).
AGEING: Final = 300.0
#: Seconds between two looks for such stations; until then they count towards a port's share.
SWEEP: Final = 1.0
#: Stations that are remembered on one port. A guest that makes up addresses fills its own share, no other's.
MAX_STATIONS: Final = 1024

_SOURCE: Final = NET_HEADER_BYTES + 6
_TYPE: Final = NET_HEADER_BYTES + 12
_UNTAGGED_MIN: Final = NET_HEADER_BYTES + 14
_TAGGED_MIN: Final = _UNTAGGED_MIN + 4
_VLAN: Final = b"\x81\x00"
#: 01-80-C2-00-00-00 to 0F are for the next bridge, never relayed (IEEE 802.1D-2004 §7.12.6)
_RESERVED: Final = b"\x01\x80\xc2\x00\x00"


@dataclass(slots=True)
class SwitchStats:
    """What a switch counts: frames as they came in, and what became of stations."""

    forwarded: int = 0
    flooded: int = 0
    #: for a station on the port that they came from
    filtered: int = 0
    #: to an address that bridges keep to themselves
    reserved: int = 0
    #: no whole Ethernet header (and tag)
    malformed: int = 0
    learned: int = 0
    moved: int = 0
    aged: int = 0
    #: stations that were not remembered: their port's share was full
    not_learned: int = 0


@dataclass(slots=True)
class PortStats:
    """What a port counts, in packets."""

    delivered: int = 0
    #: the backlog was full
    dropped: int = 0


class _Station:
    """Where an address was seen last."""

    __slots__ = ("port", "seen")

    def __init__(self, port: SwitchPort, seen: float) -> None:
        self.port = port
        self.seen = seen


class LearningSwitch:
    """``limit`` packets may wait on each queue pair of a port, ``max_stations`` addresses are learned on each."""

    def __init__(self, *, ageing: float = AGEING, max_stations: int = MAX_STATIONS, limit: int = BACKLOG_LIMIT) -> None:
        self.stats: Final = SwitchStats()
        self.limit: Final = limit
        self._ageing: Final = ageing
        self._max_stations: Final = max_stations
        #: in the order in which they came
        self._ports: list[SwitchPort] = []
        #: MAC (and VLAN identifier where that is not 0) → where
        self._stations: dict[bytes, _Station] = {}
        self._swept = 0.0

    def port(self, wake: Callable[[], None], *, max_pairs: int = 1) -> SwitchPort:
        """A new port. ``wake`` is called after packets were put in its backlog, once a batch. It is called from within
        another port's ``transmit``: it must only see to it that the owner looks, not let it work at once."""
        port = SwitchPort(self, wake, max_pairs)
        self._ports.append(port)
        return port

    def leave(self, port: SwitchPort) -> None:
        """The port is gone, with the stations behind it; what it still sends goes nowhere. Once is enough."""
        if port in self._ports:
            self._ports.remove(port)
            self._stations = {key: at for key, at in self._stations.items() if at.port is not port}
            port.stations = 0

    def transmit(self, source: SwitchPort, pair: int, packets: Sequence[bytes], now: float) -> None:
        """Frames came in at ``source``."""
        if source not in self._ports:
            return
        stats = self.stats
        out: dict[SwitchPort, list[bytes]] = {port: [] for port in self._ports if port is not source}
        for packet in packets:
            vlan = b""
            if packet[_TYPE : _TYPE + 2] == _VLAN:
                if len(packet) < _TAGGED_MIN:
                    stats.malformed += 1
                    continue
                identifier = int.from_bytes(packet[_TYPE + 2 : _TYPE + 4], "big") & 0xFFF
                if identifier:
                    vlan = identifier.to_bytes(2, "big")
            elif len(packet) < _UNTAGGED_MIN:
                stats.malformed += 1
                continue
            address = packet[_SOURCE:_TYPE]
            if not address[0] & 1:  # a group sends nothing
                self._learn(address + vlan, source, now)
            address = packet[NET_HEADER_BYTES:_SOURCE]
            if address[:5] == _RESERVED and address[5] < 16:
                stats.reserved += 1
                continue
            target = None if address[0] & 1 else self._stations.get(address + vlan)
            if target is None or now - target.seen > self._ageing:
                stats.flooded += 1
                for batch in out.values():
                    batch.append(packet)
            elif target.port is source:
                stats.filtered += 1
            else:
                stats.forwarded += 1
                out[target.port].append(packet)
        reached = [port for port, batch in out.items() if port.deliver(pair, batch, now)]
        for port in reached:
            port.wake()

    def tick(self, now: float) -> None:
        """Forget stations that were not heard of for the ageing time."""
        if now - self._swept < SWEEP:
            return
        self._swept = now
        old = [key for key, at in self._stations.items() if now - at.seen > self._ageing]
        for key in old:
            self._stations.pop(key).port.stations -= 1
        self.stats.aged += len(old)

    def _learn(self, key: bytes, port: SwitchPort, now: float) -> None:
        station = self._stations.get(key)
        if station is not None:
            station.seen = now
            if station.port is port:
                return
            station.port.stations -= 1
            if port.stations < self._max_stations:
                self.stats.moved += 1
                station.port = port
                port.stations += 1
                return
            del self._stations[key]  # where it was it is no more
        elif port.stations < self._max_stations:
            self.stats.learned += 1
            self._stations[key] = _Station(port, now)
            port.stations += 1
            return
        self.stats.not_learned += 1


class SwitchPort:
    """One guest's back end, made by :meth:`LearningSwitch.port`.

    A flow keeps its order: what came from one queue pair of one port goes to one pair here, the same one as far as
    there are that many switched on.
    """

    answers = False

    def __init__(self, switch: LearningSwitch, wake: Callable[[], None], max_pairs: int) -> None:
        self.backlog: Sequence[Waiting] = empty_backlog(max_pairs)
        self.pairs = 1
        self.stats: Final = PortStats()
        self.wake: Final = wake
        #: addresses that are learned here
        self.stations = 0
        self._switch: Final = switch

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        self._switch.transmit(self, pair, packets, now)

    def tick(self, now: float) -> None:
        self._switch.tick(now)

    def leave(self) -> None:
        """The guest is gone."""
        self._switch.leave(self)

    def deliver(self, pair: int, packets: list[bytes], now: float) -> bool:
        """``packets`` from queue pair ``pair`` of another port, as many as there is room for. Returns whether any was
        taken."""
        waiting = self.backlog[pair % self.pairs]
        taken = min(max(0, self._switch.limit - len(waiting)), len(packets))
        waiting.extend(zip(islice(packets, taken), repeat(now)))
        self.stats.delivered += taken
        self.stats.dropped += len(packets) - taken
        return taken > 0
