"""The NIC against the guest's port and driver: echo, malformed frames, changes of the memory map, broken queues.

Nothing lost, nothing doubled: every buffer completes exactly once, and unless the NIC restarts every frame comes back
exactly once.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.virtio.features import Feature, net_unmet
from common.wire.messages import Return
from services.guest_driver.net_pair import RX
from tests.services.vdpa_nic.nic_rig import Rig


@pytest.mark.parametrize(
    ("feature", "lacks"),
    [
        (Feature.NET_MQ, "NET_CTRL_VQ"),
        (Feature.NET_CTRL_RX, "NET_CTRL_VQ"),
        (Feature.NET_GUEST_ANNOUNCE, "NET_CTRL_VQ"),
    ],
)
def test_a_feature_without_what_it_requires_is_refused(feature: Feature, lacks: str) -> None:
    rig = Rig(pairs=2)
    rig.driver("set_status", 3)
    wrong = rig.features | feature.bit
    answer = rig.driver("set_driver_features", wrong)
    assert answer is not None
    assert answer.errno == errno.EINVAL
    assert answer.value == f"features {wrong:#x}: {feature.name} requires {lacks}"
    assert rig.device.features == 0
    assert "call_refused" in rig.logged
    assert rig.driver("set_driver_features", wrong | Feature[lacks].bit) == Return(rig.by_hand, 0, None)


@pytest.mark.parametrize("pairs", [1, 2])
def test_what_is_offered_may_be_taken_whole(pairs: int) -> None:
    device = Rig(pairs=pairs).device
    assert net_unmet(device.offered) == {}


class NicMesh(RuleBasedStateMachine):
    """Traffic, doorbells, changes of map, lost connections and restarts in any order."""

    @initialize(size=st.sampled_from([2, 4, 8]), event_idx=st.booleans())
    def setup(self, size: int, event_idx: bool) -> None:
        self.rig = Rig(size=size, event_idx=event_idx).start()
        self.say_map = False

    @rule(count=st.integers(1, 5))
    def transmit(self, count: int) -> None:
        self.rig.send(count)

    @rule(queue=st.integers(0, 1))
    def doorbell(self, queue: int) -> None:
        self.rig.port.doorbell(queue)

    @rule(end=st.sampled_from(["device", "port"]), count=st.integers(0, 4))
    def move(self, end: str, count: int) -> None:
        self.rig.step(end, count)

    @rule()
    def interrupts(self) -> None:
        self.rig.interrupts()

    @rule()
    def settle(self) -> None:
        self.rig.settle()

    @rule()
    def set_map(self) -> None:

        self.say_map = False
        answer = self.rig.set_map()
        assert answer is None or answer.errno == 0, answer

    @precondition(lambda self: self.rig.up)
    @rule()
    def lose_link(self) -> None:
        self.rig.disconnect()

    @precondition(lambda self: not self.rig.up)
    @rule()
    def reconnect(self) -> None:
        self.rig.connect()

    @rule()
    def restart(self) -> None:
        self.rig.restart()
        self.say_map = True

    @invariant()
    def nothing_odd(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        assert rig.alarms == []
        assert (rig.ledger.duplicated, rig.ledger.corrupted, rig.net.stats.rx_length_errors) == (0, 0, 0)
        assert len(rig.device.core.pairs[0].buffers) <= rig.size
        assert len(rig.device.core.pairs[0].waiting) <= rig.size

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        if not rig.up:
            rig.connect()
        rig.settle()
        if self.say_map:
            # the VMM says the map of the generation that is in force, or was about to be
            rig.vmm("set_map", 0, rig.space.ranges())
        rig.settle()
        self.nothing_odd()
        assert rig.device.phase.name == "RUNNING"
        assert rig.device.changes.machine.idle
        assert rig.ledger.close() == 0, "frames lost"
        ledger = rig.ledger
        assert ledger.tx == ledger.rx - ledger.re_executed + ledger.reset_dropped
        if not rig.restarts:
            assert (ledger.re_executed, ledger.reset_dropped) == (0, 0)
            assert [int.from_bytes(frame[-16:-8], "little") for frame in rig.got] == list(range(ledger.tx))
        # without an interrupt the driver does not look: what it was not told of, the event index says it need not be
        rig.net.tx_callback()
        assert rig.net.room == rig.size, "a transmit buffer never completed"
        assert rig.device.queues[RX].in_hand == rig.size, "a receive buffer was stranded"
        assert rig.device.vectors[:2] == [40, 41]
        assert [rig.msis.get(40 + n, 0) for n in (0, 1)] == rig.irqs, "an interrupt was lost"


TestNicMesh = NicMesh.TestCase
TestNicMesh.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class CalmMesh(NicMesh):
    """The same without a restart: nothing may be dropped or done twice."""

    restart = None  # type: ignore[assignment]


TestCalmMesh = CalmMesh.TestCase
TestCalmMesh.settings = TestNicMesh.settings
