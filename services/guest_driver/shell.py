"""The guest as a service: some guests, their workloads, and the routes that start and stop them.

The routes under ``/tracing`` are described in :mod:`services.guest_driver.tracing`, ``/holds`` and ``/map`` in
:mod:`services.guest_driver.hold_routes`, those under ``/its`` in :mod:`services.guest_driver.its_routes`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import ConfigError, RemoteError, RingmeshError
from common.pcap import read_frames
from common.runtime.clock import monotonic
from common.runtime.service import Service
from common.virtio.net_header import MAX_ETHERNET
from services.guest_driver.config import GuestConfig
from services.guest_driver.guest import Guest
from services.guest_driver.guest_nic import memory_needed
from services.guest_driver.hold_routes import Held, HoldRequest, HoldRoutes, MapRequest
from services.guest_driver.its_routes import ItsRoutes, RestoreRequest, SaveRequest, Vmm
from services.guest_driver.net import queue_names
from services.guest_driver.net_ledger import TRAILER_BYTES
from services.guest_driver.scmi_census import PLACES
from services.guest_driver.scmi_driver import CMDQ, EVENTQ
from services.guest_driver.tracing import Tracing, TracingRequest
from services.guest_driver.workload import Workload, books

#: Queues of the SCMI device by name in metrics.
SCMI_QUEUES = {"cmdq": CMDQ, "eventq": EVENTQ}

#: Bytes of guest memory that everything but the NIC takes: the ITS's tables before all.
OTHER_MEMORY = 1 << 20


class GuestService(Service[GuestConfig]):
    """``ringmesh serve guest``."""

    role = "guest"
    patient_links = True

    def __init__(self, config: GuestConfig) -> None:
        super().__init__(config)
        self.guests: list[Guest] = []
        self.loads: list[Workload] = []
        self._up = False
        needed = OTHER_MEMORY + memory_needed(config.net_pairs, config.net_queue_size)
        if needed > config.memory_mib << 20:
            reason = f"{config.net_pairs} queue pairs of {config.net_queue_size} entries need {-(-needed >> 20)} MiB"
            raise ConfigError("memory_mib", str(config.memory_mib), reason)
        if config.workload.net == "switch" and config.guests < 2:
            raise ConfigError("guests", str(config.guests), "a switch joins two guests or more (workload.net = switch)")
        path = config.workload.pcap
        try:
            with Path(path).open("rb") as file:
                # unless the NIC plays the capture itself, each frame that is sent has a trailer behind it
                spare = TRAILER_BYTES if config.workload.net != "replay" else 0
                self._frames = read_frames(file, MAX_ETHERNET - spare)
        except (OSError, RemoteError) as error:
            raise ConfigError(path, "workload.pcap", str(error)) from error

    async def start(self) -> None:
        self.admin.get("/report", lambda: books(self.loads))
        self.admin.post("/workload/start", self._start_load)
        self.admin.post("/workload/stop", self._stop_load)
        names = (*SCMI_QUEUES, *queue_names(self.config.net_pairs))
        waits = {name: self.metrics.queue(name, partial(self._depth, name)) for name in names}
        for number in range(self.config.guests):
            guest = Guest(f"guest{number}", self, waits)
            self.guests.append(guest)
            self.loads.append(Workload(guest, self.config.workload, self._frames))
        for number, load in enumerate(self.loads):
            load.join(self.loads[(number + 1) % len(self.loads)])
        self._serve_tracing()
        self._serve_holds()
        self._serve_its()
        self.ready_when("guests are not up", lambda: self._up)
        self._measure()
        self.world.spawn("bring-up", self._bring_up())

    async def _bring_up(self) -> None:
        await asyncio.gather(*(guest.start() for guest in self.guests))
        for load in self.loads:
            await load.prepare()
            agent = load.guest.agent
            self.metrics.counters_of("scmi", "SCMI agent", agent.stats, guest=load.guest.name)
            self.metrics.gauge(
                "ringmesh_scmi_xfers_inflight",
                "SCMI agent: transactions that somebody waits for.",
                fn=lambda agent=agent: agent.xfers_inflight,  # type: ignore[misc]
                guest=load.guest.name,
            )
            self._measure_notifications(load.guest)
            self._measure_messages(load)
            self._measure_pairs(load)
        self._up = True
        self.log.info("guests are up", guests=len(self.guests))
        if self.config.workload.autostart:
            await self._start_load({})

    async def drain(self) -> None:
        await asyncio.gather(*(load.stop() for load in self.loads if load.running))

    async def stop(self) -> None:
        for guest in self.guests:
            await guest.stop()

    # --- the workload -------------------------------------------------------------------------------------------------

    async def _start_load(self, _body: Any) -> dict[str, Any]:
        if not self._up:
            raise RemoteError("workload", None, None, "the guests are not up yet")
        for load in self.loads:
            load.start()
        return {"guests": len(self.loads)}

    async def _stop_load(self, _body: Any) -> dict[str, Any]:
        try:
            await asyncio.gather(*(load.stop() for load in self.loads))
        except RingmeshError as error:
            self.log.error("workload failed", error=str(error))
            raise
        return books(self.loads)

    # --- tracing ------------------------------------------------------------------------------------------------------

    def _serve_tracing(self) -> None:
        tracing = Tracing({guest.name: guest.agent for guest in self.guests}, monotonic)
        self.admin.get("/tracing", tracing.state)
        self.admin.post("/tracing", tracing.switch, TracingRequest)
        self.admin.get("/tracing/trace", tracing.trace, guarded=True)
        self.admin.post("/tracing/pipe", lambda _body: tracing.pipe())
        self.metrics.counters_of("scmi_trace", "Trace of the SCMI agents", tracing.ring.stats)

    def _serve_holds(self) -> None:
        held = {}
        for load in self.loads:
            nic = load.guest.nic
            held[load.guest.name] = Held(nic.port, load.net, nic.vmm.change_map, load.net.pairs)
        routes = HoldRoutes(held, lambda: self._up)
        self.admin.get("/holds", routes.state)
        self.admin.post("/holds", routes.arm, HoldRequest)
        self.admin.post("/map", routes.change_map, MapRequest)

    def _serve_its(self) -> None:
        vmms = {guest.name: Vmm(guest.its_link.vmm.save, guest.restore_its) for guest in self.guests}
        routes = ItsRoutes(vmms, lambda: self._up)
        self.admin.get("/its/dump", routes.dump, guarded=True)
        self.admin.post("/its/save", routes.save, SaveRequest)
        self.admin.post("/its/restore", routes.restore, RestoreRequest)

    # --- metrics ------------------------------------------------------------------------------------------------------

    def _depth(self, name: str) -> float:
        """Chains of the queue that the device holds, all guests together."""
        total = 0.0
        for guest in self.guests:
            port, index = (
                (guest.scmi_port, SCMI_QUEUES[name])
                if name in SCMI_QUEUES
                else (guest.nic_port, guest.nic.index_of(name))
            )
            if index is not None:
                queue = port.queues[index]
                total += queue.depth.read(len(queue.in_flight))
        return total

    def _measure_messages(self, load: Workload) -> None:
        """Where the messages of the SCMI transport are. All gauges of a scrape are read in one turn of the loop."""
        enumerator, name = load.scmi.census, load.guest.name
        assert enumerator is not None
        self.metrics.counters_of("scmi_census", "Censuses of the SCMI transport", enumerator.stats, guest=name)
        for place in PLACES:
            self.metrics.gauge(
                "ringmesh_scmi_messages",
                "Messages of the SCMI transport by where they are.",
                fn=lambda place=place: getattr(enumerator.take("at a scrape"), place),  # type: ignore[misc]
                guest=name,
                state=place,
            )
        self.metrics.gauge(
            "ringmesh_scmi_max_msg",
            "Messages that the SCMI transport has in all.",
            fn=lambda: load.guest.scmi.tx_channel.max_msg,
            guest=name,
        )

    def _measure_pairs(self, load: Workload) -> None:
        """What driver and books count, by queue pair; and the DIMMs."""
        nic, name = load.guest.nic, load.guest.name
        for pair, ledger in zip(nic.net.pairs, load.net.ledgers, strict=True):
            labels = {"guest": name, "pair": str(pair.index)}
            self.metrics.counters_of("net", "Network driver's books", ledger, **labels)
            self.metrics.counters_of("net_pair", "Network driver", pair.stats, **labels)
        self.metrics.counters_of("hotplug", "Memory hotplug", nic.hotplug.stats, guest=name)
        self.metrics.counters_of("vq_state", "Indices compared with the NIC's", nic.indices, guest=name)

    def _measure_notifications(self, guest: Guest) -> None:
        notifications = guest.agent.notifications
        for text, stats in (("delivery", notifications.stats), ("commands", notifications.sources.stats)):
            self.metrics.counters_of("scmi_notify", f"SCMI notifications, {text}", stats, guest=guest.name)
        for protocol in notifications.queues:
            queue, name = notifications.queues[protocol], f"{protocol:#x}"
            self.metrics.counters_of(
                "scmi_events", "Queue of SCMI notifications", queue.stats, guest=guest.name, protocol=name
            )

    def _measure(self) -> None:
        for load in self.loads:
            guest = load.guest
            for device, port in (("scmi", guest.scmi_port), ("nic", guest.nic_port)):
                self.metrics.counters_of("port", "Port of a device", port.stats, guest=guest.name, device=device)
            for name in guest.nic.names:
                self.metrics.gauge(
                    "ringmesh_vdpa_stranded_buffers",
                    "Buffers that the driver made available, not fetched, with no kick remembered for them.",
                    fn=partial(guest.nic.stranded, name),
                    guest=guest.name,
                    queue=name,
                )
            self.metrics.counters_of("guest_nic", "Network driver", guest.nic.stats, guest=guest.name)
            self.metrics.counters_of("its_driver", "ITS driver", guest.its.stats, guest=guest.name)
            self.metrics.counters_of("its_link", "Link to the ITS", guest.its_link.stats, guest=guest.name)
