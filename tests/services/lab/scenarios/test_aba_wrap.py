"""aba-wrap: the scenario's own claims, the fast-forward, and the brute force over abstract ring states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from common.runtime.world import AsyncWorld
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.aba_wrap import (
    CYCLES,
    SCENARIO,
    SIZE,
    STARTS,
    AvailCounter,
    Index16,
    Message,
    Rig,
    UsedWraps,
    fast_forward,
)
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld

DRIVERS = (SplitDriver, Index16, AvailCounter, UsedWraps)


@pytest.mark.parametrize("variant", SCENARIO.variants, ids=lambda v: v.name)
def test_expected_without_preemption(variant: Any) -> None:
    """The losing schedules need no preemption; the declared budget (one) is run by `lab run`."""
    result = explore(variant.build, Settings(preemptions=0))
    assert result.verdict == variant.expect, result
    if variant.expect == "fails":
        assert result.failure is not None
        assert result.failure.kind == "deadlock"
        assert "waits in relax(), until a change of used.idx" in result.failure.detail
        run = replay(variant.build, result.schedule, 2000).run
        assert run.failure == result.failure
    else:
        assert result.exhaustive


def test_the_page_shows_what_the_tool_prints() -> None:
    variant = SCENARIO.variant("index16")
    result = explore(variant.build, variant.settings)
    page = (Path(__file__).resolve().parents[4] / "docs" / "races" / "aba-wrap.md").read_text(encoding="utf-8")
    assert ladder(replay(variant.build, result.schedule, 2000)) in page


def test_shipped_under_preemption() -> None:
    """A slice of the declared budget; the whole of it is too long for a test."""
    result = explore(SCENARIO.variant("shipped").build, Settings(preemptions=1, runs=3000))
    assert result.verdict == "holds"


def test_the_lab_runs_the_classes_that_services_run() -> None:
    world = LabWorld(Run(Replay([]), 100))
    memory = world.memory(0x1000)
    for cls, args in ((SplitDriver, {}), (SplitDevice, {"check": False})):
        made = world.new(cls, world, memory, SplitLayout.packed_at(0, 4), **args)
        assert isinstance(made, cls)
        functions = [n for n, f in vars(cls).items() if callable(f) and n != "__class__"]
        assert len(functions) > 8
        for name in functions:
            assert getattr(type(made), name) is getattr(cls, name), name


@pytest.mark.parametrize("cls", [Index16, AvailCounter, UsedWraps])
def test_variants_override_only_what_differs(cls: type[SplitDriver]) -> None:
    own = {n for n in vars(cls) if callable(getattr(cls, n))} - {"__init__"}
    allowed = {"snapshot", "poll"} | ({"_publish"} if cls is AvailCounter else set())
    assert own - allowed <= ({"get_buf"} if cls is UsedWraps else set())


def state(rig: Rig) -> dict[str, Any]:
    """Everything that the two halves and the ring hold."""
    found: dict[str, Any] = {}
    for name, half in (("driver", rig.driver), ("device", rig.device)):
        for cls in type(half).__mro__:
            for field in cls.__dict__.get("__slots__", ()):
                if field in ("lab_name", "lab_run"):
                    continue
                value: Any = getattr(half, field, None)
                if hasattr(value, "items") and not isinstance(value, dict):
                    value = list(value.items)
                if isinstance(value, int | list | type(None)):
                    found[f"{name}.{field}"] = value
    memory: Any = rig.driver._memory
    found["memory"] = memory._plain.regions[0].data.tobytes()
    found["held"] = list(rig.held)
    return found


def rig_of(cls: type[SplitDriver], start: int, pending: str) -> tuple[Rig, Message]:
    """A ring with a command in flight: at the device, or used and not yet dequeued."""
    world = LabWorld(Run(Replay([]), 100))
    rig = world.new(Rig, world, cls, start)
    message = world.new(Message, "own")
    rig.send(message)
    if pending == "held":
        rig.fetch()
    elif pending == "used":
        rig.complete()
    return rig, message


def assert_same(cls: type[SplitDriver], start: int, pending: str, cycles: int) -> None:
    fast, fast_message = rig_of(cls, start, pending)
    slow, slow_message = rig_of(cls, start, pending)
    fast_forward(fast, cycles)
    for _ in range(cycles):
        slow.cycle()
    a, b = state(fast), state(slow)
    tokens_a, tokens_b = a.pop("driver.tokens"), b.pop("driver.tokens")
    assert a == b
    assert [t is not None for t in tokens_a] == [t is not None for t in tokens_b]
    assert fast_message.done == slow_message.done


@pytest.mark.parametrize("cls", DRIVERS)
@pytest.mark.parametrize("pending", ["added", "held", "used"])
def test_fast_forward_equals_real_cycles(cls: type[SplitDriver], pending: str) -> None:
    for start, cycles in product((0, 3, 0xFFF0, 0xFFFE, 0xFFFF), (0, 1, 2, SIZE, SIZE + 1, SIZE + 2, 37)):
        assert_same(cls, start, pending, cycles)


@pytest.mark.parametrize("cls", DRIVERS)
def test_fast_forward_equals_a_full_turn(cls: type[SplitDriver]) -> None:
    assert_same(cls, 0xFFFF, "held", CYCLES[1])


def test_starts_and_cycles_are_around_the_wrap() -> None:
    assert STARTS == (0xFFFF, 0)
    assert CYCLES == (65534, 65535, 65536, 65537)


def test_the_rig_runs_on_asyncio() -> None:
    """One algorithm, two worlds: the same coroutines, driven by the services' world."""

    async def main() -> bool:
        world: Any = AsyncWorld()
        rig = world.new(Rig, world, SplitDriver, 0xFFFF)
        own, other = Message("own"), Message("other")
        rig.send(own)
        await asyncio.wait_for(asyncio.gather(rig.poll_for(own), rig.transact(other), rig.serve(2)), 10)
        return bool(rig.driver.in_flight == 0)

    assert asyncio.run(main())


# --- brute force over abstract states, modulus 16, queue 4 -------------------------------------------------------

MODULUS = 16
QUEUE = 4
#: how far the consumed count runs: three turns of the index
HORIZON = 3 * MODULUS

State = tuple[int, int, int]
"""Full counts: consumed, used, made available."""


def states(low: int, high: int) -> Iterator[State]:
    for consumed in range(low, high):
        for waiting in range(QUEUE + 1):
            for open_ in range(QUEUE + 1 - waiting):
                yield consumed, consumed + waiting, consumed + waiting + open_


Look = Callable[[State, State], bool]
"""Does a poll in the second state, with a snapshot of the first, say that there is something new?"""


def index_only(then: State, now: State) -> bool:
    return then[0] % MODULUS != now[1] % MODULUS


def avail_counter(then: State, now: State) -> bool:
    return then[2] // MODULUS != now[2] // MODULUS or index_only(then, now)


def used_counter(then: State, now: State) -> bool:
    return then[0] // MODULUS != now[0] // MODULUS or index_only(then, now)


def full_count(then: State, now: State) -> bool:
    return then[0] != now[0] or now[0] % MODULUS != now[1] % MODULUS


def missed(look: Look, waiting_only: bool = False) -> int:
    """Pairs of states where something was used since the snapshot (or: waits in the ring) and the poll denies it."""
    count = 0
    later = list(states(0, HORIZON))
    for then in states(0, MODULUS):
        for now in later:
            if any(n < t for t, n in zip(then, now, strict=True)) or now[1] == then[0]:
                continue
            if (now[1] > now[0] or not waiting_only) and not look(then, now):
                count += 1
    return count


def test_misses_of_each_guard() -> None:
    assert [missed(look) for look in (index_only, avail_counter, used_counter, full_count)] == [7500, 356, 300, 0]


def test_misses_that_leave_a_reply_in_the_ring() -> None:
    assert [missed(look, True) for look in (index_only, avail_counter, used_counter, full_count)] == [5100, 271, 300, 0]


def reads(order: str) -> int:
    """Polls whose two reads see two different states, and that deny what had been used when used->idx was read."""
    wrong = 0
    for first in states(0, MODULUS):
        for second in states(first[0], first[0] + MODULUS + QUEUE + 1):
            if any(b < a for a, b in zip(first, second, strict=True)):
                continue
            index, count = (first[1], second[0]) if order == "index first" else (second[1], first[0])
            at_index = first if order == "index first" else second
            for snapshot in range(max(0, first[0] - MODULUS), first[0] + 1):
                says_new = count != snapshot or index % MODULUS != count % MODULUS
                wrong += not says_new and at_index[1] > snapshot
    return wrong


def test_order_of_the_two_reads() -> None:
    assert reads("index first") == 0
    assert reads("count first") > 0
