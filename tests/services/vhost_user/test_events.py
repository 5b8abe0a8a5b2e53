"""Event descriptors on a real loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from services.vhost_user.events import LoopEvents


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield made
    os.close(made)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_signal_is_heard_and_taken(fd: int) -> None:
    events, heard = LoopEvents(), asyncio.Event()
    events.watch(fd, heard.set)
    for _ in range(2):
        events.signal(fd)
        events.signal(fd)
        await asyncio.wait_for(heard.wait(), 30)
        heard.clear()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
    await turns()
    assert not heard.is_set()
    events.unwatch(fd)
    events.signal(fd)
    await turns()
    assert not heard.is_set()
    events.unwatch(fd)


async def test_a_signal_that_another_took_is_none(fd: int) -> None:
    heard: list[int] = []
    LoopEvents._signalled(fd, lambda: heard.append(1))
    assert not heard


def test_a_count_that_is_full_is_a_signal_already(fd: int) -> None:
    os.eventfd_write(fd, 2**64 - 2)
    LoopEvents().signal(fd)
    assert os.eventfd_read(fd) == 2**64 - 2


async def test_soon_is_not_now() -> None:
    done: list[int] = []
    LoopEvents().soon(lambda: done.append(1))
    assert not done
    await turns()
    assert done
