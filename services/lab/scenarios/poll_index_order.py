"""``poll-index-order``: is the reference of a polling loop taken before the buffer is made available, or after?

v8 of the patch (Cristian Marussi, December 2021) takes it after ``virtqueue_add``; the transport that was merged,
before. The fear: the device uses the buffer in between, the reference has the reply in it, the loop never sees
anything new. But the reference is the *driver's* own index, which moves only when somebody dequeues, under the lock.
"""

from __future__ import annotations

from typing import Final

from services.guest_driver.scmi_message import VioMsg
from services.guest_driver.scmi_virtio import Transfer
from services.lab.scenario import Scenario, Settings, Variant, register
from services.lab.scenarios.aba_wrap import Index16
from services.lab.scenarios.vio_pieces import Pieces
from services.lab.scenarios.vio_rig import Classes, Input, build

#: cpu0 polls for a command that is on the ring; cpu1 sends one and polls. Interrupts are off.
INPUTS: Final = (
    Input("cpu0's reply first", (True, True), (0, 1), masked=True, sent=1),
    Input("cpu1's reply first", (True, True), (1, 0), masked=True, sent=1),
)
#: enough for what needs no second CPU
LONE: Final = (Input("one command", (True,), (0,), masked=True),)


class AfterAdd(Pieces):
    """As posted: reference and binding after the add, under the lock."""

    __slots__ = ()

    def before_add(self, xfer: Transfer, msg: VioMsg) -> None:
        """Later."""

    def after_add(self, xfer: Transfer, msg: VioMsg) -> None:
        self.bind(xfer, msg)


class DeviceIndex(AfterAdd):
    """The fear come true: the reference is what the device has used."""

    __slots__ = ()

    def reference(self) -> int:
        super().reference()
        return self.vqueue._used[1]


class Unlocked(Pieces):
    """Reference and binding after the add, with the lock given back."""

    __slots__ = ()

    def before_add(self, xfer: Transfer, msg: VioMsg) -> None:
        """Later."""

    def after_unlock(self, xfer: Transfer, msg: VioMsg) -> None:
        self.bind(xfer, msg)


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="poll-index-order",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="the reference of a polling loop, taken before the buffer is made available or after",
        variants=(
            Variant(
                "after-add",
                "holds",
                build(INPUTS, Classes(AfterAdd, Index16)),
                "as posted: after the add, under the lock, the 16-bit index",
                BUDGET,
            ),
            Variant(
                "used-idx",
                "fails",
                build(LONE, Classes(DeviceIndex, Index16)),
                "after the add, the device's index: what was feared",
                BUDGET,
            ),
            Variant(
                "unlocked",
                "fails",
                build(INPUTS, Classes(Unlocked, Index16)),
                "after the add and after the lock",
                BUDGET,
            ),
            Variant("shipped", "holds", build(INPUTS), "before the add, under the lock", BUDGET),
        ),
    )
)
