"""The SCMI part of the default workload: vCPUs that read and set clocks, read sensors, ask who the platform is, and
check every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from common.errors import ChannelBusyError, RingmeshError, ScmiError, XferTimeoutError
from common.runtime.clock import monotonic
from common.scmi.sensor import (
    ATTR_ASYNC,
    ATTR_TRIP_POINTS,
    CONFIG_INTERVAL_SHIFT,
    Descriptor,
    Reading,
    interval,
)
from common.scmi.status import Status
from services.guest_driver.config import WorkloadConfig
from services.guest_driver.guest import Guest
from services.guest_driver.notify_events import Notification
from services.guest_driver.scmi_books import Chased, Known, ScmiBooks
from services.guest_driver.scmi_census import Enumerator
from services.guest_driver.scmi_driver import CMDQ

#: Seconds between two moves of a trip point, where the sensor is sampled more often than that.
TRIP_EVERY: Final = 0.2
#: Moves are this many update intervals apart at least: the platform looks one interval after a move at the earliest.
TRIP_INTERVALS: Final = 1.5
#: Seconds between two looks at the end.
DRAIN_STEP: Final = 0.01
#: Of so many commands of a worker one is asynchronous: such a command may not be repeated after a reset.
ASYNC_EVERY: Final = 16

#: Seconds that a platform may stand still before it goes on with what has timed out meanwhile.
HELD_UP: Final = 5.0


class ScmiWork:
    """The SCMI load of one guest."""

    def __init__(self, guest: Guest, config: WorkloadConfig) -> None:
        self._guest: Final = guest
        self._config: Final = config
        self.books: Final = ScmiBooks()
        self._known: Known | None = None
        #: clock → the rate that the platform must report; absent where a restart made it uncertain
        self._rates: dict[int, int] = {}
        #: clock → time until which an asynchronous change that timed out may still come to pass
        self._unsure: dict[int, float] = {}
        #: restarts of a platform that forgets, so far
        self._restarts = 0
        #: where all messages of the transport are; there from :meth:`discover` on
        self.census: Enumerator | None = None
        #: kinds of errors that were logged
        self._told: set[str] = set()
        #: asynchronous commands under way
        self._async_rates = 0
        self._async_readings = 0
        #: malformed notifications that are in the books
        self._malformed = 0
        self._running = False
        self._workers: list[asyncio.Task[None]] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    async def discover(self) -> None:
        """Learn what there is to ask for, and hear of trip points."""
        agent = self._guest.agent
        self.census = Enumerator(self._guest.scmi.tx_channel, agent.in_flight, self._guest.log.error)
        served = await agent.base.protocols()
        clocks, defaults, names = {}, {}, {}
        async_rates = async_readings = 0
        if agent.clock.protocol in served:
            about = await agent.clock.attributes()
            async_rates = about.max_async
            for clock in range(about.clocks):
                names[clock] = (await agent.clock.clock_attributes(clock)).name
                rates = await agent.clock.describe_rates(clock)
                settable = list(rates.rates)
                if rates.triplet:
                    lowest, highest, step = settable
                    settable = [lowest, min(lowest + 8 * step, highest)]
                if len(set(settable)) > 1 and (rate := await self._settable(clock)) is not None:
                    clocks[clock], defaults[clock] = settable, rate
        sensors: list[Descriptor] = []
        if agent.sensor.protocol in served:
            async_readings = (await agent.sensor.attributes()).max_async
            sensors = await agent.sensor.discover()
        chased = {}
        for number, sensor in enumerate(sensors):
            if sensor.attributes_low & ATTR_TRIP_POINTS:
                chased[number] = await self._fastest(number, sensor.attributes_low & ATTR_TRIP_POINTS)
        slow = [number for number, sensor in enumerate(sensors) if sensor.attributes_low & ATTR_ASYNC]
        self._known = Known(
            await agent.base.vendor(), names, clocks, defaults, sensors, chased, slow, async_rates, async_readings
        )
        await self._sample()
        if chased:
            await agent.sensor.on_trip_point(self._tripped)

    async def _settable(self, clock: int) -> int | None:
        """The rate of a clock that we may set, found out by setting it to what it is; None of one that we may not."""
        clocks = self._guest.agent.clock
        rate = await clocks.rate_get(clock)
        try:
            await clocks.rate_set(clock, rate)
        except ScmiError:
            return None
        return rate

    def start(self) -> None:
        """Start the workers."""
        self._running = True
        spawn = asyncio.get_running_loop().create_task
        self._workers = [spawn(self._work(n), name=f"scmi vcpu {n}") for n in range(self._config.scmi_workers)]
        if self._workers:
            self._workers.append(spawn(self._chase(), name="scmi trip points"))
            if self._config.census_seconds:
                self._workers.append(spawn(self._count(), name="scmi census"))

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
        # malformed notifications reach no handler
        malformed = self._guest.agent.notifications.stats.no_report
        self.books.corrupted += malformed - self._malformed
        self._malformed = malformed
        await self._come_to_rest()

    def platform_restarted(self) -> None:
        """The platform came back; with its defaults, unless it keeps what was set."""
        if not self._guest.config.state:
            self._restarts += 1
            self._rates.clear()
        self._guest.world.spawn("scmi sample", self._sample_again())

    # --- notifications ------------------------------------------------------------------------------------------------

    async def _fastest(self, number: int, trip_points: int) -> Chased:
        """How fast the sensor can be sampled. A platform that says nothing is taken to look once a second."""
        try:
            found = (await self._guest.agent.sensor.update_intervals(number)).intervals
        except ScmiError:
            found = []
        fastest = min(found, key=_seconds, default=None)
        return Chased(number, trip_points, fastest, _seconds(fastest or (1, 0)))

    async def _sample(self) -> None:
        """Have the sensors with trip points sampled as fast as they can."""
        sensors = self._guest.agent.sensor
        assert self._known is not None
        for number, one in self._known.chased.items():
            if one.interval is None:
                continue
            flags = await sensors.config_get(number) & ((1 << CONFIG_INTERVAL_SHIFT) - 1)
            await sensors.config_set(number, flags | interval(*one.interval) << CONFIG_INTERVAL_SHIFT)

    async def _sample_again(self) -> None:
        try:
            await self._sample()
        except RingmeshError as error:
            self._guest.log.warning("slow notifications until the next restart", error=str(error))

    def _tripped(self, notification: Notification) -> None:
        """SENSOR_TRIP_POINT_EVENT: it must be about a trip point that there is."""
        assert self._known is not None
        self.books.notifications += 1
        one = self._known.chased.get(notification.source)
        if one is None or notification.report.trip_point >= one.trip_points:
            if not self.books.corrupted:  # a storm of them is said once
                self._guest.log.error("SCMI notification is wrong", payload=notification.payload.hex())
            self.books.corrupted += 1

    async def _chase(self) -> None:
        """Keep each trip point just ahead of its sensor, so that notifications keep coming.

        All guests share the platform's sensors and hear of every crossing: the more there are, the less each moves.
        """
        assert self._known is not None
        chased = self._known.chased
        pause = max([TRIP_EVERY, *(one.period * TRIP_INTERVALS for one in chased.values())]) * self._guest.config.guests
        while self._going and chased:
            for one in chased.values():
                await self._move(one)
            await asyncio.sleep(pause)

    async def _move(self, one: Chased) -> None:
        """Read the sensor and put its first trip point where it is going: two commands."""
        target: int | None = None

        async def read(poll: bool) -> bool:
            nonlocal target
            readings = await self._guest.agent.sensor.reading_get(one.number, poll=poll)
            if readings:
                target = one.ahead(readings[0].value, monotonic())
            return bool(readings)

        async def place(poll: bool) -> bool:
            assert target is not None
            await self._guest.agent.sensor.trip_point_config(one.number, 0, target, poll=poll)
            return True

        await self._do("reading", read, False)
        if target is not None:
            await self._do("trip_point", place, False)

    # --- messages of the transport ------------------------------------------------------------------------------------

    async def _count(self) -> None:
        """See again and again that no message has leaked. All guests together take no more time than one would."""
        while self._running:
            self._take_census("under load")
            await asyncio.sleep(self._config.census_seconds * self._guest.config.guests)

    def _take_census(self, when: str) -> None:
        if self.census is not None and self._config.census_seconds:
            self.census.take(when)

    async def _come_to_rest(self) -> None:
        """The last census: the transport's worker may still have a late reply to hand over."""
        if self.census is None or not self._config.census_seconds:
            return
        deadline = monotonic() + self._config.drain_seconds
        while monotonic() < deadline:
            census = self.census.take("at the end")
            if not census.pending and not census.poller:
                return
            await asyncio.sleep(DRAIN_STEP)
        self.census.take("at the end", at_rest=True)

    # --- commands -----------------------------------------------------------------------------------------------------

    @property
    def _going(self) -> bool:
        """A queue that the platform broke takes no more commands."""
        return self._running and not self._guest.scmi.tx_channel.broken

    async def _work(self, vcpu: int) -> None:
        """One vCPU: a command after the other, polled ones among them."""
        mine = self._clock_of(vcpu)
        turn = vcpu
        while self._going:
            turn += 1
            if turn % ASYNC_EVERY or not await self._do_async(turn // ASYNC_EVERY, mine):
                await self._do_next(turn, mine)
            if self._config.scmi_pause:
                await asyncio.sleep(self._config.scmi_pause)

    async def _do_next(self, turn: int, mine: int | None) -> None:
        """What there is to do at ``turn``, of the commands that answer at once."""
        known = self._known
        assert known is not None
        poll = turn & 3 < self._config.polled_of_four
        kind = turn % 5
        if kind in (1, 2) and mine is not None:
            rates = known.clocks[mine]
            rate = rates[turn % len(rates)]
            await self._do("rate_set", lambda p: self._rate_set(mine, rate, p), poll)
        elif kind == 3 and mine is not None:
            await self._do("rate_get", lambda p: self._rate_get(mine, p), poll)
        elif kind and known.sensors:
            number = turn % len(known.sensors)
            await self._do("reading", lambda p: self._reading(number, p), poll)
        elif turn & 1 and known.names:
            number = turn % len(known.names)
            await self._do("clock_name", lambda p: self._clock_name(number, p), poll)
        else:
            await self._do("vendor", self._vendor, poll)

    async def _do_async(self, turn: int, mine: int | None) -> bool:
        """An asynchronous rate change or reading, in turns. False where the platform has neither, or no room now."""
        known = self._known
        assert known is not None
        rates = mine is not None and self._async_rates < known.async_rates
        readings = bool(known.slow) and self._async_readings < known.async_readings
        if mine is not None and rates and (turn & 1 or not readings):
            settable = known.clocks[mine]
            rate = settable[turn % len(settable)]
            self._async_rates += 1
            try:
                await self._do("rate_set_async", lambda _poll: self._rate_set_async(mine, rate), False, later=True)
            finally:
                self._async_rates -= 1
        elif readings:
            number = known.slow[turn % len(known.slow)]
            self._async_readings += 1
            try:
                await self._do("reading_async", lambda _poll: self._reading_async(number), False, later=True)
            finally:
                self._async_readings -= 1
        return rates or readings

    def _clock_of(self, vcpu: int) -> int | None:
        """The clock that only this vCPU of all guests sets, so that it knows what the platform must answer. None if
        there are fewer clocks than vCPUs."""
        assert self._known is not None
        guest = self._guest
        number = int(guest.name.removeprefix("guest") or 0)
        clocks = sorted(self._known.clocks)[number :: guest.config.guests][vcpu :: self._config.scmi_workers]
        return clocks[0] if clocks else None

    async def _do(
        self, name: str, command: Callable[[bool], Awaitable[bool]], poll: bool, *, later: bool = False
    ) -> None:
        """One command in the books: sent, answered, checked. One whose result comes ``later`` takes the time that the
        platform needs for it, so it is left out of the round-trip times."""
        books, guest = self.books, self._guest
        books.sent += 1
        books.later += later
        began = monotonic()
        try:
            good = await command(poll)
        except XferTimeoutError:
            books.timed_out += 1
            self._take_census("after a time-out")
            return
        except ChannelBusyError:
            books.sent -= 1  # it never left
            books.later -= later
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
            kind = type(error).__name__
            if kind not in self._told:  # the others of its kind are counted
                self._told.add(kind)
                guest.log.error("SCMI command not answered", command=name, error=str(error))
            await asyncio.sleep(0.1)
            return
        ended = monotonic()
        if not later:
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

    async def _clock_name(self, clock: int, poll: bool) -> bool:
        assert self._known is not None
        return (await self._guest.agent.clock.clock_attributes(clock, poll=poll)).name == self._known.names[clock]

    async def _rate_set(self, clock: int, rate: int, poll: bool) -> bool:
        restarts = self._restarts
        self._rates.pop(clock, None)
        await self._guest.agent.clock.rate_set(clock, rate, poll=poll)
        self._settled(clock, rate, restarts)
        return True

    def _settled(self, clock: int, rate: int, restarts: int) -> None:
        """The platform said that ``clock`` runs at ``rate``; so it must answer from now on.

        Commands take effect in the order of the ring, so it is the last one that counts, and one that timed out leaves
        the rate unknown only until the next. An asynchronous change takes effect later: while one that timed out may
        still do, and after a restart that forgets, any of the clock's rates is right.
        """
        if restarts == self._restarts and monotonic() >= self._unsure.get(clock, 0.0):
            self._rates[clock] = rate

    async def _rate_set_async(self, clock: int, rate: int) -> bool:
        restarts = self._restarts
        self._rates.pop(clock, None)
        try:
            done = await self._guest.agent.clock.rate_set_async(clock, rate)
        except XferTimeoutError:
            # it has had that long already, or it was held up with its response
            self._unsure[clock] = monotonic() + self._config.scmi_timeout + HELD_UP
            raise
        self._settled(clock, rate, restarts)
        return done == (clock, rate)

    async def _rate_get(self, clock: int, poll: bool) -> bool:
        assert self._known is not None
        rate = await self._guest.agent.clock.rate_get(clock, poll=poll)
        want = self._rates.get(clock)
        if want is not None:
            return rate == want
        return rate == self._known.defaults[clock] or rate in self._known.clocks[clock]

    async def _reading(self, number: int, poll: bool) -> bool:
        return self._in_range(number, await self._guest.agent.sensor.reading_get(number, poll=poll))

    async def _reading_async(self, number: int) -> bool:
        return self._in_range(number, await self._guest.agent.sensor.reading_get_async(number))

    def _in_range(self, number: int, readings: list[Reading]) -> bool:
        assert self._known is not None
        limits = self._known.sensors[number].range
        return bool(readings) and (limits is None or all(limits.lowest <= r.value <= limits.highest for r in readings))


def _seconds(interval: tuple[int, int]) -> float:
    """An update interval (mantissa, exponent) in seconds."""
    return interval[0] * 10.0 ** interval[1]
