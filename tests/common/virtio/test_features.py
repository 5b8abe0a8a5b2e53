"""Constants against virtio 1.3 §6, §2.1, §2.7.5: the numbers a peer sees."""

from __future__ import annotations

from common.virtio import features
from common.virtio.features import Feature, Status, mask


def test_mask_and_bits() -> None:
    assert mask() == 0
    assert mask(Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.VERSION_1) == 0x1_3000_0000
    assert Feature.RING_RESET.bit == 1 << 40


def test_flag_values() -> None:
    assert (features.DESC_F_NEXT, features.DESC_F_WRITE, features.DESC_F_INDIRECT) == (1, 2, 4)
    assert [int(s) for s in Status] == [1, 2, 4, 8, 16, 64, 128]
