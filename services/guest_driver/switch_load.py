"""The network load of guests whose NICs are joined by a switch: each sends to the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from common.virtio.net_ctrl import RxCommand
from services.guest_driver.config import WorkloadConfig
from services.guest_driver.guest_nic import GuestNic
from services.guest_driver.net_ledger import NetLedger
from services.guest_driver.net_load import NetLoad
from services.guest_driver.port_queue import ObjectState

#: Bytes of both addresses of an Ethernet frame.
ADDRESSES: Final = 12
#: Seconds between two looks whether a NIC is back.
LOOK: Final = 0.01


class SwitchLoad(NetLoad):
    """As :class:`NetLoad`, over a switch: the guest's frames go to the load that it is joined with, whose receive
    queues feed this one's books. ``spawn(name, coro)`` starts a task, ``sleep(seconds)`` waits.

    While a NIC is away, or its cable pulled, a switch has nowhere to send: nobody sends to it, nor does it, and what
    was under way is put in doubt.
    """

    def __init__(
        self,
        nic: GuestNic,
        config: WorkloadConfig,
        frames: Sequence[bytes],
        clock: Callable[[], int],
        *,
        spawn: Callable[[str, Coroutine[Any, Any, None]], None],
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        self._spawn: Final = spawn
        self._sleep: Final = sleep
        #: where its frames go, and whose frames come
        self._to: SwitchLoad = self
        self._from: SwitchLoad = self
        #: reasons not to send
        self._held = 0
        super().__init__(nic, config, frames, clock)

    def join(self, to: SwitchLoad) -> None:
        """Send to ``to`` from now on."""
        self._to, to._from = to, self

    async def prepare(self) -> None:
        """A switch floods what it does not know: the NIC shall pass on what is addressed to it."""
        if self._nic.ctrl is not None:
            await self._nic.ctrl.set_rx_mode(RxCommand.PROMISC, False)

    def start(self) -> None:
        addresses = self._to._nic.config.mac + self._nic.config.mac  # known now
        frames = [addresses + frame[ADDRESSES:] for frame in self._frames]
        for ledger in self.ledgers:
            assert isinstance(ledger, NetLedger)
            ledger.use(frames)
        super().start()

    def _received(self, pair: int, frames: list[bytes]) -> None:
        sender = self._from
        sender.ledgers[pair % len(sender.ledgers)].came(frames, self._clock())
        sender._top_up(pair % len(sender.ledgers))

    def _may_send(self, pair: int) -> bool:
        return not self._held and super()._may_send(pair) and pair not in self._to._nic.resets.under_way

    def quiet(self, pair: int) -> bool:
        return not self._from.outstanding

    # --- the NIC ------------------------------------------------------------------------------------------------------

    def _live(self) -> bool:
        """Do all receive queues fetch?"""
        port = self._nic.port
        return port.online and all(port.queues[2 * pair].state == ObjectState.RDY for pair in range(self.pairs()))

    def _hold(self) -> None:
        self._held += 1
        self._doubt()

    def _release(self) -> None:
        self._held -= 1
        self._doubt()
        if not self._held:
            self._fill()

    def _doubt(self) -> None:
        for ledger in self.ledgers:
            ledger.device_reset()

    def _restarted(self) -> None:
        self._hold()
        self._from._hold()
        self._spawn("switch again", self._go_on())

    async def _go_on(self) -> None:
        while not self._live():
            await self._sleep(LOOK)
        self._release()
        self._from._release()

    def _carrier(self, up: bool) -> None:
        for load in (self, self._from):
            load._release() if up else load._hold()
