"""The default workload of a guest, and the books that the report is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from common.errors import RingmeshError
from common.histogram import Histogram
from common.runtime.clock import monotonic
from common.virtio.features import Feature
from common.virtio.net_ctrl import RxCommand
from services.guest_driver.config import WorkloadConfig
from services.guest_driver.guest import Guest
from services.guest_driver.hotplug import UnplugBusyError
from services.guest_driver.net_ctrl import NetCtrl
from services.guest_driver.net_load import NetLoad
from services.guest_driver.scmi_driver import CMDQ
from services.guest_driver.scmi_work import ScmiWork
from services.guest_driver.switch_load import SwitchLoad

#: Seconds between two looks while draining.
DRAIN_STEP: Final = 0.01
#: Seconds before what failed is tried again, at least.
RETRY: Final = 0.02


class Workload:
    """SCMI commands, network frames, memory-map changes and ITS commands of one guest, all at once."""

    def __init__(self, guest: Guest, config: WorkloadConfig, frames: list[bytes]) -> None:
        self.guest: Final = guest
        self.config: Final = config
        self.scmi: Final = ScmiWork(guest, config)
        self.net: Final = (
            SwitchLoad(guest.nic, config, frames, _nanoseconds, spawn=guest.world.spawn, sleep=asyncio.sleep)
            if config.net == "switch"
            else NetLoad(guest.nic, config, frames, _nanoseconds)
        )
        self.running = False
        self._stopped: Final = guest.world.event()
        self._tasks: list[asyncio.Task[None]] = []
        #: a command is under way on the control queue
        self._commanding = False
        self._allmulti = False
        #: settled by stop()
        self.lost_frames = 0
        guest.on_scmi_restart = self.scmi.platform_restarted

    async def prepare(self) -> None:
        """What must be known before load: the platform's clocks and sensors; what the NIC must be told."""
        await self.scmi.discover()
        await self.net.prepare()

    def join(self, to: Workload) -> None:
        """Send frames to ``to``, where a switch joins the guests."""
        if isinstance(self.net, SwitchLoad) and isinstance(to.net, SwitchLoad):
            self.net.join(to.net)

    def start(self) -> None:
        """Begin."""
        if self.running:
            return
        self.running = True
        self._stopped.clear()
        self.scmi.start()
        self.net.start()
        spawn = asyncio.get_running_loop().create_task
        config = self.config
        if config.map_seconds:
            self._tasks.append(spawn(self._every(config.map_seconds, self._change_map)))
        if config.inv_seconds:
            self._tasks.append(spawn(self._every(config.inv_seconds, self.guest.inv)))
        if config.affinity_seconds:
            self._tasks.append(spawn(self._every(config.affinity_seconds, self.guest.balance)))

    async def stop(self) -> None:
        """Send no more, wait for what is in flight, settle the books; raises what a task of the load died of."""
        self.running = self.net.running = False
        self._stopped.set()
        tasks, self._tasks = self._tasks, []
        if tasks:
            await asyncio.wait(tasks)
        await self.scmi.stop()
        deadline = monotonic() + self.config.drain_seconds
        while monotonic() < deadline and not self._drained():  # noqa: ASYNC110  (many things end it)
            await asyncio.sleep(DRAIN_STEP)
        self.lost_frames = self.net.close()
        for task in tasks:
            task.result()

    def _drained(self) -> bool:
        return not self.net.outstanding and self.guest.vcpus.settled()

    async def _every(self, seconds: float, action: Any) -> None:
        """``action()`` again and again; a device that is restarting just now is no error."""
        put_off = 0
        # a stop shall not wait for a long interval to end
        while not await self._stopped.wait(max(seconds, RETRY) if put_off else seconds):
            try:
                await action()
            except UnplugBusyError:
                pass  # counted; traffic needs longer, or the device is away
            except RingmeshError as error:
                put_off += 1
                if put_off == 1:
                    self.guest.log.warning("put off until the device is back", error=str(error))
            else:
                put_off = 0

    async def _change_map(self) -> None:
        """A DIMM comes or goes; then NIC and port are to agree on where the queues stand."""
        nic = self.guest.nic
        await nic.hotplug.change()
        await nic.check_indices()
        self._say_something()

    def _say_something(self) -> None:
        """A command on the control queue, unless one is under way: a receive mode that changes nothing is set or not,
        as the NIC is promiscuous."""
        nic = self.guest.nic
        ctrl = nic.ctrl if nic.bus.features & Feature.NET_CTRL_RX.bit else None
        if ctrl is not None and not self._commanding:
            self._commanding = True
            self.guest.world.spawn("receive mode", self._set_rx_mode(ctrl))

    async def _set_rx_mode(self, ctrl: NetCtrl) -> None:
        try:
            self._allmulti = not self._allmulti
            await ctrl.set_rx_mode(RxCommand.ALLMULTI, self._allmulti)
        except RingmeshError as error:
            self.guest.log.error("receive mode not set", error=str(error))
        finally:
            self._commanding = False


def _nanoseconds() -> int:
    return int(monotonic() * 1e9)


def _micros(histogram: Histogram) -> dict[str, float]:
    """What the report says of a latency, in µs."""
    if not histogram.count:
        return {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    quantiles = {f"p{q}": round(histogram.quantile(q / 100) * 1e6, 1) for q in (50, 90, 99)}
    return quantiles | {"max": round(histogram.max * 1e6, 1)}


def books(loads: Iterable[Workload]) -> dict[str, Any]:
    """The guest's part of the report, all guests together. Complete once every load has stopped."""
    scmi: dict[str, Any] = dict.fromkeys(
        ("sent", "completed", "polled", "notifications", "timed_out", "re_executed", "refused_after_reset", "lost",
         "duplicated", "corrupted"), 0,
    )  # fmt: skip
    net: dict[str, Any] = dict.fromkeys(
        ("tx", "rx", "re_executed", "reset_dropped", "lost", "duplicated", "corrupted", "map_changes"), 0
    )
    irq: dict[str, Any] = dict.fromkeys(("raised", "delivered", "coalesced", "lost", "duplicated", "corrupted"), 0)
    scmi_rtt, net_rtt, latency, commands = Histogram(), Histogram(), Histogram(), 0
    for load in loads:
        guest = load.guest
        book, agent = load.scmi.books, guest.agent.stats
        for key in ("sent", "completed", "polled", "notifications", "timed_out", "refused_after_reset"):
            scmi[key] += getattr(book, key)
        again = guest.scmi_port.queues[CMDQ].again_sent
        # what ended with its delayed response lost had been answered: it was not sent again
        scmi["re_executed"] += max(0, again - book.refused_after_reset + agent.delayed_response_reset)
        if not load.running:
            scmi["lost"] += book.sent - book.completed - book.timed_out
        # a late answer is the first one all the same, and a delayed response may overtake its response
        doubled = agent.err_msg_unexpected - agent.err_msg_late
        invalid = agent.err_msg_invalid - agent.err_msg_overtaken
        if guest.config.faults.delayed_twice:
            # second copies come by the platform's settings; the agent drops them before its response's waiter has run
            # (invalid) or after (unexpected)
            doubled, invalid = max(0, doubled + invalid - book.later), 0
        scmi["duplicated"] += doubled
        scmi["corrupted"] += book.corrupted + invalid
        if load.scmi.census is not None:
            # a message of the transport that is lost, or in two places, will carry a wrong command sooner or later
            scmi["corrupted"] += load.scmi.census.stats.violations
        scmi_rtt.merge(book.rtt)
        ledger = load.net
        for key in ("tx", "rx", "re_executed", "reset_dropped", "duplicated", "corrupted"):
            net[key] += ledger.total(key)
        # frames out of turn, and indices on which NIC and port did not agree
        net["corrupted"] += ledger.total("reordered") + guest.nic.indices.wrong
        net["lost"] += load.lost_frames
        net["map_changes"] += guest.nic.vmm.changes
        net_rtt.merge(ledger.rtt)
        line = guest.vcpus.close()
        for key in irq:
            irq[key] += getattr(line, key)
        if load.running:
            irq["coalesced"], irq["lost"] = irq["coalesced"] + irq["lost"], 0
        latency.merge(guest.irq_latency)
        commands += guest.its.stats.commands
    return {
        "scmi": scmi | {"rtt_us": _micros(scmi_rtt)},
        "net": net | {"rtt_us": _micros(net_rtt)},
        "irq": irq | {"latency_us": _micros(latency)},
        "its": {"commands": commands},
    }
