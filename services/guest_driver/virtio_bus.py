"""The driver's way to one device: probe it, hand its frames to the port, and bring it up again after it restarted.

A device that restarted knows nothing. The bus says its configuration again (features, ring addresses, vectors,
DRIVER_OK) without resetting it, and the port says where the rings stand, as a vhost-user front end does at reconnect.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from common.errors import LinkDownError, RemoteError
from common.runtime.link import Link
from common.virtio.features import Status
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Notice, Return
from services.guest_driver.calls import Calls
from services.guest_driver.port import Port


@dataclass(slots=True)
class QueuePlan:
    """How the driver sets one queue up: areas as the device sees them (IOVA), and the EventID of its MSI."""

    index: int
    layout: SplitLayout
    event: int


@dataclass(slots=True)
class DevicePlan:
    """What the driver wants of a device: the features that it can use, and what makes its queues once it is known
    which of them the device has."""

    device_id: int
    features: int
    make_queues: Callable[[int], list[QueuePlan]]


class VirtioBus:
    """A LinkHandler for role ``guest`` towards one device.

    ``spawn(name, coro)`` starts a task; ``on_restart()`` is called when the device came back without its memory,
    before it is configured again. ``on_replaced()`` is called where the service is the same and the device is not:
    another process was our guest meanwhile. Without it that counts as a restart.
    """

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        spawn: Callable[[str, Coroutine[Any, Any, None]], None],
        log: Any,
        on_restart: Callable[[], None],
        on_replaced: Callable[[], None] | None = None,
    ) -> None:
        self.name: Final = name
        self.port: Final = port
        self.calls: Final = Calls(name)
        self.features = 0
        self.restarts = 0
        self.needs_reset = 0
        self._spawn: Final = spawn
        self._log: Final = log
        self._on_restart: Final = on_restart
        self._on_replaced: Final = on_replaced or self._renew
        #: what the last probe made, and the features that it made it for; a probe that is tried again uses it
        self._made: tuple[int, list[QueuePlan]] | None = None
        #: the queues of a probe that succeeded
        self._queues: list[QueuePlan] = []
        self._epoch = 0
        self._configured = False

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self.calls.attach(link)
        self.port.link_up()
        restarted, self._epoch = link.peer_epoch != self._epoch, link.peer_epoch
        if not self._queues:
            return  # whoever probes begins anew
        if restarted:
            self._renew()
        elif self._configured:
            self._spawn(f"same {self.name}?", self._same_device())
        else:  # the link went down before it was configured
            self._spawn(f"configure {self.name}", self._configure_again())

    def link_frame(self, _link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Return:
            self.calls.returned(message)
        elif kind is Notice:
            self.needs_reset += message.what == "needs_reset"
            self._log.warning("device notice", device=self.name, what=message.what, detail=message.detail)
        else:
            self.port.frame(message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, reason: str) -> None:
        self.port.link_down()
        self.calls.detach(reason)

    # --- configuration ------------------------------------------------------------------------------------------------

    async def probe(self, plan: DevicePlan) -> int:
        """Initialise the device as virtio 1.3 §3.1.1 orders, up to DRIVER_OK. Returns the features negotiated.

        Raises LinkDownError if the link goes down on the way (probe again: it begins with a reset), CallError where
        the device refuses, RemoteError if it is not what the plan wants.
        """
        call = self.calls.call
        self._queues = []
        await call("set_status", 0)
        self.port.reset()
        device_id = await call("get_device_id", kind=int)
        if device_id != plan.device_id:
            raise RemoteError("device_id", device_id, plan.device_id, self.name)
        self.features = plan.features & await call("get_device_features", kind=int)
        if self._made is None or self._made[0] != self.features:
            self._made = (self.features, plan.make_queues(self.features))
        queues = self._made[1]
        await self._configure(queues, 0)
        self._queues = queues
        return self.features

    async def _configure(self, queues: list[QueuePlan], status: int) -> None:
        """From device status ``status`` on: an earlier try may have come some way before its link went down."""
        call = self.calls.call
        if not status & Status.FEATURES_OK:
            status |= Status.ACKNOWLEDGE | Status.DRIVER
            await call("set_status", int(status))
            await call("set_driver_features", self.features)
            status |= Status.FEATURES_OK
            if not await call("set_status", int(status), kind=int) & Status.FEATURES_OK:
                raise RemoteError("features", hex(self.features), None, f"{self.name} does not take them")
        for queue in queues:
            layout = queue.layout
            most = await call("get_vq_num_max", queue.index, kind=int)
            if layout.size > most:
                raise RemoteError("vq_num", layout.size, most, f"entries of {self.name} queue {queue.index}")
            await call("set_vq_num", queue.index, layout.size)
            await call("set_vq_address", queue.index, layout.desc, layout.driver, layout.device)
            await call("set_vq_cb", queue.index, queue.event)
            await call("set_vq_ready", queue.index, True)
        await call("set_status", int(status | Status.DRIVER_OK))
        self._configured = True

    def _renew(self) -> None:
        """The device has forgotten everything."""
        self.restarts += 1
        self._configured = False
        self._on_restart()
        self._spawn(f"configure {self.name}", self._configure_again())

    async def _same_device(self) -> None:
        try:
            status = await self.calls.call("get_status", kind=int)
        except RemoteError as error:
            self._log.error("device does not say its status", device=self.name, error=str(error))
            return
        except LinkDownError:
            return  # the next link_up looks
        if not status & Status.DRIVER_OK:
            self._log.warning("device was another process's meanwhile", device=self.name)
            self._on_replaced()

    async def _configure_again(self) -> None:
        try:
            status = await self.calls.call("get_status", kind=int)
            if status & Status.DRIVER_OK:  # the answer to the last call of all went down with the link
                self._configured = True
            else:
                await self._configure(self._queues, status)
        except LinkDownError as error:  # the next link_up goes on
            self._log.warning("device not configured again yet", device=self.name, error=str(error))
        except RemoteError as error:
            self._log.error("device does not take its configuration again", device=self.name, error=str(error))
        else:
            self._log.info("device configured again", device=self.name)
