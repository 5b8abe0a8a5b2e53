"""The table of operations: what it accepts, and that each phase of virtio 1.3 §3.1.1 has what its step needs."""

from __future__ import annotations

import msgspec
import pytest

from common.virtio.device import VirtioDevice
from common.virtio.vdpa_ops import OPS, Phase, Refusal


def test_every_operation_is_a_method_of_every_device() -> None:
    assert all(callable(getattr(VirtioDevice, f"op_{name}", None)) for name in OPS)


def test_any_phase_is_all_of_them() -> None:
    assert Phase.ANY == Phase.RESET | Phase.FEATURES | Phase.SETUP | Phase.RUNNING


@pytest.mark.parametrize(
    ("op", "phases"),
    [
        ("get_status", Phase.ANY),
        ("set_driver_features", Phase.FEATURES),
        ("set_vq_address", Phase.SETUP),
        ("set_vq_ready", Phase.SETUP),
        ("kick_vq", Phase.RUNNING),
    ],
)
def test_when_an_operation_is_legal(op: str, phases: Phase) -> None:
    assert OPS[op].phases == phases


@pytest.mark.parametrize(
    ("args", "fits"), [([], False), ([1], False), ([1, 2], True), ([1, 2, 3], True), ([1, 2, 3, 4], False)]
)
def test_a_state_has_one_index_or_two(args: list[int], fits: bool) -> None:
    if fits:
        assert msgspec.convert(args, OPS["set_vq_state"].args) == args
        return
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(args, OPS["set_vq_state"].args)


def test_a_refusal_has_an_errno_and_a_sentence() -> None:
    refusal = Refusal(22, "queue 9: there are 2")
    assert (refusal.code, refusal.reason, str(refusal)) == (22, "queue 9: there are 2", "queue 9: there are 2")
