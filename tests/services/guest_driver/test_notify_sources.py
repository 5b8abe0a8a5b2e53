"""Reference counts of (event, source): who sends which command, whatever fails."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ChannelBusyError, LinkDownError, LocalError, ScmiError, XferTimeoutError
from services.guest_driver.notify_events import Event
from services.guest_driver.notify_sources import Sources
from tests.services.guest_driver.notify_bench import OTHER, SOME, VENDOR, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def parts(bench: Bench) -> tuple[Sources, Event, Event]:
    some, other = bench.events().events
    return bench.notifications.sources, some, other


async def test_the_first_enables_and_the_last_disables(bench: Bench) -> None:
    sources, some, other = parts(bench)
    assert await sources.get(VENDOR, some, (2,)) == (2,)
    assert await sources.get(VENDOR, some, range(4)) == (0, 1, 2, 3)
    assert await sources.get(VENDOR, other, (2,)) == (2,)
    assert bench.commands == [(SOME, 2, True), (SOME, 0, True), (SOME, 1, True), (SOME, 3, True), (OTHER, 2, True)]
    bench.commands.clear()
    await sources.put(VENDOR, some, (2,))
    assert bench.commands == []
    await sources.put(VENDOR, some, range(4))
    assert bench.commands == [(SOME, source, False) for source in range(4)]
    assert bench.on == {(OTHER, 2)}


async def test_all_sources_are_enabled_if_one_can_be(bench: Bench) -> None:
    sources, some, _ = parts(bench)
    for source in (0, 1, 3):
        bench.refuse(SOME, source)
    assert await sources.get(VENDOR, some, range(4)) == (2,)
    assert sources.stats.enable_failed == 3
    assert bench.logged[0][1]["refused"] == [0, 1, 3]
    await sources.put(VENDOR, some, (2,))
    assert bench.on == set()
    bench.refuse(SOME, 2)
    with pytest.raises(ScmiError, match="DENIED"):
        await sources.get(VENDOR, some, range(4))
    with pytest.raises(LocalError, match="no source"):
        await sources.get(VENDOR, some, ())


@pytest.mark.parametrize(
    "error", [LinkDownError("a", "b"), XferTimeoutError("a", 1.0), ChannelBusyError("full")], ids=type
)
async def test_what_is_no_answer_of_the_platform_ends_it(bench: Bench, error: Exception) -> None:
    """Nothing is asked for any more, and what was enabled before is disabled again."""
    sources, some, _ = parts(bench)
    bench.refused[SOME, 2] = lambda: error
    with pytest.raises(type(error)):
        await sources.get(VENDOR, some, range(4))
    assert bench.commands == [(SOME, 0, True), (SOME, 1, True), (SOME, 2, True), (SOME, 0, False), (SOME, 1, False)]
    assert bench.on == set()
    bench.refused.clear()
    await sources.get(VENDOR, some, (0,))
    assert bench.commands[-1] == (SOME, 0, True), "no reference was left behind"


async def test_a_cancelled_caller_leaves_no_reference(bench: Bench) -> None:
    sources, some, _ = parts(bench)
    task = asyncio.get_running_loop().create_task(sources.get(VENDOR, some, range(4)))
    for _ in range(20):
        if len(bench.commands) == 3:
            break
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.commands) == 3, "it does not wait for more commands"
    await sources.get(VENDOR, some, (0,))
    await sources.put(VENDOR, some, (0,))
    assert bench.commands[3:] == [(SOME, 0, True), (SOME, 0, False)]


async def test_a_failing_disable_is_counted(bench: Bench) -> None:
    sources, some, _ = parts(bench)
    await sources.get(VENDOR, some, range(4))
    bench.refuse(SOME, 1)
    bench.refused[SOME, 2] = lambda: LinkDownError("a", "b")
    await sources.put(VENDOR, some, range(4))
    assert bench.commands[4:] == [(SOME, source, False) for source in range(3)], "the link is down: nobody is asked"
    assert sources.stats.disable_failed == 3
    assert len(bench.logged) == 2


async def test_restore_enables_what_is_wanted_once(bench: Bench) -> None:
    sources, some, other = parts(bench)
    for _ in range(2):
        await sources.get(VENDOR, some, (1, 2))
    await sources.get(VENDOR, other, (3,))
    await sources.put(VENDOR, other, (3,))
    bench.commands.clear()
    bench.on.clear()
    await sources.restore()
    assert bench.commands == [(SOME, 1, True), (SOME, 2, True)]


async def test_what_could_not_be_restored_is_off_until_somebody_wants_it_or_the_next_reset(bench: Bench) -> None:
    sources, some, _ = parts(bench)
    await sources.get(VENDOR, some, range(4))
    bench.refuse(SOME, 0)
    bench.refused[SOME, 2] = lambda: LinkDownError("a", "b")
    bench.commands.clear()
    await sources.restore()
    assert bench.commands == [(SOME, 0, True), (SOME, 1, True), (SOME, 2, True)]
    assert sources.stats.restore_failed == 3
    bench.refused.clear()
    bench.commands.clear()
    await sources.get(VENDOR, some, range(4))
    assert bench.commands == [(SOME, 0, True), (SOME, 2, True), (SOME, 3, True)]
    bench.on.clear()
    await sources.restore()
    assert bench.on == {(SOME, source) for source in range(4)}
    bench.commands.clear()
    bench.refuse(SOME, 3)
    await sources.restore()
    bench.commands.clear()
    for _ in range(2):
        await sources.put(VENDOR, some, (3,))
    assert bench.commands == [], "it is off already"


@given(st.lists(st.tuples(st.booleans(), st.frozensets(st.integers(0, 3), min_size=1)), max_size=30))
def test_against_counters(steps: list[tuple[bool, frozenset[int]]]) -> None:
    """Whoever comes and goes: on at the platform is what somebody holds."""

    async def run() -> None:
        bench = Bench()
        sources, some, _ = parts(bench)
        held: list[frozenset[int]] = []
        for take, wanted in steps:
            if take:
                held.append(frozenset(await sources.get(VENDOR, some, sorted(wanted))))
            elif held:
                await sources.put(VENDOR, some, held.pop(len(wanted) % len(held)))
            assert bench.on == {(SOME, source) for one in held for source in one}

    asyncio.run(run())
