"""A vDPA device of another type: what every one has without filling in a hook."""

from __future__ import annotations

from common.virtio.msi_source import MsiSource
from common.virtio.policy import DEFAULT_POLICY
from common.wire.messages import Chain, Return
from services.guest_driver.net_pair import RX, TX
from services.vdpa_nic.address_space import AddressSpaces
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.map_change import State
from services.vdpa_nic.vdpa import VdpaDevice
from tests.services.vdpa_nic.nic_rig import FEATURES, Rig


class Sink(VdpaDevice):
    """Uses what comes on queue 1 at once, and queue 0 never."""

    device_id = 63

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        if queue == TX:
            self.queues[TX].complete_batch([(head, b"") for head, _, _ in chains])


class SinkRig(Rig):
    def make_device(self, backend: Backend | None = None) -> None:
        self.sink = Sink(
            send=self.from_device,
            answer_vmm=self.answered,
            msi=MsiSource("vm", 0x20, self.note_msi),
            clock=lambda: self.now,
            offered=FEATURES | self.features,
            queue_sizes=[8, 8],
            spaces=AddressSpaces(1, 1, 8),
            policy=DEFAULT_POLICY,
            log=lambda event, **_fields: self.logged.append(event),
        )
        self.device = self.sink  # type: ignore[assignment]


def state(rig: SinkRig, index: int) -> int:
    answer = rig.vmm("get_vq_state", index)
    assert answer is not None
    assert isinstance(answer.value, int)
    return answer.value


def test_maps_suspend_and_reset() -> None:
    rig = SinkRig().start()
    assert rig.vmm("get_vq_group", 1) == Return(77, 0, 0)
    rig.net.transmit([bytes(60)] * 3)
    rig.settle()
    assert rig.net.room == 8
    assert rig.sink.stats.used == 3
    rig.vmm("suspend", seq=5)
    rig.settle()
    assert rig.to_vmm[-1] == Return(5, 0)
    assert (state(rig, RX), state(rig, TX)) == (8, 3), "what is in hand stays in hand"
    rig.vmm("resume")
    rig.set_map()
    rig.net.transmit([bytes(60)] * 3)
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert state(rig, TX) == 6
    assert rig.alarms == []
    rig.driver("reset")
    assert (state(rig, RX), state(rig, TX)) == (0, 6)
    assert rig.sink.changes.machine.state is State.IDLE


def test_a_lost_link_and_a_broken_queue() -> None:
    rig = SinkRig().start()
    rig.net.transmit([bytes(60)] * 2)
    rig.step("device")
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert rig.net.room == 8
    rig.rings[TX].add([(1 << 50, 60)], [], "bad")
    rig.port.doorbell(TX)
    rig.settle()
    assert rig.sink.queues[TX].broken
    assert rig.sink.queues[RX].running
