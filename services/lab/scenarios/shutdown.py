"""``shutdown``: the channel is freed while its callback, its deferred worker and polling loops may be inside it.

As posted in December 2021 a flag ``ready``, looked at under ``ready_lock``, keeps the callback out. Neither polling
loops nor the worker look at it, and ``destroy_workqueue`` does not know of the loop that is about to kick the worker.
What Linux has since counts everybody inside, and waits for the last one out.

Actors: *cpu0* and *cpu1* with a command each; *device*, *irq*, *worker*; *owner* closes the channel at any moment,
resets the device, takes back the messages, and frees.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from common.errors import ChannelBusyError, LinkDownError
from common.scmi.header import HEADER
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_xfer import Xfer
from services.lab.freed import free
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, nothing_more, register
from services.lab.scenarios.vio_rig import Rig, accounted, name_things
from services.lab.world import LabWorld


class V8(TxChannel):
    """As posted: ``ready`` under ``ready_lock`` is for the callback alone; nobody is counted."""

    __slots__ = ("ready", "ready_lock")

    ready_lock: Final[AbstractContextManager[Any]]

    def __init__(self, world: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.ready = True
        self.ready_lock = world.spinlock()

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nobody is counted."""

    def complete_cb(self) -> None:
        vqueue = self.vqueue
        cb_enabled = True
        while True:
            with self.ready_lock:
                if not self.ready:
                    return
                with self.lock:
                    if cb_enabled:
                        vqueue.disable_cb()
                        cb_enabled = False
                    used = vqueue.get_buf()
                    if used is None:
                        if vqueue.enable_cb():
                            return
                        cb_enabled = True
                if used is not None:
                    msg, length = used
                    msg.rx_len = length
                    self.rx_callback(msg)
                    self.finalize(msg)

    async def close(self) -> None:
        with self.ready_lock:
            self.ready = False
        await self.deferred_tx_wq.stop()


class LookThenCount(TxChannel):
    """Counted, but only after the flag was looked at."""

    __slots__ = ()

    def acquire(self) -> bool:
        if self.closing:
            return False
        self.users.add(1)
        return True


@dataclass(slots=True, frozen=True)
class Input:
    """cpu*n* has sent a command, polled where ``polls[n]``; the platform has answered those in ``order`` and will
    answer no other. ``sends``: cpu0 sends one more, a polled one if ``sends[0]``, on an idle channel.

    ``masked``: nobody takes interrupts. ``worker_only``: v8 frees the channel before the ring goes; here only its work
    queue is freed.
    """

    name: str
    polls: tuple[bool, ...] = ()
    order: tuple[int, ...] = ()
    sends: tuple[bool, ...] = ()
    worker_only: bool = False
    masked: bool = False


class Bench(Rig):
    """The rig with an owner, and without a device: what it has answered is on the ring when a run begins."""

    __slots__ = ()

    async def send(self, poll: bool) -> None:
        """A command that ends because the channel is closed: the platform is silent."""
        with suppress(LinkDownError, ChannelBusyError):
            await self.command(0, poll)

    async def wait(self, xfer: Xfer, timeout: float = inf) -> None:
        """As the agent waits; the end may be a reply, or that the channel is closed."""
        await self._waited(xfer, timeout)
        if not self.agent._settle(self.tx, xfer) and xfer.rx != xfer.request[HEADER.size :]:
            raise AssertionError(f"a command got the reply {xfer.rx.hex()}")

    async def own(self, worker_only: bool) -> None:
        """Close the channel, let go of every transaction, take the messages back, free."""
        tx = self.tx
        await tx.close()
        self.agent.detach()
        gone: tuple[Any, ...] = (self.workqueue, tx.deferred_tx_work)
        if not worker_only:
            # no device any more, none to reset
            tx.reclaim()
            gone += (self.vqueue, tx.lock, tx.pending_cmds_list, tx.pending_lock)
        free(self.world, *gone)
        # an interrupt may come later still
        self.irq_over = True
        self.irq_pending.set()


def build(cls: type[TxChannel], *inputs: Input) -> Build:
    """The scenario over one channel class."""

    def setup(world: LabWorld) -> Checks:
        given = inputs[world.choice(len(inputs), "input")]
        rig = world.new(Bench, world, cls, masked=given.masked)
        name_things(world, rig)
        if isinstance(rig.tx, V8):
            world.called(rig.tx.ready_lock, "ready_lock")
        for number, poll in enumerate(given.polls):
            xfer = rig.sent(number, poll)
            world.called(xfer, f"xfer{number}")
            if xfer.done is not None:
                world.called(xfer.done, f"xfer{number}.done")
            world.spawn(f"cpu{number}", rig.wait(xfer))
        for number, poll in enumerate(given.sends):
            world.spawn(f"cpu{number}", rig.send(poll))
        chains = [rig.device.pop() for _ in given.polls]
        for number in given.order:
            rig.answer(chains[number])
        if not given.masked:
            world.spawn("irq", rig.take_interrupts())
        world.spawn("worker", rig.workqueue.run())
        world.spawn("owner", rig.own(given.worker_only))

        def final() -> str | None:
            free = len(rig.tx.free_list)
            return accounted(rig) or (
                None if free == rig.tx.max_msg else f"{free} of {rig.tx.max_msg} messages are free"
            )

        return Checks(final=nothing_more if given.worker_only else final)

    return setup


SLEEPER: Final = Input("the callback has a reply", (False,), (0,))
POLLER: Final = Input("a loop or the callback has a reply", (True,), (0,))
KICK: Final = Input("a loop has a reply for the worker", (True, False), (1, 0), masked=True)
SILENT: Final = Input("a loop waits for ever", (True,))
SENDER: Final = Input("a command is sent", sends=(False,))
SENDS_POLLED: Final = Input("a polled command is sent", sends=(True,))
ALL: Final = (SLEEPER, POLLER, KICK, SILENT, SENDER, SENDS_POLLED)

BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="shutdown",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="callback, deferred worker and polling loops against channel free",
        variants=(
            Variant("v8-callback", "holds", build(V8, SLEEPER), "ready_lock keeps the callback out", BUDGET),
            Variant("v8-poller", "fails", build(V8, POLLER), "nothing keeps a polling loop out", BUDGET),
            Variant("v8-worker-kick", "fails", build(V8, replace(KICK, worker_only=True)), "", BUDGET),
            Variant("look-then-count", "fails", build(LookThenCount, SLEEPER), "", BUDGET),
            Variant("shipped", "holds", build(TxChannel, *ALL), "everybody inside is counted", BUDGET),
        ),
    )
)
