"""What our devices ship must never strand a buffer, so it has all three reads."""

from __future__ import annotations

from common.virtio.policy import DEFAULT_POLICY, PortPolicy


def test_default_policy() -> None:
    assert DEFAULT_POLICY == PortPolicy.READ_AT_CREATE | PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK
    assert not DEFAULT_POLICY & PortPolicy.REFETCH
