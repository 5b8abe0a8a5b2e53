"""``map-under-dma``: a memory map is taken away from a device that is writing.

When ``set_map`` has returned, a VMM gives the memory that is mapped no more to somebody else. A device that writes
there afterwards destroys what is not its own. Here the IOVAs of a bank come to mean another bank; the VMM writes a
pattern into the old one when it has its answer, and the pattern must stay.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from common.errors import MemoryFaultError
from common.wire.messages import Chain, DestroyMkey, Return, Used
from common.world import Event
from services.guest_driver.port import Port
from services.lab.scenario import Build, Scenario, Settings, Variant, register
from services.lab.scenarios.vdpa_rig import DIMM, FIRST, PLUGGED, Classes, Device, Input, Rig, build, either, in_order
from services.lab.world import LabWorld
from services.vdpa_nic.changes import Changes
from services.vdpa_nic.map_change import Event as Step

#: where the bank's IOVAs lead to after the change
OTHER: Final = (0x9000, 0x100)
MOVED: Final = (*FIRST, (*DIMM, OTHER[0], 3))
PATTERN: Final = b"\xee" * 16

MOVE: Final = Input("the bank moves", (("set_map", 0, MOVED),), buffers=1, sent=1, first=PLUGGED)
#: the guest resets its device, and the VMM takes everything away
TAKEN: Final = Input(
    "everything is taken away", (("set_status", 0), ("reset_map", 0)), buffers=1, sent=1, first=PLUGGED
)


class Bench(Rig):
    """The rig with a VMM that has a use for the old bank. Buffers lie in the bank."""

    __slots__ = ("returned_to_vmm",)

    returned_to_vmm: Final[Event]

    def __init__(self, world: LabWorld, given: Input, port: type[Port]) -> None:
        super().__init__(world, given, port)
        self.memory.add_region(*OTHER)
        self.returned_to_vmm = world.event()
        world.called(self.returned_to_vmm, "set_map returned")
        world.label(self.memory, DIMM[0], "old bank")
        world.label(self.memory, OTHER[0], "new bank")

    def buffer(self, number: int) -> int:
        return DIMM[0] + 8 * number

    def start(self, device: Device) -> None:
        super().start(device)
        self.returned_to_vmm.clear()  # of the first map

    def actors(self, device: Device) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [*super().actors(device), ("vmm", self.reuse())]

    async def reuse(self) -> None:
        """When the VMM has its answer it gives the bank to somebody else."""
        await self.returned_to_vmm.wait()
        self.memory.write(DIMM[0], PATTERN)

    def answered(self) -> None:
        self.returned_to_vmm.set()


class Reset(Bench):
    """With a guest that resets its device, and so waits for no buffer."""

    __slots__ = ()

    async def take_back(self) -> None:
        """The driver needs nothing any more."""

    def returned(self, message: Return) -> None:
        """The reset is done."""

    def served(self, device: Device) -> bool:
        return device.answered == 1


class Writer(Device):
    """Writes into what it is given as soon as it comes, also while the queue is being stopped."""

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        for head, _, _ in chains:
            self.complete(head)

    def complete(self, head: int) -> None:
        self.done += 1
        self.queues[0].complete(head, b"\x11" * 8)


class _LiveSwap(Changes):
    """No queue is stopped: those that stand go on under the key that they hold."""

    def suspend_vqs(self) -> None:
        self.machine.waiting.clear()

    def save_channels_info(self) -> None:
        """Nothing has stopped."""

    def teardown_vqs(self) -> None:
        """Nothing has stopped."""


class LiveSwap(Writer):
    """The new key is for queue objects that are made from now on."""

    changes_class = _LiveSwap


class _NoWait(Changes):
    """The key is taken for made, and all before it for done, when the port has been told."""

    def create_mkey(self) -> None:
        super().create_mkey()
        self.machine.event(Step.MKEY_CREATED)


class NoWait(Writer):
    """``set_map`` returns before the port has carried out what it was sent."""

    changes_class = _NoWait


class _AtOnce(Changes):
    """There is no key of an empty map, so nobody is asked for one."""

    def create_mkey(self) -> None:
        now = self._changing()
        assert now.map is not None
        if now.map.mappings:
            super().create_mkey()
        else:
            self.machine.event(Step.MKEY_CREATED)

    def put_in_force(self) -> None:
        now = self._changing()
        assert now.map is not None
        self.device.spaces.commit(now.asid, now.map)
        if now.key is None:
            self.keys.pop(now.asid)
        else:
            self.keys[now.asid] = now.key


class AtOnce(Writer):
    """``reset_map`` returns at once, as it did here."""

    changes_class = _AtOnce


class _KeyFirst(Changes):
    """The old key goes when the queues have been told to stop."""

    def suspend_vqs(self) -> None:
        super().suspend_vqs()
        if self.device.queues[0].live:
            self.device.send(DestroyMkey(self.keys[0].generation))


class KeyFirst(Writer):
    """Answers that are under way find no key."""

    changes_class = _KeyFirst


class StrictPort(Port):
    """Hardware that looks its key up at every access."""

    __slots__ = ()

    def _used(self, message: Used) -> None:
        queue = self._queue(message.queue)
        if queue.ring is not None and self.keys.get(queue.generation) is None:
            self._break(queue, MemoryFaultError("generation", queue.generation, None, "no such key", kind="stale_key"))
        else:
            super()._used(message)


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)


def untouched(rig: Rig) -> str | None:
    """The final check: what the VMM wrote into the old bank is there."""
    found = rig.memory.read(DIMM[0], len(PATTERN))
    return None if found == PATTERN else f"the VMM had been given the bank, and the device wrote {found.hex()}"


def _both(rig: Rig) -> str | None:
    return untouched(rig) or in_order(rig)


def _build(device: type[Device], port: type[Port] = Port) -> Build:
    return build((MOVE,), Classes(port=port, device=device, rig=Bench), _both)


def _taken(device: type[Device], port: type[Port] = Port) -> Build:
    return build((TAKEN,), Classes(port=port, device=device, rig=Reset), untouched)


SCENARIO: Final = register(
    Scenario(
        name="map-under-dma",
        thread="Re: PATCH 1/2 vdpa/mlx5: Avoid unnecessary query virtqueue (Si-Wei Liu, February 2021)",
        about="a change of map while the device writes under the old key",
        variants=(
            Variant("live-swap", "fails", _build(LiveSwap), "queues go on under the key that they hold", BUDGET),
            Variant("no-wait", "fails", _build(NoWait), "set_map returns before the hardware has caught up", BUDGET),
            Variant("key-first", "fails", _build(KeyFirst, StrictPort), "the old key goes before the answers", BUDGET),
            Variant("at-once", "fails", _taken(AtOnce), "taking everything away waits for nobody", BUDGET),
            Variant(
                "strict",
                "holds",
                either(_build(Writer, StrictPort), _taken(Writer, StrictPort)),
                "shipped, over hardware that needs the key",
                BUDGET,
            ),
            Variant(
                "shipped",
                "holds",
                either(_build(Writer), _taken(Writer)),
                "stop, save, tear down, then the key",
                BUDGET,
            ),
        ),
    )
)
