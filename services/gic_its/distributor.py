"""The part of the distributor that LPIs need: GICD_CTLR, which lets them through to the vCPUs (IHI 0069 §12.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.gic.registers import GICD_CTLR_GRP1
from common.registers import RegisterFile
from common.world import World
from services.gic_its.profile import Profile
from services.gic_its.regmap import distributor_frame, distributor_resets


@dataclass(slots=True)
class DistributorState:
    """What GICD_CTLR has switched on: ``forwards`` is EnableGrp1, the group of every LPI."""

    forwards: bool = False


class Distributor:
    """GICD of one guest, with one Security state (DS = 1), affinity routing always on and no SPIs.

    ``changed()`` is called when :attr:`forwards` has flipped, not at a reset.
    """

    __slots__ = ("_changed", "_state", "registers")

    _changed: Final[Callable[[], None]]
    _state: Final[DistributorState]
    registers: Final[RegisterFile]

    def __init__(self, world: World, profile: Profile, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._state = world.new(DistributorState)
        self.registers = RegisterFile(world, distributor_frame(profile), self, distributor_resets(profile))

    @property
    def forwards(self) -> bool:
        """Pending LPIs go to the vCPUs."""
        return self._state.forwards

    def reset(self) -> None:
        """Out of reset: nothing goes to the vCPUs."""
        self._state.forwards = False
        self.registers.reset()

    # --- hook of the register table ------------------------------------------------------------------------------

    def write_ctlr(self, old: int, new: int) -> int:
        state = self._state
        forwards = bool(new & GICD_CTLR_GRP1)
        if forwards != state.forwards:
            state.forwards = forwards
            self._changed()
        return new
