"""The driver's way to one device: probe it, hand its frames to the port, and bring it up again after it restarted.

A device that restarted knows nothing. The bus says its configuration again (features, ring addresses, vectors,
DRIVER_OK) without resetting it, and the port says where the rings stand, as a vhost-user front end does at reconnect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from common.errors import LinkDownError, RemoteError
from common.runtime.link import Link
from common.virtio.features import Status
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Avail, Irq, Message, Notice, Return
from services.guest_driver.calls import Calls
from services.guest_driver.port import Port


@dataclass(slots=True)
class QueuePlan:
    """How the driver sets one queue up: areas as the device sees them (IOVA), and the EventID of its MSI."""

    index: int
    layout: SplitLayout
    event: int
    #: of a device that restarted it is enabled only when that knows again what the driver had set on it
    after_restore: bool = False


@dataclass(slots=True)
class DevicePlan:
    """What the driver wants of a device: the features that it can use, and what makes its queues once it is known
    which of them the device has. ``choose(features, config)`` may take fewer of those that both have, by what the
    device's configuration space says (virtio 1.3 §3.1.1 step 4)."""

    device_id: int
    features: int
    make_queues: Callable[[int], list[QueuePlan]]
    choose: Callable[[int, bytes], int] | None = None


async def set_up_queue(call: Callable[..., Awaitable[Any]], queue: QueuePlan) -> None:
    """Say size, areas and vector of a queue; ``set_vq_ready`` enables it. Raises what ``call`` does, and RemoteError
    (``vq_num``) where the device has fewer entries."""
    layout = queue.layout
    most = await call("get_vq_num_max", queue.index, kind=int)
    if layout.size > most:
        raise RemoteError("vq_num", layout.size, most, f"entries of queue {queue.index}")
    await call("set_vq_num", queue.index, layout.size)
    await call("set_vq_address", queue.index, layout.desc, layout.driver, layout.device)
    await call("set_vq_cb", queue.index, queue.event)


async def _nothing_to_restore() -> None:
    pass


class VirtioBus:
    """A LinkHandler for role ``guest`` towards one device.

    ``spawn(name, coro)`` starts a task; ``on_restart()`` is called when the device came back without its memory,
    before it is configured again. ``on_replaced()`` is called where the service is the same and the device is not:
    another process was our guest meanwhile. Without it that counts as a restart. ``restore()`` tells a device that
    restarted what it held beside its configuration; it is called between DRIVER_OK and the queues that wait for it.
    ``on_config()`` hears that the device's configuration space may be another.
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
        restore: Callable[[], Awaitable[None]] = _nothing_to_restore,
        on_config: Callable[[], None] = lambda: None,
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
        self._restore: Final = restore
        self._on_config: Final = on_config
        #: what the last probe made, and the features that it made it for; a probe that is tried again uses it
        self._made: tuple[int, list[QueuePlan]] | None = None
        #: the queues of a probe that succeeded
        self._queues: list[QueuePlan] = []
        #: of the device that the link reaches, or reached last
        self.epoch = 0
        #: how often the link came up
        self.turn = 0
        #: the device has been told everything
        self.configured = False

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self.calls.attach(link)
        self.port.link_up()
        self.turn += 1
        restarted, self.epoch = link.peer_epoch != self.epoch, link.peer_epoch
        if not self._queues:
            return  # whoever probes begins anew
        if restarted:
            self._renew()
        elif self.configured:
            self._spawn(f"same {self.name}?", self._same_device())
        else:  # the link went down before it was configured
            self._spawn(f"configure {self.name}", self._configure_again())

    def link_frame(self, _link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Return:
            self.calls.returned(message)
        elif kind is Notice and message.what == "config":
            self._on_config()
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
        if plan.choose is not None:
            _, config = await self.read_config()
            self.features = plan.choose(self.features, config)
        if self._made is None or self._made[0] != self.features:
            self._made = (self.features, plan.make_queues(self.features))
        queues = self._made[1]
        await self._configure(queues, 0, anew=False)
        self._queues = queues
        self.configured = True
        return self.features

    def queue_plan(self, index: int) -> QueuePlan:
        """How queue ``index``, one of the last probe's, is set up."""
        return next(queue for queue in self._queues if queue.index == index)

    async def read_config(self) -> tuple[int, bytes]:
        """Generation and bytes of the configuration space, all of one moment (virtio 1.3 §2.5.1). Raises as a call."""
        call = self.calls.call
        generation = await call("get_generation", kind=int)
        while True:
            size = await call("get_config_size", kind=int)
            config = await call("get_config", 0, size, kind=bytes)
            before, generation = generation, await call("get_generation", kind=int)
            if generation == before:
                return generation, config

    async def _configure(self, queues: list[QueuePlan], status: int, *, anew: bool) -> None:
        """From device status ``status`` on: an earlier try may have come some way before its link went down. What
        waits for what a driver sets later is enabled at once unless ``anew``: at first it has set nothing."""
        call = self.calls.call
        if not status & Status.FEATURES_OK:
            status |= Status.ACKNOWLEDGE | Status.DRIVER
            await call("set_status", int(status))
            await call("set_driver_features", self.features)
            status |= Status.FEATURES_OK
            if not await call("set_status", int(status), kind=int) & Status.FEATURES_OK:
                raise RemoteError("features", hex(self.features), None, f"{self.name} does not take them")
        for queue in queues:
            await set_up_queue(call, queue)
            if not (anew and queue.after_restore):
                await call("set_vq_ready", queue.index, True)
        await call("set_status", int(status | Status.DRIVER_OK))

    def _renew(self) -> None:
        """The device has forgotten everything."""
        self.restarts += 1
        self.configured = False
        self._on_restart()
        self._spawn(f"configure {self.name}", self._configure_again())

    async def _same_device(self) -> None:
        try:
            status = await self.calls.call("get_status", kind=int)
        except LinkDownError:
            return  # the next link_up looks
        except RemoteError as error:
            self._log.error("device does not say its status", device=self.name, error=str(error))
            return
        if not status & Status.DRIVER_OK:
            self._log.warning("device was another process's meanwhile", device=self.name)
            self._on_replaced()
        else:
            self._on_config()  # a notice may have been lost

    async def _configure_again(self) -> None:
        turn = self.turn
        try:
            status = await self.calls.call("get_status", kind=int)
            if not status & Status.DRIVER_OK:  # else the answer to a later call went down with the link
                await self._configure(self._queues, status, anew=True)
            await self._restore()
            if turn != self.turn:
                return  # whoever came with the newer link goes on
            for queue in self._queues:
                if queue.after_restore:
                    await self.calls.call("set_vq_ready", queue.index, True)
            self.configured = True
        except LinkDownError as error:  # the next link_up goes on
            self._log.warning("device not configured again yet", device=self.name, error=str(error))
        except RemoteError as error:
            self._log.error("device does not take its configuration again", device=self.name, error=str(error))
        else:
            self._log.info("device configured again", device=self.name)
            self._on_config()


class PortBus(VirtioBus):
    """A bus whose port sends over the link. ``raised(message)`` hears of every interrupt that the port asks for, before
    the device does."""

    def __init__(self, name: str, port: Port, *, raised: Callable[[Irq], None], **kwargs: Any) -> None:
        super().__init__(name, port, **kwargs)
        self._raised: Final = raised
        self._to: Link | None = None
        port.send = self._send

    def _send(self, message: Message) -> None:
        if type(message) is Irq:
            self._raised(message)
        link = self._to
        if link is None:
            return
        link.send(message)
        if type(message) is Avail and len(self.port.queues[message.queue].in_flight) == len(message.chains):
            # nothing else is under way on this queue: waiting for company would only cost it time
            link.flush()

    def link_up(self, link: Link) -> None:
        self._to = link
        super().link_up(link)

    def link_down(self, link: Link, reason: str) -> None:
        if self._to is link:
            self._to = None
        super().link_down(link, reason)
