"""The control queue's two ends on one ring: the driver here, the device's ring half and its Control there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CallError, LocalError, MemoryFaultError, RingError
from common.memory import GuestMemory, MappedMemory, Mapping, MemoryKey, MemoryMap
from common.runtime.world import AsyncEvent, AsyncWorld
from common.virtio.features import DESC_F_WRITE, Feature
from common.virtio.net_ctrl import CtrlClass, RxCommand, VlanCommand
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.guest_driver.net_ctrl import CTRL_AREA_BYTES, CTRL_DATA_MAX, NetCtrl
from services.vdpa_nic.ctrl import Control
from services.vdpa_nic.net_state import NetState
from tests.common.virtio.ringkit import PROFILE
from tests.services.vdpa_nic.test_ctrl import ALL, GROUP, MAC, OTHER

SIZE = 4
IOVA = 1 << 32
AREA = 0x4000
#: The hang guard of a wait that must end.
GUARD = 30


class Bench:
    """``prompt``: the device answers at the doorbell, and interrupts; otherwise when the test says so."""

    def __init__(
        self, world: AsyncWorld, *, poll: bool = False, event_idx: bool = True, prompt: bool = True, features: int = -1
    ) -> None:
        self.world = world
        self.prompt = prompt
        memory = GuestMemory(1 << 16)
        # the device sees nothing but what the map shows it, by IOVA
        key = MemoryKey(MemoryMap([Mapping(IOVA, 1 << 16, 0)]), 1)
        self.seen = MappedMemory(memory, key)
        layout = SplitLayout.packed_at(0x1000, SIZE)
        self.ring = SplitDriver(world, memory, layout, event_idx=event_idx)
        moved = SplitLayout(layout.size, *(at + IOVA for at in (layout.desc, layout.driver, layout.device)))
        self.device = SplitDevice(world, self.seen, moved, event_idx=event_idx)
        self.bells = 0
        self.interrupts = 0
        #: data of the commands that the device had, and their chains' segments
        self.had: list[bytes] = []
        self.segments: list[Any] = []
        self.ctrl = world.new(
            NetCtrl, world, memory, self.ring, AREA, IOVA, self.doorbell, features=features, poll=poll
        )
        self.restart()

    def restart(self) -> None:
        """The device lost its memory; the ring stands where it stood."""
        self.state = NetState(mac=MAC, max_pairs=4)
        self.state.negotiated(ALL)
        self.control = Control(self.state, ALL, on_pairs=lambda _: None, log=lambda *_, **__: None)

    def doorbell(self) -> None:
        self.bells += 1
        if self.prompt:
            self.serve()

    def serve(self, answer: int | None = None) -> None:
        """Carry out what is in the ring; ``answer`` instead, if given."""
        for head, segments, readable in self.device.pop_batch(SIZE):
            self.segments.append(segments)
            assert readable == len(segments) - 1
            data = b"".join(self.seen.read(addr, length) for addr, length, _ in segments[:readable])
            self.had.append(data)
            addr, length, flags = segments[-1]
            assert (length, flags & DESC_F_WRITE) == (1, DESC_F_WRITE)
            self.seen.write(addr, bytes([self.control.handle(data) if answer is None else answer]))
            self.device.push(head, 1)
        self.device.arm_notify()
        if self.device.need_interrupt():
            self.interrupts += 1
            self.ctrl.ctrl_callback()


Make = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    world = AsyncWorld()
    yield lambda **how: Bench(world, **how)
    await world.close()


async def guarded(what: Awaitable[Any]) -> Any:
    async with asyncio.timeout(GUARD):
        return await what


async def everything(ctrl: NetCtrl) -> None:
    await ctrl.set_rx_mode(RxCommand.PROMISC, False)
    await ctrl.set_rx_mode(RxCommand.ALLMULTI, True)
    await ctrl.set_mac(OTHER)
    await ctrl.set_mac_table([MAC], [GROUP])
    await ctrl.vlan_add(5)
    await ctrl.vlan_add(6)
    await ctrl.vlan_del(5)
    await ctrl.set_pairs(3)
    await ctrl.set_guest_offloads(0)
    await ctrl.announce_ack()


def stands(state: NetState) -> dict[str, Any]:
    names = ("promisc", "allmulti", "mac", "unicast", "multicast", "pairs", "guest_offloads")
    return {name: getattr(state, name) for name in names} | {"vlans": {v for v, on in enumerate(state.vlans) if on}}


SET = {
    "promisc": False,
    "allmulti": True,
    "mac": OTHER,
    "unicast": {MAC},
    "multicast": {GROUP},
    "pairs": 3,
    "guest_offloads": 0,
    "vlans": {6},
}

WAYS = pytest.mark.parametrize(
    "way", [{"poll": poll, "event_idx": event_idx} for poll in (False, True) for event_idx in (False, True)]
)


@WAYS
async def test_everything_is_set(make: Make, way: dict[str, bool]) -> None:
    bench = make(**way)
    await guarded(everything(bench.ctrl))
    assert stands(bench.state) == SET
    assert (bench.ctrl.commands, bench.ctrl.refused) == (10, 0)
    assert bench.control.stats.ctrl_commands == bench.bells == 10
    assert bench.ring.in_flight == 0


async def test_to_the_byte(make: Make) -> None:
    """Class and command in a descriptor of their own, as Linux has it; no descriptor for no data (§5.1.6.5)."""
    bench = make()
    await guarded(bench.ctrl.vlan_add(0x123))
    await guarded(bench.ctrl.announce_ack())
    assert bench.had == [b"\2\0\x23\x01", b"\3\0"]
    assert [[(length, bool(flags & DESC_F_WRITE)) for _, length, flags in chain] for chain in bench.segments] == [
        [(2, False), (2, False), (1, True)],
        [(2, False), (1, True)],
    ]
    low, high = AREA + IOVA, AREA + IOVA + CTRL_AREA_BYTES
    assert all(low <= addr < high for chain in bench.segments for addr, _, _ in chain)


@WAYS
async def test_a_command_waits_for_its_answer(make: Make, way: dict[str, bool]) -> None:
    bench = make(**way)
    await guarded(bench.ctrl.set_pairs(1))  # a device interrupts for the first buffer of all
    bench.bells = bench.interrupts = 0
    bench.prompt = False
    task = asyncio.create_task(bench.ctrl.set_pairs(2))
    await asyncio.sleep(0)
    bench.ctrl.ctrl_callback()  # an interrupt for nothing
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    assert bench.bells == 1
    bench.serve()
    await guarded(task)
    assert bench.interrupts == (0 if way["poll"] else 1), "a driver that polls asks for none"


async def test_one_command_at_a_time(make: Make) -> None:
    bench = make(prompt=False)
    tasks = [asyncio.create_task(bench.ctrl.vlan_add(n)) for n in range(6)]
    for n in range(6):
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.bells == n + 1
        bench.serve()
    await guarded(asyncio.gather(*tasks))
    assert [data[2] for data in bench.had] == list(range(6))


@pytest.mark.parametrize("answer", [1, 2, 0xFF])
async def test_any_other_answer_is_an_error(make: Make, answer: int) -> None:
    bench = make(prompt=False)
    task = asyncio.create_task(bench.ctrl.set_pairs(2))
    await asyncio.sleep(0)
    bench.serve(answer)
    with pytest.raises(CallError, match=rf"MQ\.VQ_PAIRS_SET.*answered {answer}") as caught:
        await guarded(task)
    assert caught.value.errno == 22
    assert (bench.ctrl.commands, bench.ctrl.refused) == (1, 1)
    bench.prompt = True
    await guarded(bench.ctrl.restore())
    assert bench.ctrl.commands == 1, "what was refused is not remembered"
    await guarded(bench.ctrl.set_pairs(4))
    assert bench.state.pairs == 4


async def test_a_stale_answer_is_not_taken_for_a_new_one(make: Make) -> None:
    bench = make()
    await guarded(bench.ctrl.set_pairs(2))
    bench.prompt = False
    task = asyncio.create_task(bench.ctrl.set_pairs(3))
    await asyncio.sleep(0)
    ((head, _, _),) = bench.device.pop_batch(1)
    bench.device.push(head, 0)  # used, and nothing written
    bench.ctrl.ctrl_callback()
    with pytest.raises(CallError, match="answered 255"):
        await guarded(task)


async def test_local_misuse(make: Make) -> None:
    bench = make(features=ALL & ~Feature.NET_MQ.bit)
    with pytest.raises(LocalError, match=r"MQ\.VQ_PAIRS_SET: NET_MQ is not negotiated"):
        await bench.ctrl.set_pairs(2)
    with pytest.raises(LocalError, match="at most"):
        await bench.ctrl.command(CtrlClass.MAC, 0, bytes(CTRL_DATA_MAX + 1))
    assert bench.bells == 0
    with pytest.raises(CallError):
        await guarded(bench.ctrl.command(CtrlClass.MAC, 0, bytes(CTRL_DATA_MAX)))
    assert len(bench.had[0]) == 2 + CTRL_DATA_MAX
    memory = GuestMemory(1 << 14)
    ring = SplitDriver(bench.world, memory, SplitLayout.packed_at(0x1000, SIZE))
    with pytest.raises(MemoryFaultError):
        NetCtrl(bench.world, memory, ring, (1 << 14) - 64, 0, bench.doorbell)
    small = SplitDriver(bench.world, memory, SplitLayout.packed_at(0x1000, 2))
    with pytest.raises(LocalError, match="3 of them"):
        NetCtrl(bench.world, memory, small, 0x2000, 0, bench.doorbell)


async def test_no_doorbell_for_a_device_that_looks_by_itself(make: Make) -> None:
    bench = make(event_idx=False)
    bench.device.disable_notify()
    task = asyncio.create_task(bench.ctrl.set_pairs(2))
    await asyncio.sleep(0)
    bench.serve()
    await guarded(task)
    assert bench.bells == 0


class LateEvent(AsyncEvent):
    """Something happens just when the driver goes to sleep: after its last look, before it asks for interrupts."""

    late: Callable[[], None] | None = None

    def clear(self) -> None:
        if self.late is not None:
            self.late()
        super().clear()


class LateWorld(AsyncWorld):
    def event(self) -> LateEvent:
        return LateEvent(self)


@pytest.mark.parametrize("what", ["answer", "abort"])
async def test_nothing_is_missed_on_the_way_to_sleep(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    bench = Bench(LateWorld(), prompt=False)
    late: Callable[[], None] = bench.serve if what == "answer" else bench.ctrl.abort
    monkeypatch.setattr(LateEvent, "late", staticmethod(late))
    if what == "answer":
        await guarded(bench.ctrl.set_pairs(2))
        assert bench.state.pairs == 2
    else:
        with pytest.raises(RingError):
            await guarded(bench.ctrl.set_pairs(2))
    await bench.world.close()


# --- a device that restarts -------------------------------------------------------------------------------------------


async def test_restore(make: Make) -> None:
    bench = make()
    await guarded(everything(bench.ctrl))
    bench.restart()
    bench.had.clear()
    await guarded(bench.ctrl.restore())
    assert stands(bench.state) == SET
    assert [(data[0], data[1]) for data in bench.had] == [(1, 1), (1, 0), (2, 0), (4, 0), (5, 0), (0, 1), (0, 0)]
    assert bench.had[-1] == bytes([CtrlClass.RX, RxCommand.PROMISC, 0]), "until then nothing is filtered"


async def test_nothing_to_restore(make: Make) -> None:
    bench = make()
    await guarded(bench.ctrl.restore())
    assert bench.bells == 0


async def test_a_command_in_flight_is_remembered_when_it_is_answered(make: Make) -> None:
    """The restarted device fetches it again; whoever restores waits for it, and whoever comes later waits for that."""
    bench = make(prompt=False)
    first = asyncio.create_task(bench.ctrl.vlan_add(1))
    await asyncio.sleep(0)
    bench.restart()
    restoring = asyncio.create_task(bench.ctrl.restore())
    await asyncio.sleep(0)
    later = asyncio.create_task(bench.ctrl.vlan_del(1))
    for _ in range(10):
        await asyncio.sleep(0)
    for _ in range(3):
        bench.serve()
        for _ in range(5):
            await asyncio.sleep(0)
    await guarded(asyncio.gather(first, restoring, later))
    assert [data[:2] for data in bench.had] == [b"\2\0", b"\2\0", b"\2\1"]
    assert not any(bench.state.vlans)
    bench.had.clear()
    await guarded(bench.ctrl.restore())
    assert bench.had == []


async def test_restore_goes_on_after_a_refusal(make: Make) -> None:
    bench = make()
    await guarded(everything(bench.ctrl))
    bench.restart()
    bench.state.negotiated(ALL & ~Feature.NET_CTRL_VLAN.bit)
    bench.control = Control(
        bench.state, bench.state.features & ~Feature.NET_MQ.bit, on_pairs=lambda _: None, log=lambda *_, **__: None
    )
    with pytest.raises(CallError, match=r"VLAN\.ADD"):
        await guarded(bench.ctrl.restore())
    assert stands(bench.state) == SET | {"vlans": set(), "pairs": 1}


async def test_odd_commands_are_not_remembered(make: Make) -> None:
    bench = make(prompt=False)
    for data in ((9, 9, b"x"), (CtrlClass.VLAN, VlanCommand.ADD, b"\1"), (CtrlClass.ANNOUNCE, 0, b"")):
        task = asyncio.create_task(bench.ctrl.command(*data))
        await asyncio.sleep(0)
        bench.serve(0)  # a device that says yes to all
        await guarded(task)
    await guarded(bench.ctrl.restore())
    assert len(bench.had) == 3


@PROFILE
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("vlan_add"), st.integers(0, 3)),
            st.tuples(st.just("vlan_del"), st.integers(0, 3)),
            st.tuples(st.just("set_rx_mode"), st.sampled_from(RxCommand), st.booleans()),
            st.tuples(st.just("set_pairs"), st.integers(0, 5)),
            st.tuples(st.just("set_mac"), st.sampled_from([OTHER, GROUP])),
            st.tuples(st.just("set_mac_table"), st.just([OTHER]), st.lists(st.just(GROUP), max_size=2)),
            st.tuples(st.just("set_guest_offloads"), st.integers(0, 3)),
            st.tuples(st.just("announce_ack")),
        ),
        max_size=20,
    )
)
def test_what_is_restored_is_what_stood(commands: list[Any]) -> None:
    async def both() -> None:
        bench = Bench(AsyncWorld())
        for name, *args in commands:
            try:
                await getattr(bench.ctrl, name)(*args)
            except CallError:
                pass
        before, modes = stands(bench.state), [getattr(bench.state, mode.name.lower()) for mode in RxCommand]
        bench.restart()
        await bench.ctrl.restore()
        assert stands(bench.state) == before
        assert [getattr(bench.state, mode.name.lower()) for mode in RxCommand] == modes

    asyncio.run(both())


# --- a queue that is gone ---------------------------------------------------------------------------------------------


@WAYS
async def test_abort(make: Make, way: dict[str, bool]) -> None:
    bench = make(prompt=False, **way)
    waiting = asyncio.create_task(bench.ctrl.set_pairs(2))
    await asyncio.sleep(0)
    bench.ctrl.abort()
    with pytest.raises(RingError, match="broken"):
        await guarded(waiting)
    with pytest.raises(RingError, match="broken"):
        await guarded(bench.ctrl.announce_ack())
    assert bench.ctrl.commands == 0


async def test_a_device_that_lies_breaks_the_queue(make: Make) -> None:
    bench = make(prompt=False)
    task = asyncio.create_task(bench.ctrl.set_pairs(2))
    await asyncio.sleep(0)
    bench.device.push(3, 1)  # no head in flight
    bench.ctrl.ctrl_callback()
    with pytest.raises(RingError, match=r"used\.id"):
        await guarded(task)
