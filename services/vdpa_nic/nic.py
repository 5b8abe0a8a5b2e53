"""The NIC of a guest of the mesh: virtio-net (:class:`NicCore`) as a vDPA device."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final

from common.virtio.features import DeviceId, net_unmet
from common.virtio.vdpa_ops import Phase, Refusal
from common.wire.messages import Chain, Notice
from services.vdpa_nic import core, vdpa
from services.vdpa_nic.address_space import AddressSpaces
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.core import NicCore, offered, queue_sizes
from services.vdpa_nic.net_state import NetState
from services.vdpa_nic.vdpa import VdpaDevice

#: What virtio-net offers here, and what a vDPA device adds.
FEATURES: Final = core.FEATURES | vdpa.FEATURES

#: Queue groups: queues of one share an address space (mlx5 and vdpa_sim_net part them so).
DATA_GROUP: Final = 0
CTRL_GROUP: Final = 1
GROUPS: Final = 2
#: Address spaces that a NIC has: one a group.
ASIDS: Final = 2
#: Mappings that one address space may have.
MAX_MAPPINGS: Final = 1024


class NicDevice(VdpaDevice):
    """The NIC of one guest, plugged into ``backend``. ``mac``, ``max_pairs`` and ``mtu`` are
    :class:`NetState`'s, the rest :class:`VdpaDevice`'s."""

    device_id = DeviceId.NET

    def __init__(
        self, backend: Backend, *, queue_size: int, mac: bytes, max_pairs: int = 1, mtu: int = 1500, **kwargs: Any
    ) -> None:
        super().__init__(
            offered=offered(max_pairs) | vdpa.FEATURES,
            queue_sizes=list(queue_sizes(max_pairs, queue_size)),
            spaces=AddressSpaces(ASIDS, GROUPS, MAX_MAPPINGS),
            **kwargs,
        )
        state = NetState(mac=mac, max_pairs=max_pairs, mtu=mtu, changed=self._config_changed)
        self.core: Final = NicCore(
            self, backend, state, queue_size=queue_size, clock=self.clock, log=self.log, observe=self.observe
        )
        #: transmit queues before receive queues: a packet whose reception the driver has seen must not be transmitted
        #: again if this NIC dies in between
        self._flush_order: Final = sorted(self.queues, key=lambda queue: not queue.index & 1)
        self.config += state.config(self.offered)

    def _config_changed(self) -> None:
        self.config[:] = self.core.state.config(self.offered)
        self.send(Notice("config", f"generation {self.core.state.generation}"))

    def op_get_generation(self) -> int:
        return self.core.state.generation

    def op_set_driver_features(self, features: int) -> None:
        """§2.2: a subset of what was offered, with VERSION_1 and what each feature requires (§5.1.3.1)."""
        for feature, group in net_unmet(features).items():
            lacks = " or ".join(required.name for required in group)
            raise Refusal(errno.EINVAL, f"features {features:#x}: {feature.name} requires {lacks}")
        super().op_set_driver_features(features)

    def op_set_status(self, status: int) -> int:
        before = self.phase
        stands = super().op_set_status(status)
        if before == Phase.FEATURES and self.phase in (Phase.SETUP, Phase.RUNNING):
            self.core.negotiated(self.features)
        return stands

    def op_set_vq_num(self, index: int, size: int) -> None:
        super().op_set_vq_num(index, size)
        self.core.check_size(index, size)

    def group_of(self, queue: int) -> int:
        ctrl = self.core.ctrl_queue if self.core.ctrl_queue >= 0 else 2 * self.core.state.max_pairs
        return CTRL_GROUP if queue == ctrl else DATA_GROUP

    # --- traffic ------------------------------------------------------------------------------------------------------

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        self.core.on_chains(queue, chains)

    def batch_end(self) -> None:
        if not self.awaited:
            self.core.work()
            self.send_answers()

    def send_answers(self) -> None:
        sent = 0
        for queue in self._flush_order:
            if queue.batch:
                sent += queue.flush()
        self.stats.used += sent

    def tick(self, now: float) -> None:
        if self.core.tick(now):
            self.batch_end()

    def stop_queue(self, queue: int) -> Sequence[int]:
        return self.core.on_stop(queue)

    def finish_in_flight(self) -> None:
        self.core.finish()

    def flow(self, on: bool) -> None:
        self.core.paused = not on
        if on:
            self.batch_end()

    def on_reset(self) -> None:
        self.core.on_reset()
        super().on_reset()
