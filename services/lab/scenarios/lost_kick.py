"""``lost-kick``: kicks that come while a device is suspended, as Linux's vDPA simulator has treated them.

Its first suspend (E. Pérez, August 2022) looked for missed buffers ``if (running)``, right after it had stored false
there. Its resume (S. Boeuf, October 2022 to January 2023) forgot kicks at first, and then kept a flag: ``pending_kick``
says that somebody kicked.
"""

from __future__ import annotations

from typing import Any, Final

from common.world import World
from services.guest_driver.port import Port
from services.guest_driver.port_queue import ObjectState, PortQueue
from services.lab.scenario import Build, Scenario, Settings, Variant, register
from services.lab.scenarios.vdpa_rig import Classes, Input, Rig, build

_CALLS: Final = (("suspend",), ("resume",))
SUSPENDED: Final = Input("suspend, resume", _CALLS)
EVENT_IDX: Final = Input("suspend, resume, EVENT_IDX", _CALLS, event_idx=True)


class DeadIf(Port):
    """The simulator before the flag. A kick makes a worker run, which returns at once while the device is stopped."""

    __slots__ = ()

    def doorbell(self, index: int) -> None:
        super().doorbell(index)
        self.queues[index].kicked = False

    def _suspend(self, queue: PortQueue) -> None:
        super()._suspend(queue)
        if queue.state == ObjectState.RDY:  # as in the simulator: it never is
            self._look(queue)


class LiveIf(DeadIf):
    """With the look for missed buffers before the device stops, as may have been meant."""

    __slots__ = ()

    def _suspend(self, queue: PortQueue) -> None:
        self._look(queue)
        super()._suspend(queue)


class Flagged(DeadIf):
    """The flag: a kick of a stopped device sets it, resume looks at it."""

    __slots__ = ("pending_kick",)

    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.pending_kick = False

    def _resume(self, queue: PortQueue) -> None:
        super()._resume(queue)
        if self.pending_kick:
            self._look(queue)
            self.pending_kick = False


class AsMerged(Rig):
    """``vdpasim_kick_vq``: no lock is held when it asks whether the device runs and when it sets the flag; what it
    queues otherwise runs later, under the lock, and asks again."""

    __slots__ = ()

    def kick(self) -> None:
        port: Any = self.port
        if port.queues[0].state != ObjectState.RDY:
            port.pending_kick = True
        else:
            super().kick()


class Locked(Rig):
    """The same with question, flag and work under the lock."""

    __slots__ = ()

    def kick(self) -> None:
        port: Any = self.port
        with self.hw:
            if port.queues[0].state != ObjectState.RDY:
                port.pending_kick = True
            else:
                port.doorbell(0)


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)


def _build(port: type[Port], rig: type[Rig] = Rig) -> Build:
    return build((SUSPENDED,), Classes(port=port, rig=rig))


SCENARIO: Final = register(
    Scenario(
        name="lost-kick",
        thread="PATCH vdpa_sim: suspend and resume operations (E. Pérez, S. Boeuf, August 2022 to January 2023)",
        about="kicks while a device is suspended",
        variants=(
            Variant("dead-if", "fails", _build(DeadIf), "kicks of a stopped device are forgotten", BUDGET),
            Variant("live-if", "fails", _build(LiveIf), "the same, with a last look before it stops", BUDGET),
            Variant("pending-kick", "fails", _build(Flagged, AsMerged), "the flag as merged, without a lock", BUDGET),
            Variant("pending-kick-locked", "holds", _build(Flagged, Locked), "the flag under the lock", BUDGET),
            Variant(
                "shipped",
                "holds",
                build((SUSPENDED, EVENT_IDX), Classes()),
                "each queue remembers its kick, resume replays it",
                BUDGET,
            ),
        ),
    )
)
