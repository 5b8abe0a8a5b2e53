"""What the driver set on the NIC and what the NIC shows of itself (virtio 1.3 §5.1.4, §5.1.6.5); the receive filter.

As in QEMU the device is promiscuous after reset, so that a driver which negotiates no filter receives everything; a
driver that filters turns promiscuous mode off. Promiscuous mode passes over the VLAN filter too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from common.errors import LocalError, RemoteError
from common.virtio.features import Feature
from common.virtio.net_config import (
    DUPLEX_FULL,
    DUPLEX_UNKNOWN,
    MTU_MAX,
    MTU_MIN,
    PAIRS_MAX,
    PAIRS_MIN,
    S_ANNOUNCE,
    S_LINK_UP,
    SPEED_UNKNOWN,
    NetConfig,
    pack,
)
from common.virtio.net_ctrl import GUEST_OFFLOADS, VLAN_MAX, RxCommand
from common.virtio.net_header import MAX_ETHERNET

#: Addresses that fit into the MAC table, both kinds together (QEMU: MAC_TABLE_ENTRIES). With more, all of that kind
#: are received.
MAC_TABLE_ENTRIES: Final = 64

#: Bytes of a frame that are not payload: addresses, type, one VLAN tag.
ETHERNET_OVERHEAD: Final = 18
_ETHERNET_HEADER: Final = 14
_BROADCAST: Final = b"\xff" * 6
_VLAN_TPID: Final = b"\x81\x00"
_VLANS: Final = 4096


class NetState:
    """The state of one NIC. ``mac``, ``max_pairs``, ``mtu`` and ``speed`` (Mbit/s) are its own, the rest is set.

    ``changed()`` is called after every change of the configuration space, whose ``generation`` (u32) has grown then:
    the link went up or down, ANNOUNCE was set or acknowledged, the MAC is another. Raises LocalError for an own value
    that a device must not show (§5.1.4.1).
    """

    __slots__ = (
        "_any_multicast", "_any_unicast", "_changed", "_exact", "_own_mac", "_vlan_filter", "allmulti", "alluni",
        "announce", "features", "generation", "guest_csum", "guest_offloads", "link_up", "mac", "max_frame",
        "max_pairs", "mtu", "multicast", "multicast_overflow", "nobcast", "nomulti", "nouni", "pairs", "promisc",
        "speed", "unicast", "unicast_overflow", "vlans",
    )  # fmt: skip

    #: fields that :meth:`reset` sets
    features: int
    mac: bytes
    announce: bool
    pairs: int
    promisc: bool
    allmulti: bool
    alluni: bool
    nomulti: bool
    nouni: bool
    nobcast: bool
    unicast: frozenset[bytes]
    multicast: frozenset[bytes]
    unicast_overflow: bool
    multicast_overflow: bool
    vlans: bytearray
    guest_offloads: int
    guest_csum: bool
    max_frame: int
    _vlan_filter: bool
    _exact: frozenset[bytes]
    _any_unicast: bool
    _any_multicast: bool

    def __init__(
        self,
        *,
        mac: bytes,
        max_pairs: int = 1,
        mtu: int = 1500,
        speed: int = SPEED_UNKNOWN,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        if len(mac) != len(_BROADCAST) or mac[0] & 1:
            raise LocalError(f"mac {mac.hex(':')}: must be six bytes of an address that is no group's")
        if not PAIRS_MIN <= max_pairs <= PAIRS_MAX:
            raise LocalError(f"max_pairs {max_pairs}: must be {PAIRS_MIN} to {PAIRS_MAX}")
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise LocalError(f"mtu {mtu}: must be {MTU_MIN} to {MTU_MAX}")
        self._own_mac: Final = mac
        self._changed: Final = changed
        self.max_pairs: Final = max_pairs
        self.mtu: Final = mtu
        self.speed: Final = speed
        self.link_up = True
        #: u32, of the configuration space
        self.generation = 0
        self._forget()

    # --- life ---------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The driver begins anew (§2.4): what it set is gone, MAC and link are the device's own."""
        shown = self.mac, self.announce
        self._forget()
        if shown != (self.mac, self.announce):
            self._config_changed()

    def _forget(self) -> None:
        self.mac = self._own_mac
        self.announce = False
        #: queue pairs in use
        self.pairs = 1
        self.promisc = True
        self.allmulti = self.alluni = self.nomulti = self.nouni = self.nobcast = False
        self.unicast = self.multicast = frozenset()
        self.unicast_overflow = self.multicast_overflow = False
        #: one byte a VLAN id: 1 where it is in the filter
        self.vlans = bytearray(_VLANS)
        self.negotiated(0)

    def negotiated(self, features: int) -> None:
        """The driver settled on ``features`` (u64; FEATURES_OK). Each offload that it took is on (§5.1.6.5.8)."""
        self.features = features
        self._vlan_filter = bool(features & Feature.NET_CTRL_VLAN.bit)
        #: bytes of the longest frame that may be passed to the driver (§5.1.4.1)
        self.max_frame = self.mtu + ETHERNET_OVERHEAD if features & Feature.NET_MTU.bit else MAX_ETHERNET
        self._offloads(features & GUEST_OFFLOADS)
        self._refresh()

    # --- the configuration space --------------------------------------------------------------------------------------

    def config(self, offered: int) -> bytes:
        """The configuration space of the device that offers the features ``offered`` (u64)."""
        status = S_LINK_UP * self.link_up | S_ANNOUNCE * self.announce
        duplex = DUPLEX_UNKNOWN if self.speed == SPEED_UNKNOWN else DUPLEX_FULL
        return pack(NetConfig(self.mac, status, self.max_pairs, self.mtu, self.speed, duplex), offered)

    def set_link(self, up: bool) -> None:
        """The cable was plugged or pulled."""
        if up != self.link_up:
            self.link_up = up
            self._config_changed()

    def ask_announce(self) -> bool:
        """Ask the driver for gratuitous packets (§5.1.6.5.4). False where it did not negotiate GUEST_ANNOUNCE."""
        if not self.features & Feature.NET_GUEST_ANNOUNCE.bit:
            return False
        if not self.announce:
            self.announce = True
            self._config_changed()
        return True

    def announced(self) -> None:
        """The driver saw ANNOUNCE. Again is as good as once: a restarted device may be told of it a second time."""
        if self.announce:
            self.announce = False
            self._config_changed()

    def set_mac(self, mac: bytes) -> None:
        """MAC.ADDR_SET, all six bytes at once. Raises RemoteError for an address that is a group's or zero."""
        if mac[0] & 1 or not any(mac):
            raise RemoteError("mac", mac.hex(":"), None, "not the address of one station")
        if mac != self.mac:
            self.mac = mac
            self._refresh()
            self._config_changed()

    def _config_changed(self) -> None:
        self.generation = (self.generation + 1) & 0xFFFF_FFFF
        self._changed()

    # --- what the driver sets besides ---------------------------------------------------------------------------------

    def set_rx_mode(self, mode: RxCommand, on: bool) -> None:
        """Turn one mode of the filter on or off (§5.1.6.5.1); ``mode`` has the name of the attribute."""
        setattr(self, mode.name.lower(), on)
        self._refresh()

    def set_mac_table(self, unicast: Sequence[bytes], multicast: Sequence[bytes]) -> None:
        """MAC.TABLE_SET: the addresses to receive beside the own one. Counted as QEMU counts: a kind that does not
        fit is received whole and takes no room."""
        self.unicast_overflow = len(unicast) > MAC_TABLE_ENTRIES
        self.unicast = frozenset(() if self.unicast_overflow else unicast)
        used = 0 if self.unicast_overflow else len(unicast)
        self.multicast_overflow = len(multicast) > MAC_TABLE_ENTRIES - used
        self.multicast = frozenset(() if self.multicast_overflow else multicast)
        self._refresh()

    def set_vlan(self, vlan: int, on: bool) -> None:
        """VLAN.ADD or DEL. Raises RemoteError for an id that names no VLAN; 0 is a tag that has a priority alone."""
        if vlan > VLAN_MAX:
            raise RemoteError("vlan", vlan, VLAN_MAX)
        self.vlans[vlan] = on

    def set_pairs(self, pairs: int) -> None:
        """MQ.VQ_PAIRS_SET. Raises RemoteError unless the device has so many (§5.1.6.5.6.1)."""
        if not PAIRS_MIN <= pairs <= self.max_pairs:
            raise RemoteError("virtqueue_pairs", pairs, self.max_pairs)
        self.pairs = pairs

    def set_guest_offloads(self, offloads: int) -> None:
        """GUEST_OFFLOADS.SET. Raises RemoteError for a bit that was not negotiated (§5.1.6.5.8.2)."""
        allowed = self.features & GUEST_OFFLOADS
        if offloads & ~allowed:
            raise RemoteError("offloads", hex(offloads), hex(allowed))
        self._offloads(offloads)

    def _offloads(self, offloads: int) -> None:
        self.guest_offloads = offloads
        #: may a received frame have its checksum still to be computed?
        self.guest_csum = bool(offloads & Feature.NET_GUEST_CSUM.bit)

    # --- the receive filter -------------------------------------------------------------------------------------------

    @property
    def filtering(self) -> bool:
        """False: :meth:`accepts` says yes to everything."""
        return not self.promisc

    def accepts(self, frame: bytes) -> bool:
        """Does the filter let this Ethernet frame (destination MAC on) through to the driver? No runt passes it."""
        if self.promisc:
            return True
        if len(frame) < _ETHERNET_HEADER:
            return False
        if (
            self._vlan_filter
            and frame[12:14] == _VLAN_TPID
            and not self.vlans[int.from_bytes(frame[14:16], "big") & 0xFFF]
        ):
            return False
        to = frame[:6]
        if to in self._exact:
            return True
        if frame[0] & 1:
            return self._any_multicast and to != _BROADCAST
        return self._any_unicast

    def _refresh(self) -> None:
        """What accepts() asks, drawn from modes and tables. The modes that suppress go before those that open, and no
        table admits addresses of the other kind, nor the broadcast address."""
        exact: set[bytes] = set()
        if not self.nouni:
            exact.update(address for address in self.unicast if not address[0] & 1)
            exact.add(self.mac)
        if not self.nomulti:
            exact.update(address for address in self.multicast if address[0] & 1)
        exact.discard(_BROADCAST)
        if not self.nobcast:
            exact.add(_BROADCAST)
        self._exact = frozenset(exact)
        self._any_unicast = not self.nouni and (self.alluni or self.unicast_overflow)
        self._any_multicast = not self.nomulti and (self.allmulti or self.multicast_overflow)
