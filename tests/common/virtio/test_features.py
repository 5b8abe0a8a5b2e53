"""Constants against virtio 1.3 §6, §2.1, §2.7.5: the numbers a peer sees."""

from __future__ import annotations

from common.virtio import features
from common.virtio.features import Feature, Status, mask, net_unmet


def test_mask_and_bits() -> None:
    assert mask() == 0
    assert mask(Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.VERSION_1) == 0x1_3000_0000
    assert Feature.RING_RESET.bit == 1 << 40


def test_flag_values() -> None:
    assert (features.DESC_F_NEXT, features.DESC_F_WRITE, features.DESC_F_INDIRECT) == (1, 2, 4)
    assert [int(s) for s in Status] == [1, 2, 4, 8, 16, 64, 128]


def test_net_feature_numbers() -> None:
    """virtio 1.3 §5.1.3, by the number; what is missing is reserved or of the legacy interface."""
    names = {
        0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
        9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO",
        15: "MRG_RXBUF", 16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA",
        21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 51: "HASH_TUNNEL", 52: "VQ_NOTF_COAL", 53: "NOTF_COAL",
        54: "GUEST_USO4", 55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS",
        61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
    }  # fmt: skip
    ours = {f.value: f.name.removeprefix("NET_") for f in Feature if f.name.startswith("NET_")}
    assert ours == names


def test_net_features_and_what_they_require() -> None:
    vq = (Feature.NET_CTRL_VQ,)
    assert net_unmet(0) == {}
    assert net_unmet(mask(Feature.NET_MQ, Feature.NET_CTRL_RX)) == {Feature.NET_CTRL_RX: vq, Feature.NET_MQ: vq}
    assert net_unmet(mask(Feature.NET_MQ, Feature.NET_CTRL_RX, Feature.NET_CTRL_VQ)) == {}
    # one of two is enough
    assert net_unmet(mask(Feature.NET_CSUM, Feature.NET_HOST_TSO6, Feature.NET_HOST_ECN)) == {}
    either = (Feature.NET_HOST_TSO4, Feature.NET_HOST_TSO6)
    assert net_unmet(mask(Feature.NET_CSUM, Feature.NET_HOST_ECN)) == {Feature.NET_HOST_ECN: either}
    # and here both kinds are wanted
    tunnel = mask(Feature.NET_HASH_TUNNEL, Feature.NET_CTRL_VQ)
    hashed = (Feature.NET_RSS, Feature.NET_HASH_REPORT)
    assert net_unmet(tunnel) == {Feature.NET_HASH_TUNNEL: hashed}
    assert net_unmet(tunnel | mask(Feature.NET_HASH_REPORT)) == {}
    assert net_unmet(mask(Feature.NET_HASH_TUNNEL, Feature.NET_HASH_REPORT)) == {Feature.NET_HASH_TUNNEL: vq}
