"""``state-after-teardown``: the index of a queue whose object is gone.

Si-Wei Liu, February 2021: ``suspend_vq`` is called by ``teardown_vq`` too, where nobody else saves the available index.
Without the query there, what ``get_vq_state`` answers after a reset is what was true at some time before. QEMU asks
exactly then.

The driver runs on (a VMM stops a device without the guest's knowledge), the VMM resets the device at any moment, asks
for the state, and starts the queue there on hardware that knows nothing. No buffer may be lost, none used twice.
"""

from __future__ import annotations

from typing import Any, Final

from common.virtio.remote_queue import RemoteQueue
from common.wire.messages import Call, Chain, Message, Return
from services.lab.scenario import Scenario, Settings, Variant, register
from services.lab.scenarios.vdpa_rig import Classes, Device, Input, Rig, build

_RESET: Final = (("set_status", 0),)
#: what is on its way when the reset comes; of two buffers the driver makes the other available meanwhile
INPUTS: Final = (
    Input("a buffer", _RESET, sent=1),
    Input("an answer", _RESET, sent=1, worked=1),
    Input("an answer and a buffer", _RESET, sent=2, worked=1),
)


class Bench(Rig):
    """The rig with a VMM: calls come one after the answer to the other, behind all that the port had sent."""

    __slots__ = ()

    def returned(self, message: Return) -> None:
        """The device is reset: ask for the state. The queue will go on in another port's hardware."""
        with self.hw:
            self.port.reset()
        self.to_device.send(Call(1, "get_vq_state", [0]))

    def take(self, device: Device, message: Message) -> None:
        if isinstance(message, Call) and message.op == "get_vq_state":
            answer = device.answer(message)
            assert answer is not None
            device.answered += 1
            self.bring_up(device, answer.value)
        else:
            super().take(device, message)


class Eager(Device):
    """Completes a buffer when it comes, as the NIC does a command of its control queue."""

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        super().on_chains(queue, chains)
        self.work()


class AsPosted(Device):
    """The patch: no query when a queue is suspended. What saves it before a change of map is another place."""

    def teardown_vq(self, queue: RemoteQueue) -> None:
        """Nothing."""


class Unsent(Eager):
    """What was done and not yet sent when the reset came counts as done."""

    def send_answers(self) -> None:
        """Later, at the end of the batch: there is no queue any more."""


class CountsInHand(Device):
    """Where the queue stands is taken to be what has been fetched, whatever has become of it."""

    def teardown_vq(self, queue: RemoteQueue) -> None:
        super().teardown_vq(queue)
        queue.saved_idx = queue.next_idx


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)


def _build(device: type[Device]) -> Any:
    return build(INPUTS, Classes(device=device, rig=Bench))


SCENARIO: Final = register(
    Scenario(
        name="state-after-teardown",
        thread="PATCH 1/2 vdpa/mlx5: Avoid unnecessary query virtqueue (E. Cohen, January 2021)",
        about="get_vq_state of a queue that was torn down, with frames in flight",
        variants=(
            Variant("as-posted", "fails", _build(AsPosted), "suspend_vq does not query: nobody saves", BUDGET),
            Variant("counts-in-hand", "fails", _build(CountsInHand), "what was fetched counts as done", BUDGET),
            Variant("unsent-answers", "fails", _build(Unsent), "answers that wait to be sent are lost", BUDGET),
            Variant("eager", "holds", _build(Eager), "shipped, over a device that completes at once", BUDGET),
            Variant("shipped", "holds", _build(Device), "saved when the object goes, less what is in hand", BUDGET),
        ),
    )
)
