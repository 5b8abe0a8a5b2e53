"""The world of algorithms whose memory another process works on at the same time: as the services', with fences."""

from __future__ import annotations

from collections.abc import Callable

from common.runtime.clock import Clock, monotonic
from common.runtime.world import AsyncWorld
from services.vhost_user.fence import full_fence


class FencedWorld(AsyncWorld):
    """As :class:`AsyncWorld`; every fence is the machine's full one. Raises LocalError on a machine that has none
    here."""

    def __init__(
        self, on_failure: Callable[[str, BaseException], None] | None = None, clock: Clock = monotonic
    ) -> None:
        super().__init__(on_failure, clock)
        self.wmb = self.rmb = self.mb = full_fence()
