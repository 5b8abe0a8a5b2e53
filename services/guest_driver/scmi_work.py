"""The SCMI part of the default workload: vCPUs that read and set clocks, read sensors, ask who the platform is, and
check every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from common.errors import ChannelBusyError, RingmeshError, ScmiError, XferTimeoutError
from common.histogram import Histogram
from common.runtime.clock import monotonic
from common.scmi.sensor import ATTR_TRIP_POINTS, Descriptor
from common.scmi.status import Status
from services.guest_driver.config import WorkloadConfig
from services.guest_driver.guest import CMDQ, Guest

#: Seconds between two looks at the sensors with trip points.
TRIP_EVERY: Final = 0.25


@dataclass(slots=True)
class ScmiBooks:
    """What was asked and what came of it. ``rtt`` in seconds."""

    sent: int = 0
    completed: int = 0
    polled: int = 0
    notifications: int = 0
    timed_out: int = 0
    failed: int = 0
    refused_after_reset: int = 0
    corrupted: int = 0
    rtt: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Known:
    """What the agent found out about the platform before the load began."""

    vendor: str
    #: clock → rates in Hz that the load sets it to, of the clocks that have at least two
    clocks: dict[int, list[int]]
    #: clock → rate in Hz after a reset of the platform
    defaults: dict[int, int]
    sensors: list[Descriptor]


class ScmiWork:
    """The SCMI load of one guest."""

    def __init__(self, guest: Guest, config: WorkloadConfig) -> None:
        self._guest: Final = guest
        self._config: Final = config
        self.books: Final = ScmiBooks()
        self._known: Known | None = None
        #: clock → the rate that the platform must report; absent where a restart made it uncertain
        self._rates: dict[int, int] = {}
        #: restarts of the platform so far
        self._restarts = 0
        self._running = False
        self._workers: list[asyncio.Task[None]] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    async def discover(self) -> None:
        """Learn what there is to ask for, and subscribe to trip points."""
        agent = self._guest.agent
        clocks, defaults = {}, {}
        for clock in range((await agent.clock.attributes()).clocks):
            rates = await agent.clock.describe_rates(clock)
            settable = list(rates.rates)
            if rates.triplet:
                lowest, highest, step = settable
                settable = [lowest, min(lowest + 8 * step, highest)]
            if len(set(settable)) > 1:
                clocks[clock] = settable
                defaults[clock] = await agent.clock.rate_get(clock)
        self._known = Known(await agent.base.vendor(), clocks, defaults, await agent.sensor.discover())
        agent.sensor.on_trip_point(self._tripped)
        await self._subscribe()

    def start(self) -> None:
        """Start the workers."""
        self._running = True
        spawn = asyncio.get_running_loop().create_task
        self._workers = [spawn(self._work(n), name=f"scmi vcpu {n}") for n in range(self._config.scmi_workers)]
        if self._workers:
            self._workers.append(spawn(self._chase(), name="scmi trip points"))

    async def stop(self) -> None:
        """Stop sending and wait for the workers' last answers; raises what one of them died of."""
        self._running = False
        workers, self._workers = self._workers, []
        if not workers:
            return
        done, late = await asyncio.wait(workers, timeout=self._config.drain_seconds)
        for task in late:
            task.cancel()
        for task in done:
            task.result()

    def platform_restarted(self) -> None:
        """The platform came back with its defaults."""
        self._restarts += 1
        self._rates.clear()
        self._guest.world.spawn("scmi subscribe", self._subscribe_again())

    # --- notifications ------------------------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        agent = self._guest.agent
        assert self._known is not None
        for number, sensor in enumerate(self._known.sensors):
            if sensor.attributes_low & ATTR_TRIP_POINTS:
                await agent.sensor.notify_trip_points(number, True)

    async def _subscribe_again(self) -> None:
        try:
            await self._subscribe()
        except RingmeshError as error:
            self._guest.log.warning("no notifications until the next restart", error=str(error))

    def _tripped(self, _notification: object) -> None:
        self.books.notifications += 1

    async def _chase(self) -> None:
        """Keep each trip point just ahead of its sensor, so that notifications keep coming."""
        assert self._known is not None
        sensors = [n for n, sensor in enumerate(self._known.sensors) if sensor.attributes_low & ATTR_TRIP_POINTS]
        before: dict[int, int] = {}
        while self._running and sensors:
            for number in sensors:
                await self._do(
                    "trip_point",
                    lambda poll, number=number: self._set_trip(number, before, poll),  # type: ignore[misc]
                    False,
                )
            await asyncio.sleep(TRIP_EVERY)

    async def _set_trip(self, number: int, before: dict[int, int], poll: bool) -> bool:
        agent = self._guest.agent
        reading = (await agent.sensor.reading_get(number, poll=poll))[0].value
        ahead = 1 if reading >= before.get(number, reading) else -1
        before[number] = reading
        self.books.sent += 1
        await agent.sensor.trip_point_config(number, 0, reading + ahead, poll=poll)
        self.books.completed += 1
        return True

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _work(self, vcpu: int) -> None:
        """One vCPU: a command after the other, polled ones among them."""
        known, config = self._known, self._config
        assert known is not None
        clocks = sorted(known.clocks)[vcpu :: config.scmi_workers]
        mine = clocks[0] if clocks else None
        turn = vcpu
        while self._running:
            turn += 1
            poll = turn & 3 < config.polled_of_four
            kind = turn % 5
            if kind == 0:
                await self._do("vendor", self._vendor, poll)
            elif kind in (1, 2) and mine is not None:
                rates = known.clocks[mine]
                rate = rates[turn % len(rates)]
                await self._do("rate_set", lambda p, rate=rate: self._rate_set(mine, rate, p), poll)  # type: ignore[misc]
            elif kind == 3 and mine is not None:
                await self._do("rate_get", lambda p: self._rate_get(mine, p), poll)
            else:
                number = turn % len(known.sensors)
                await self._do("reading", lambda p, number=number: self._reading(number, p), poll)  # type: ignore[misc]
            if config.scmi_pause:
                await asyncio.sleep(config.scmi_pause)

    async def _do(self, name: str, command: Callable[[bool], Awaitable[bool]], poll: bool) -> None:
        """One command in the books: sent, answered, checked."""
        books, guest = self.books, self._guest
        books.sent += 1
        began = monotonic()
        try:
            good = await command(poll)
        except XferTimeoutError:
            books.timed_out += 1
            return
        except ChannelBusyError:
            books.sent -= 1  # it never left
            await asyncio.sleep(0.001)
            return
        except ScmiError as error:
            books.completed += 1
            if error.status == Status.COMMS_ERROR:
                books.refused_after_reset += 1
            else:
                books.corrupted += 1
                guest.log.error("SCMI command failed", error=str(error))
            return
        except RingmeshError as error:
            books.failed += 1
            guest.log.error("SCMI command not answered", error=str(error))
            await asyncio.sleep(0.1)
            return
        ended = monotonic()
        books.rtt.observe(ended - began)
        books.completed += 1
        if poll:
            books.polled += 1
            guest.took(guest.scmi_port, CMDQ, "cmdq")
        if not good:
            books.corrupted += 1
            guest.log.error("SCMI answer is wrong", command=name)

    async def _vendor(self, poll: bool) -> bool:
        assert self._known is not None
        return await self._guest.agent.base.vendor(poll=poll) == self._known.vendor

    async def _rate_set(self, clock: int, rate: int, poll: bool) -> bool:
        restarts = self._restarts
        self._rates.pop(clock, None)
        await self._guest.agent.clock.rate_set(clock, rate, poll=poll)
        if restarts == self._restarts:
            self._rates[clock] = rate
        return True

    async def _rate_get(self, clock: int, poll: bool) -> bool:
        assert self._known is not None
        rate = await self._guest.agent.clock.rate_get(clock, poll=poll)
        want = self._rates.get(clock)
        if want is not None:
            return rate == want
        return rate == self._known.defaults[clock] or rate in self._known.clocks[clock]

    async def _reading(self, number: int, poll: bool) -> bool:
        assert self._known is not None
        sensor = self._known.sensors[number]
        readings = await self._guest.agent.sensor.reading_get(number, poll=poll)
        limits = sensor.range
        return bool(readings) and (limits is None or all(limits.lowest <= r.value <= limits.highest for r in readings))
