"""Whatever a platform answers, every command ends with its own answer or with one typed error, every message that came
is in exactly one counter, and no message, token or buffer is lost.

Run: ``python -m tests.fuzz.fuzz_scmi_replies [COUNT] [SEED] [EPISODE]``: COUNT hostile messages, in episodes of some
thousands that depend on nothing but SEED and their number; a failing one is run again by giving its number.
``test_fuzz_scmi_replies.py`` runs a short round. Time is the event loop's own, so that time-outs cost nothing.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, replace
from typing import Any, Final

from common.errors import ChannelBusyError, LinkDownError, RingError, ScmiError, XferTimeoutError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.scmi import header
from common.scmi.names import message_name
from common.virtio.split_driver import SplitDriver
from common.workqueue import WorkQueue
from services.guest_driver.layout import Layout
from services.guest_driver.notify_events import Handler, Notification
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_message import POLL_DONE, VioMsg
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_virtio_rx import RxChannel
from services.guest_driver.scmi_xfer import xfers_of
from tests.fuzz import rounds
from tests.fuzz.scmi_hostile import IDENTITY, SOURCES, VENDOR, Command, HostilePlatform

#: Hostile messages of one episode.
EPISODE: Final = 5000
TIMEOUT: Final = 10.0
#: What a message that came is counted as; err_msg_late and err_msg_overtaken are parts of these.
OUTCOMES: Final = ("response_ok", "response_polled_ok", "delayed_response_ok", "notification_ok", "err_msg_unexpected",
                   "err_msg_invalid", "err_msg_nomem")  # fmt: skip
#: Commands of one call of a client, at most: an iteration that goes on is a platform that has its way.
MAX_STEPS: Final = 200

Call = Callable[[bool], Awaitable[object]]


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands until it is told to move."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class CountedAgent(ScmiAgent):
    """It counts the delayed responses that somebody was given."""

    delayed = 0

    async def do_xfer_with_response(self, protocol: int, message: int, payload: bytes = b"", **how: Any) -> bytes:
        late = message_name(protocol, message, header.DELAYED_RESPONSE)
        try:
            got = await super().do_xfer_with_response(protocol, message, payload, **how)
        except ScmiError as error:
            self.delayed += error.field == late
            raise
        self.delayed += 1
        return got


class Episode:
    """One agent, a few lives of its channels, and the platform."""

    def __init__(self, seed: int, number: int, budget: int) -> None:
        self.rng = rng = random.Random(f"{seed}/{number}")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualLoop)
        self.loop = loop
        self.failures: list[BaseException] = []
        self.world = AsyncWorld(on_failure=lambda _name, error: self.failures.append(error), clock=loop.time)
        self.commands: dict[int, Command] = {}
        self.memory = GuestMemory(1 << 20)
        self.platform = HostilePlatform(self.world, self.memory, rng, self.commands)
        self.agent = self.world.new(CountedAgent, self.world, lambda *_a, **_k: None, timeout=TIMEOUT)
        self.ends: Counter[str] = Counter()
        self.budget = budget
        self.done = 0
        self.ids = 0
        self.checks = 0
        self.running = True
        self.busy = 0
        self.connected = False
        self.counted = 0
        self.callers = 0
        self._calls = self._clients()
        self._handlers = self._listeners()
        for client in (self.agent.base, self.agent.clock, self.agent.sensor):
            events = replace(client.events(), queue_size=rng.choice((256, 4096)))
            self.agent.notifications.register_protocol_events(events)
        self.agent.notifications.start("agent")

    # --- channels -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """New rings and channels for the agent."""
        rng, world = self.rng, self.world
        layout = Layout(0, 1 << 20)
        event_idx, start = rng.random() < 0.5, rng.choice((0, 0xFFF0, rng.randrange(1 << 16)))
        layouts = [layout.ring(1 << rng.randrange(1, 8)), layout.ring(1 << rng.randrange(1, 6))]
        self.rings = [
            world.new(SplitDriver, world, self.memory, at, event_idx=event_idx, start=start) for at in layouts
        ]
        self.platform.connect(layouts, event_idx=event_idx, start=start)
        workqueue = world.new(WorkQueue, world)
        self.tx = world.new(
            TxChannel, world, self.memory, self.rings[0], layout, _bell, self.agent.rx_callback, workqueue
        )
        self.rx = world.new(RxChannel, world, self.memory, self.rings[1], layout, _bell, self.agent.rx_callback)
        self.agent.attach(self.tx)
        self.rx.on_broken = self.agent.channel_broken
        world.spawn("deferred", workqueue.run())
        self.rx.start()
        self.counted = self.outcomes()
        self.connected = True

    async def disconnect(self) -> None:
        """Orderly shutdown, whatever state the rings are in; nothing may be left behind."""
        self.connected = False
        await self.finish(self.tx.close())
        await self.finish(self.rx.close())
        self.agent.detach()
        self.tx.reclaim()
        await self.spin(4)
        assert not self.agent.in_flight, "a token is lost with its channel"
        assert self.rings[0].in_flight == 0
        free = list(self.tx.free_list)
        assert len(free) == len(set(map(id, free))) == self.tx.max_msg, "a message is lost with its channel"
        assert all(msg.users.load() == 0 for msg in free)

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``; it must not take long."""
        task = self.loop.create_task(work)
        for _ in range(50):
            await asyncio.sleep(0)
            if task.done():
                task.result()
                return
            self.world.stir()
        raise AssertionError("a channel does not close")

    # --- commands -----------------------------------------------------------------------------------------------------

    def _clients(self) -> list[Call]:
        one, two, three = self.agent.base, self.agent.clock, self.agent.sensor
        return [
            lambda p: one.version(poll=p), lambda p: one.attributes(poll=p), lambda p: one.vendor(poll=p),
            lambda p: one.protocols(poll=p), lambda p: one.discover_agent(poll=p),
            lambda p: one.notify_errors(True, poll=p), lambda p: one.message_attributes(3, poll=p),
            lambda p: two.attributes(poll=p), lambda p: two.clock_attributes(1, poll=p),
            lambda p: two.describe_rates(1, poll=p), lambda p: two.describe_rates(2, poll=p),
            lambda p: two.rate_get(1, poll=p), lambda _: two.rate_set_async(1, 5), lambda p: two.parents(1, poll=p),
            lambda p: two.config_get(1, poll=p), lambda p: two.name_get(1, poll=p),
            lambda p: three.attributes(poll=p), lambda p: three.discover(poll=p), lambda p: three.axes(1, poll=p),
            lambda p: three.update_intervals(1, poll=p), lambda p: three.reading_get(1, poll=p),
            lambda _: three.reading_get_async(1), lambda p: three.config_get(1, poll=p),
            lambda p: three.name_get(1, poll=p), lambda p: three.trip_point_config(1, 0, 5, poll=p),
        ]  # fmt: skip

    def _listeners(self) -> list[tuple[int, int, Handler, int | None]]:
        """Handlers as drivers have them; one is broken."""
        return [
            (0x10, 0, self._heard, None), (0x14, 0, self._heard, None), (0x15, 0, self._heard, 1),
            (0x15, 1, self._heard, None), (0x15, 0, _broken_handler, 2),
        ]  # fmt: skip

    def _heard(self, _notification: Notification) -> None:
        self.ends["notification heard"] += 1

    async def subscribe(self) -> None:
        """What drivers do first."""
        for protocol, event, handler, source in self._handlers:
            await self.agent.on_notification(protocol, event, handler, source)

    async def listen(self) -> None:
        """A handler that comes and goes."""
        protocol, event, _, _ = self.rng.choice(self._handlers)
        source = self.rng.choice((0, None)) if protocol == 0x10 else self.rng.randrange(SOURCES)

        def handler(notification: Notification) -> None:
            self._heard(notification)

        await self.agent.on_notification(protocol, event, handler, source)
        await self.agent.notifications.unregister(protocol, event, handler, source)

    async def caller(self) -> None:
        """One command after the other, until the episode ends."""
        rng = self.rng
        self.callers += 1
        try:
            await self._call_on(rng)
        finally:
            self.callers -= 1

    async def _call_on(self, rng: random.Random) -> None:
        while self.running:
            poll = rng.random() < 0.5
            try:
                if rng.random() < 0.75:
                    await self.raw(poll)
                elif rng.random() < 0.1:
                    await self.listen()
                else:
                    await rng.choice(self._calls)(poll)
                    self.ends["parsed"] += 1
            except ChannelBusyError:
                self.busy += 1
                await self.world.relax()
            except (ScmiError, XferTimeoutError, RingError, LinkDownError) as error:
                self.ends[type(error).__name__] += 1
                if isinstance(error, (RingError, LinkDownError)):
                    await self.world.relax()

    async def raw(self, poll: bool) -> None:
        """A command whose right answer says whose it is."""
        rng, agent = self.rng, self.agent
        self.ids += 1
        number = self.ids
        slow = rng.random() < 0.25
        expect = rng.choice((0, 8, 16, 40, 128))
        payload = IDENTITY.pack(number, slow) + bytes(rng.randrange(20))
        command = self.commands[number] = Command()
        timeout = rng.choice((0.5, 2.0, TIMEOUT))
        protocol, message = rng.choice(VENDOR), rng.randrange(3, 5)
        send = agent.do_xfer_with_response if slow else agent.do_xfer
        try:
            got = await send(protocol, message, payload, expect=expect, poll=poll, timeout=timeout)
        except ScmiError as error:
            command.check_status(error.status)
            raise
        except XferTimeoutError:
            answers = command.delayed if slow else command.answers
            if any(one.right for one in answers):
                raise AssertionError("the right answer came, and was not taken") from None
            raise
        finally:
            del self.commands[number]
        if slow:
            offered = [one.data[8:] for one in command.delayed]
        else:
            offered = [one.data[8 : 8 + expect] for one in command.answers]
        assert got in offered, f"command {number} was completed with another command's answer"
        self.ends["answered"] += 1

    # --- time ---------------------------------------------------------------------------------------------------------

    async def spin(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def turn(self, replies: int) -> None:
        """The platform says something, and what of it is heard, is heard."""
        rng, platform = self.rng, self.platform
        platform.take()
        platform.act(replies)
        self.interrupts(0.6)
        if rng.random() < 0.8:
            self.world.stir()
        await self.spin(2)
        self.check()

    def interrupts(self, chance: float) -> None:
        irq = self.platform.irq
        for queue, channel in enumerate((self.tx, self.rx)):
            if (irq[queue] and self.rng.random() < chance) or self.rng.random() < 0.05:
                irq[queue] = False
                try:
                    channel.complete_cb()
                except RingError:
                    assert channel.broken

    async def settle(self) -> None:
        """Everything that was said is heard: interrupts that are due are enough for that."""
        for _ in range(4):
            self.interrupts(1.0)
            self.world.stir()
            await self.spin(3)
        for ring, device in zip(self.rings, self.platform.queues, strict=True):
            assert ring.broken or ring.last_used_idx == device.used_idx, "a reply waits, and nobody will look"
        self.check()

    async def pass_time(self, seconds: float) -> None:
        await self.settle()
        self.loop.now += seconds
        await self.spin(4)
        self.check()

    # --- looking ------------------------------------------------------------------------------------------------------

    def outcomes(self) -> int:
        stats = self.agent.stats
        return sum(getattr(stats, name) for name in OUTCOMES)

    def check(self) -> None:
        """Everything that is true at all times."""
        assert not self.failures, self.failures
        if not self.connected:
            return
        tx, ring = self.tx, self.rings[0]
        free, pending = list(tx.free_list), list(tx.pending_cmds_list)
        on_ring = _on_ring(ring)
        bound = [msg for msg in [xfer.priv for xfer in xfers_of(self.agent.in_flight)] if msg is not None]
        users = Counter(map(id, on_ring + pending + bound))
        taken = [msg for msg in bound if msg.poll_status == POLL_DONE]
        users.update(map(id, taken))
        held = set(map(id, bound)) - set(map(id, on_ring + pending))
        assert len(free) == len(set(map(id, free))), "a message is on the free list twice"
        assert len(free) + len(on_ring) + len(pending) + len(held) == tx.max_msg, "a message is lost, or there twice"
        assert ring.in_flight == 2 * len(on_ring)
        self.checks += 1
        if self.checks % 4 == 0:
            for i in range(tx.max_msg):
                assert tx.messages[i].users.load() == users[id(tx.messages[i])], "a use too many or too few"
        assert not any(users[id(msg)] for msg in free), "a free message is in use"
        # every used entry: counted, or not looked at yet
        waiting = len(pending) + len(taken)
        for one, device in zip(self.rings, self.platform.queues, strict=True):
            waiting += (device.used_idx - one.last_used_idx) & 0xFFFF
        if not (tx.broken or self.rx.broken):
            said, counted = sum(self.platform.pushed), self.outcomes() - self.counted
            assert said == counted + waiting, f"{said} replies, {counted} counted, {waiting} waiting"
            buffers = _on_ring(self.rings[1])
            assert len(buffers) == len(set(map(id, buffers))) == self.rx.max_msg, "a buffer of the eventq is lost"
            if self.checks % 4 == 1:
                self.check_tokens()
        stats, ends = self.agent.stats, self.ends
        late = stats.xfers_response_timeout + stats.xfers_response_polled_timeout
        # a command that turns a notification off fails silently
        swallowed = self.agent.notifications.sources.stats.disable_failed
        assert ends["XferTimeoutError"] <= late <= ends["XferTimeoutError"] + swallowed

    def check_tokens(self) -> None:
        """A token is taken for as long as the platform owes an answer under it."""
        for word in self.platform.owes():
            xfer = self.agent.in_flight.get(word >> header.TOKEN_SHIFT & 0x3FF)
            assert xfer is not None, "a token was freed before its answer came"
            assert xfer.word == word, "a token was given away before its answer came"

    def check_notifications(self) -> None:
        """The worker is through: each notification that was queued was delivered, to somebody or to nobody."""
        notifications, stats = self.agent.notifications, self.agent.stats
        queues = [notifications.queues[number].stats for number in (0x10, 0x14, 0x15)]
        assert sum(queue.queued for queue in queues) == stats.notification_ok
        assert sum(queue.delivered for queue in queues) == stats.notification_ok
        assert sum(queue.dropped for queue in queues) == stats.err_msg_nomem
        assert sum(queue.flushed for queue in queues) == 0

    # --- the episode --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        rng = self.rng
        self.connect()
        await self.open()
        for i in range(rng.randrange(1, self.tx.max_msg + 4)):
            self.world.spawn(f"caller {i}", self.caller())
        while self.done < self.budget:
            # the last life ends in order, the others with a ring that the platform broke
            await self.live(min(self.budget, self.done + rng.choice((EPISODE, rng.randrange(200, EPISODE // 2)))))
            if self.done < self.budget:
                await self.break_ring()
                await self.disconnect()
                self.connect()
        await self.drain()
        await self.disconnect()
        await self.finish(self.agent.notifications.close())
        self.check_notifications()
        await self.world.close()

    async def open(self) -> None:
        """The platform is honest until all handlers are registered."""
        task = self.loop.create_task(self.subscribe())
        while not task.done():
            self.platform.take()
            self.platform.answer_all()
            await self.settle()
        task.result()

    async def live(self, until: int) -> None:
        rng, platform = self.rng, self.platform
        begin = self.done - platform.kinds.total()
        while self.done < until:
            few = len(platform.owned) + 3
            await self.turn(60 if rng.random() < 0.01 else rng.randrange(few))
            if rng.random() < 0.03:
                await self.pass_time(rng.choice((0.1, 1.0, 3.0, TIMEOUT + 1)))
            self.done = begin + platform.kinds.total()

    async def break_ring(self) -> None:
        queue = self.rng.randrange(2)
        channel = (self.tx, self.rx)[queue]
        lie = self.platform.break_ring(queue)
        # a head that is used twice is noticed only as long as no new command has it
        if lie != "used_twice" and self.rng.random() < 0.5:
            self.world.stir()
            await self.spin(2)
        try:
            channel.complete_cb()
        except RingError:
            pass
        else:
            raise AssertionError("the driver believes a ring that lies")
        assert channel.broken
        self.world.stir()
        await self.spin(4)
        self.check()
        if queue == 0:
            assert not any(xfer.priv for xfer in xfers_of(self.agent.in_flight))
            assert self.agent.xfers_inflight == 0, "somebody waits for a queue that is broken"

    async def answer(self) -> None:
        """Answer until nobody asks for more."""
        for _ in range(MAX_STEPS):
            await self.spin(3)
            self.platform.take()
            if not self.platform.owned and not self.platform.held:
                return
            self.platform.answer_all()
            await self.settle()
        raise AssertionError("a client asks without end")

    async def walk(self, call: Awaitable[object]) -> None:
        """A command that asks again while something remains."""
        try:
            await call
            assert not self.platform.stubborn, "a list that goes on without end was believed"
        except ScmiError:
            assert self.platform.stubborn
        except ChannelBusyError:
            self.busy += 1
        except XferTimeoutError:
            self.ends["XferTimeoutError"] += 1

    async def drain(self) -> None:
        """No new commands; the platform answers all that it owes (lists that never end among it): nothing is left."""
        self.running = False
        platform, agent = self.platform, self.agent
        two, three = agent.clock, agent.sensor
        lists = (two.describe_rates(1), two.parents(1), three.discover(), three.axes(1), three.update_intervals(1))
        for i, call in enumerate(lists):
            self.world.spawn(f"list {i}", self.walk(call))
        for _ in range(4):
            await self.answer()
            await self.pass_time(TIMEOUT + 1)
        await self.answer()
        assert not self.callers, "a command never ends"
        assert agent.xfers_inflight == 0
        while agent.in_flight:
            xfer = xfers_of(agent.in_flight)[0]
            platform.take()
            assert platform.answer_token(xfer.word, xfer.async_done is not None), "no buffer comes back to the eventq"
            await self.settle()
            assert agent.in_flight.get(xfer.token) is not xfer, "a token stays taken after its answer"
        await self.settle()
        assert len(self.tx.free_list) == self.tx.max_msg, "a message is lost"
        assert not self.commands
        assert agent.stats.sent_fail >= self.busy
        assert agent.stats.delayed_response_ok == agent.delayed, "a delayed response counts and is nobody's"


def _on_ring(ring: SplitDriver) -> list[VioMsg]:
    tokens = [ring.tokens[head] for head in range(ring.size)]
    return [token for token in tokens if token is not None]


def _bell() -> None:
    """The platform looks at its rings anyway."""


def _broken_handler(_notification: Notification) -> None:
    raise ValueError("a driver's bug")


def fuzz(count: int, seed: int, first: int = 0, report: Callable[[int], None] = lambda _done: None) -> Counter[str]:
    """Episodes from number ``first`` on until ``count`` messages were sent. Returns what was counted."""
    total: Counter[str] = Counter()
    done, number = 0, first
    while done < count:
        episode: Episode | None = None

        async def run(number: int = number, budget: int = min(EPISODE, count - done)) -> Episode:
            one = Episode(seed, number, budget)
            await one.run()
            return one

        try:
            with asyncio.Runner(loop_factory=ManualLoop) as runner:
                episode = runner.run(run())
        except BaseException:
            print(f"seed {seed}, episode {number}", file=sys.stderr)
            raise
        total.update({f"said: {kind}": n for kind, n in episode.platform.kinds.items()})
        total.update({f"counter: {name}": n for name, n in asdict(episode.agent.stats).items()})
        total.update({f"end: {name}": n for name, n in episode.ends.items()})
        total["end: ChannelBusyError"] += episode.busy
        done += episode.platform.kinds.total()
        number += 1
        report(done)
    total["messages"] = done
    return total


if __name__ == "__main__":
    rounds.run(fuzz, "none crashed, leaked, or went uncounted")
