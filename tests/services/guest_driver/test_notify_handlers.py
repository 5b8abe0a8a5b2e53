"""Chains of handlers: whom they call, in which order, and what one that fails does to the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BackpressureError
from common.runtime.world import AsyncWorld
from services.guest_driver import notify_handlers
from services.guest_driver.notify_events import ALL_SOURCES, Notification, source_key
from services.guest_driver.notify_handlers import Handlers
from tests.services.guest_driver.notify_bench import Ears
from tests.services.guest_driver.scmi_loop import quiet


def make(log: Callable[..., None] = quiet) -> Handlers:
    world = AsyncWorld()
    return world.new(Handlers, world, log)


def about(source: int, event: int = 1) -> Notification:
    return Notification(0x15, event, source, 0, None, b"")


ALL, THREE = source_key(0x15, 1, ALL_SOURCES), source_key(0x15, 1, 3)


def test_all_sources_first_then_this_one_each_in_order() -> None:
    handlers, ears = make(), Ears()
    for key, name in ((THREE, "a"), (ALL, "b"), (THREE, "c"), (ALL, "d")):
        handlers.add(key, ears.named(name))
    assert handlers.call(about(3)) == (4, 0)
    assert [name for name, _ in ears.take()] == ["b", "d", "a", "c"]
    assert handlers.call(about(4)) == (2, 0)
    assert [name for name, _ in ears.take()] == ["b", "d"]
    assert handlers.call(about(3, event=2)) == (0, 0)


def test_one_that_raises_is_logged_and_skipped() -> None:
    logged: list[str] = []
    handlers, ears = make(lambda event, **fields: logged.append(f"{event} {fields}")), Ears()

    def bad(_notification: Notification) -> None:
        raise ValueError("a broken driver")

    handlers.add(ALL, bad)
    handlers.add(ALL, ears.named("a"))
    assert handlers.call(about(3)) == (2, 1)
    assert ears.take() == [("a", 3)]
    assert "a broken driver" in logged[0]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([ALL, THREE]), st.sampled_from("abc")), max_size=40))
def test_add_and_remove_against_lists(steps: list[tuple[bool, int, str]]) -> None:
    handlers, ears = make(), Ears()
    named = {name: ears.named(name) for name in "abc"}
    model: dict[int, list[str]] = {ALL: [], THREE: []}
    for add, key, name in steps:
        if add:
            handlers.add(key, named[name])
            model[key].append(name)
        else:
            assert handlers.remove(key, named[name]) == (name in model[key])
            if name in model[key]:
                model[key].remove(name)
        assert [key in handlers for key in model] == [bool(chain) for chain in model.values()]
        assert set(handlers.wanted()) == {key for key, chain in model.items() if chain}
    handlers.call(about(3))
    assert [name for name, _ in ears.take()] == model[ALL] + model[THREE]
    assert handlers.take(ALL) == tuple(named[name] for name in model[ALL])
    assert handlers.take(ALL) == ()


def test_they_are_bounded() -> None:
    handlers = make()
    for _ in range(notify_handlers.MAX_HANDLERS):
        handlers.add(ALL, lambda _n: None)
    with pytest.raises(BackpressureError, match="256"):
        handlers.add(ALL, lambda _n: None)
    handlers.add(THREE, lambda _n: None)
