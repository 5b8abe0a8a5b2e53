"""More inputs for the transport as it ships, where the scenarios' own leave a mutant alive.

Each adds to the rig's final check that everybody has left the channel, and that the agent's counters add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.errors import RingError
from services.guest_driver.scmi_virtio import DESCRIPTORS
from services.lab.scenario import Build, Checks
from services.lab.scenarios import (
    aba_wrap,
    double_free,
    poll_index_order,
    prefetched_reply,
    shutdown,
    timed_out_leak,
    vio_rig,
)
from services.lab.scenarios.vio_rig import Classes, Input, Rig, accounted, name_things, start
from services.lab.world import LabWorld

#: seconds: a finite time may run out at any moment
_SOON: Final = 1.0


def left(rig: Rig) -> str | None:
    """The final check: nobody is in the channel, each message in one place."""
    inside = rig.tx.users.load() - 1
    return f"{inside} users inside the channel" if inside else accounted(rig)


def counted(rig: Rig) -> str | None:
    """As :func:`left`, and the agent has counted each command once, by its outcome."""
    stats = rig.agent.stats
    outcomes = (
        stats.response_ok + stats.response_polled_ok,
        stats.xfers_response_timeout + stats.xfers_response_polled_timeout,
    )
    if stats.sent_ok != sum(outcomes):
        return f"{stats.sent_ok} sent; answered, timed out: {outcomes}"
    if stats.err_msg_unexpected != stats.err_msg_late or stats.err_msg_invalid:
        return (
            f"{stats.err_msg_unexpected} unexpected, {stats.err_msg_late} of them late, {stats.err_msg_invalid} invalid"
        )
    owed = rig.vqueue.in_flight // DESCRIPTORS
    if len(rig.agent.in_flight) != owed:
        return f"{len(rig.agent.in_flight)} tokens taken, {owed} messages on the ring"
    return left(rig)


def of(given: Input) -> Callable[[Classes], Build]:
    """An input of the transport's rig. A queue that breaks is a failure here, not an end of the commands."""

    def build(made: Classes) -> Build:
        def setup(world: LabWorld) -> Checks:
            rig = start(world, given, made)
            rig.tx.on_broken = None
            return Checks(final=lambda: left(rig))

        return setup

    return build


def _rig(world: LabWorld, made: Classes, commands: int, size: int = 4) -> Rig:
    rig = world.new(Rig, world, made.channel, made.agent, size=size, commands=commands, driver=made.driver)
    name_things(world, rig)
    rig.tx.on_broken = None
    world.spawn("irq", rig.interrupts())
    world.spawn("worker", rig.workqueue.run())
    return rig


def one_message(polls: tuple[bool, bool]) -> Callable[[Classes], Build]:
    """Two senders, one message: whoever finds none tries again."""

    def build(made: Classes) -> Build:
        def setup(world: LabWorld) -> Checks:
            rig = _rig(world, made, 2, size=2)
            for number, poll in enumerate(polls):
                world.spawn(f"cpu{number}", rig.insist(number, poll))
            world.spawn("device", rig.serve(2))
            return Checks(final=lambda: counted(rig))

        return setup

    return build


def gives_up(made: Classes) -> Build:
    """cpu0 looks for its reply once, and gives up; it never comes. cpu1 has had a reply by the interrupt since cpu0
    sent, so cpu0 has something to look for, and sleeps for another."""

    def setup(world: LabWorld) -> Checks:
        rig = _rig(world, made, 2)
        _wait(world, rig, (True,), 1)
        rig.device.pop()
        first = rig.sent(1, False)
        rig.answer(rig.device.pop())
        rig.tx.complete_cb()
        rig.irq_pending.clear()
        rig.agent._settle(rig.tx, first)
        second = rig.sent(2, False)
        world.called(second, "xfer2")
        world.spawn("cpu1", rig.wait(second))
        world.spawn("device", rig.serve(1))
        return Checks(final=lambda: left(rig))

    return setup


def two_prefetched(made: Classes) -> Build:
    """Three commands are on the ring: cpu0 polls, cpu1 and cpu2 sleep and are answered first."""

    def setup(world: LabWorld) -> Checks:
        rig = _rig(world, made, 3, size=8)
        _wait(world, rig, (True, False, False), 0)
        world.spawn("device", rig.serve_in((1, 2, 0)))
        return Checks(final=lambda: left(rig))

    return setup


def reused(made: Classes) -> Build:
    """cpu0 sleeps for its reply; cpu1 waits for the only message, which is cpu0's."""

    def setup(world: LabWorld) -> Checks:
        rig = _rig(world, made, 2, size=2)
        _wait(world, rig, (False,), 0)
        world.spawn("cpu1", rig.insist(1, False))
        world.spawn("device", rig.serve(2))
        return Checks(final=lambda: left(rig))

    return setup


def late(made: Classes) -> Build:
    """cpu0 has given up without a look, and its reply is on the ring; cpu1 waits for the only message, and polls."""

    def setup(world: LabWorld) -> Checks:
        rig = _rig(world, made, 2, size=2)
        xfer = rig.sent(0, True)
        world.called(xfer, "xfer0")
        rig.answer(rig.device.pop())
        world.spawn("cpu0", rig.glance(xfer, 0))
        world.spawn("cpu1", rig.insist(1, True))
        world.spawn("device", rig.serve(1))
        return Checks(final=lambda: left(rig))

    return setup


def _wait(world: LabWorld, rig: Rig, polls: tuple[bool, ...], looks: int) -> None:
    """Set-up: these commands are on the ring; spawn those who wait for them."""
    for number, poll in enumerate(polls):
        xfer = rig.sent(number, poll)
        world.called(xfer, f"xfer{number}")
        world.spawn(f"cpu{number}", rig.glance(xfer, looks) if looks and not number else rig.wait(xfer))


def may_time_out(poll: bool) -> Callable[[Classes], Build]:
    """One command, whose time may run out at any moment."""

    def build(made: Classes) -> Build:
        def setup(world: LabWorld) -> Checks:
            rig = _rig(world, made, 1)
            world.spawn("cpu0", rig.command(0, poll, _SOON))
            world.spawn("device", rig.serve(1))
            return Checks(final=lambda: counted(rig))

        return setup

    return build


def broken(made: Classes) -> Build:
    """The queue is broken: nothing can be sent."""

    def setup(world: LabWorld) -> Checks:
        rig = world.new(Rig, world, made.channel, made.agent, driver=made.driver, masked=True)
        name_things(world, rig)
        rig.vqueue.broken = True

        async def refused(number: int, poll: bool) -> None:
            try:
                await rig.command(number, poll)
            except RingError:
                await rig._end()

        world.spawn("worker", rig.workqueue.run())
        world.spawn("cpu0", refused(0, True))
        world.spawn("cpu1", refused(1, False))
        return Checks(final=lambda: counted(rig))

    return setup


async def _token_again(rig: Rig, timeout: float) -> None:
    await rig.command(0, False, timeout)
    rig.agent._next_id += 1023
    await rig.command(1, False)


def token_again(made: Classes) -> Build:
    """A command may time out; 1023 others come and go; the next one's token would be the first's."""

    def setup(world: LabWorld) -> Checks:
        rig = _rig(world, made, 2)
        world.spawn("cpu0", _token_again(rig, _SOON))
        world.spawn("device", rig.serve(2))
        return Checks(final=lambda: counted(rig))

    return setup


#: Name → the build over given classes. First those of the scenarios' shipped variants, then more.
INPUTS: Final[dict[str, Callable[[Classes], Build]]] = {
    "prefetched-reply": lambda made: vio_rig.build(prefetched_reply.INPUTS, made),
    "timed-out-leak": lambda made: vio_rig.build(timed_out_leak.INPUTS, made),
    "poll-index-order": lambda made: vio_rig.build(poll_index_order.INPUTS, made),
    "double-free": lambda made: double_free.build(
        made.channel, (double_free.ONE, double_free.NEXT, double_free.POLLED)
    ),
    "shutdown": lambda made: shutdown.build(made.channel, *shutdown.ALL),
    "shutdown, sleeper": lambda made: shutdown.build(made.channel, shutdown.SLEEPER),
    "shutdown, poller": lambda made: shutdown.build(made.channel, shutdown.POLLER),
    "shutdown, kick": lambda made: shutdown.build(made.channel, shutdown.KICK),
    "shutdown, silent": lambda made: shutdown.build(made.channel, shutdown.SILENT),
    "aba-wrap": lambda made: aba_wrap.build(made.driver),
    "two loops": of(Input("both poll", (True, True), (1, 0), masked=True, sent=2)),
    "two sleepers": of(Input("both sleep", (False, False), (0, 1), sent=2)),
    "two senders": of(Input("both poll, neither has sent", (True, True), (0, 1), masked=True)),
    "one message": one_message((True, False)),
    "one message, sleepers": one_message((False, False)),
    "one message, loops": one_message((True, True)),
    "two prefetched": two_prefetched,
    "reused": reused,
    "late": late,
    "gives up": gives_up,
    "may time out": may_time_out(False),
    "may time out, polled": may_time_out(True),
    "token again": token_again,
    "broken": broken,
}
