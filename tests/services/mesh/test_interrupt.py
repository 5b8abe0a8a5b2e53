"""Signals: the first asks, the second forces."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from services.mesh.interrupt import Interrupt, InterruptedRunError, first, unless


async def test_first_signal_asks_second_forces() -> None:
    forced: list[bool] = []
    interrupt = Interrupt(lambda: forced.append(True))
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await interrupt.asked.wait()
    assert not interrupt.forced.is_set()
    assert not forced
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        await interrupt.forced.wait()
    assert forced == [True]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(number)


@pytest.mark.parametrize("ignored", [False, True])
async def test_a_terminal_that_is_closed_asks_too_but_not_under_nohup(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    loop = asyncio.get_running_loop()
    try:
        interrupt = Interrupt(lambda: None)
        if not ignored:
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(5):
                await interrupt.asked.wait()
        assert loop.remove_signal_handler(signal.SIGHUP) is not ignored
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)


async def test_work_that_ends_first_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await unless(asyncio.Event(), work()) == 7


async def test_work_that_fails_first_raises_its_own_error() -> None:
    async def work() -> int:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await unless(asyncio.Event(), work())


async def test_work_is_cancelled_and_has_ended_when_the_event_wins() -> None:
    event, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            event.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(InterruptedRunError):
        await unless(event, work())
    assert ended.is_set()


async def test_waiting_ends_after_the_timeout() -> None:
    event = asyncio.Event()
    async with asyncio.timeout(5):
        await first(None, event, timeout=0.01)
    assert not event.is_set()
