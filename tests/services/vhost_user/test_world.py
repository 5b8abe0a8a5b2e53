"""The world with fences: what its fences are, and that nothing else of it changed."""

from __future__ import annotations

from common.runtime.world import AsyncWorld
from services.vhost_user.fence import full_fence
from services.vhost_user.world import FencedWorld


def test_every_fence_is_the_machines() -> None:
    world = FencedWorld()
    assert world.wmb is world.rmb is world.mb is full_fence()
    assert AsyncWorld().mb is None, "other worlds pay nothing"


async def test_actors_that_fail_are_told_of() -> None:
    failed: list[str] = []
    world = FencedWorld(on_failure=lambda name, _error: failed.append(name), clock=lambda: 7.0)

    async def fails() -> None:
        raise ValueError

    world.spawn("one", fails())
    await world.event().wait(0)
    await world.close()
    assert failed == ["one"]
    assert world.clock() == 7.0
