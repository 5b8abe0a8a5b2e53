"""What the mesh adds to the device core: phases of the driver, the port's policy. (The core itself: test_core.py.)"""

from __future__ import annotations

from common.memory import ACCESS_RW
from common.virtio.features import SCMI_F_P2A_CHANNELS
from common.wire.messages import Broken, Notice
from services.scmi_platform.core import CMDQ, EVENTQ, FEATURES
from services.scmi_platform.mesh_device import IDENTITY
from tests.services.scmi_platform.test_core import GET, Bench, chain


def test_queues_live_while_the_driver_runs() -> None:
    bench = Bench()
    device = bench.device
    assert device.live(CMDQ)
    assert device.live(EVENTQ)
    device.frame(Broken(EVENTQ, "head", "nonsense"))
    assert not device.live(EVENTQ)
    assert device.live(CMDQ)
    device.op_set_status(0)
    assert not device.live(CMDQ)
    only_commands = Bench(FEATURES & ~SCMI_F_P2A_CHANNELS)
    assert not only_commands.device.live(EVENTQ)
    assert not only_commands.core.p2a


def test_looking_for_buffers_sends_nothing() -> None:
    bench = Bench()
    bench.device.look(EVENTQ)
    assert not bench.core.emit(GET)
    assert bench.sent == []


def test_a_core_that_refuses_breaks_the_queue() -> None:
    bench = Bench()
    bench.avail(CMDQ, [(3, GET, [(0, len(GET) + 1, 0)])])
    assert [type(message) for message in bench.sent] == [Broken, Notice]


def test_every_address_is_the_devices() -> None:
    assert IDENTITY.translate((1 << 64) - 8, 8, ACCESS_RW) == (1 << 64) - 8


def test_a_reset_reaches_the_core() -> None:
    bench = Bench()
    bench.buffers(136)
    bench.avail(CMDQ, [chain(0, GET, 16)])
    bench.device.op_set_status(0)
    assert not bench.core.buffers
