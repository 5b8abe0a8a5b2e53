"""Transactions end to end: agent, channel, ring, port, device, platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from common.errors import (
    ChannelBusyError,
    LinkDownError,
    LocalError,
    PollingUnsupportedError,
    RingError,
    ScmiError,
    XferTimeoutError,
)
from common.memory import GuestMemory
from common.scmi import clock, header
from common.scmi.status import ProtocolId, Status
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.guest_driver.layout import Layout
from services.guest_driver.scmi_virtio import TxChannel
from tests.services.guest_driver.scmi_loop import CMDQ, EVENTQ, Loop, reply, turns

CLOCK, SENSOR = ProtocolId.CLOCK.value, ProtocolId.SENSOR.value
GET = clock.Command.CLOCK_RATE_GET.value


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    made = Loop()
    await made.start()
    yield made
    await made.world.close()


def spawn(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coro)


def rate_get(loop: Loop, clock_id: int = 0, **kwargs: Any) -> Coroutine[Any, Any, bytes]:
    return loop.agent.do_xfer(CLOCK, GET, clock_id.to_bytes(4, "little"), expect=8, **kwargs)


# --- the two ways to wait ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [False, True])
async def test_a_command_gets_its_reply(loop: Loop, poll: bool) -> None:
    assert await loop.run(rate_get(loop, poll=poll)) == (300).to_bytes(8, "little")
    stats = loop.agent.stats
    assert stats.sent_ok == 1
    assert (stats.response_ok, stats.response_polled_ok) == ((0, 1) if poll else (1, 0))
    assert loop.agent.xfers_inflight == 0
    assert not loop.agent.in_flight
    loop.accounted()


async def test_a_polled_command_needs_no_interrupt(loop: Loop) -> None:
    loop.interrupts = False
    assert await loop.run(rate_get(loop, poll=True)) == (300).to_bytes(8, "little")
    loop.accounted()


async def test_the_interrupt_may_bring_a_polled_reply(loop: Loop) -> None:
    task = spawn(rate_get(loop, poll=True))
    await turns()
    assert loop.device_turn()
    loop.port.frame(loop.to_guest.popleft())
    loop.device_turn()
    assert loop.irq_turn()  # before the polling loop looks again
    loop.world.stir()
    assert await task == (300).to_bytes(8, "little")
    assert loop.agent.stats.response_polled_ok == 1
    assert loop.agent.stats.response_ok == 0
    loop.accounted()


async def test_a_status_is_an_error_that_names_the_command(loop: Loop) -> None:
    with pytest.raises(ScmiError, match="CLOCK_RATE_GET") as raised:
        await loop.run(rate_get(loop, 99))
    assert raised.value.status == Status.NOT_FOUND
    assert loop.agent.stats.err_protocol == 1
    loop.accounted()


async def test_the_reply_is_cut_to_what_was_expected(loop: Loop) -> None:
    got = await loop.run(loop.agent.do_xfer(CLOCK, GET, bytes(4), expect=3))
    assert got == (300).to_bytes(8, "little")[:3]
    assert loop.core.stats.truncated == 1


async def test_mixed_and_many(loop: Loop) -> None:
    """More senders than messages: some wait their turn by being told that the channel is busy."""

    async def sender(number: int) -> None:
        for turn in range(20):
            while True:
                try:
                    got = await rate_get(loop, 0, poll=(number + turn) % 2 == 0)
                    break
                except ChannelBusyError:
                    await asyncio.sleep(0)
            assert got == (300).to_bytes(8, "little")
            loop.accounted()

    await loop.run(asyncio.gather(*(sender(n) for n in range(12))))
    stats = loop.agent.stats
    assert stats.sent_ok == 240 == stats.response_ok + stats.response_polled_ok
    assert stats.err_msg_unexpected == stats.err_msg_invalid == 0
    assert len(loop.tx.free_list) == loop.tx.max_msg


async def test_replies_out_of_order(loop: Loop) -> None:
    loop.core.holding = True
    tasks = [spawn(rate_get(loop, n, poll=n % 2 == 1)) for n in (0, 1, 3)]
    await turns()
    while loop.device_turn():
        pass
    for at in (2, 0, 0):
        loop.core.let_go(at)
        loop.device.batch_end()
        loop.settle()
        await turns()
    assert [int.from_bytes(task.result(), "little") for task in tasks] == [300, 1500, 10]
    loop.accounted()


async def test_busy_when_all_messages_are_in_flight(loop: Loop) -> None:
    loop.core.holding = True
    tasks = [spawn(rate_get(loop, poll=n % 2 == 0)) for n in range(8)]
    await turns()
    with pytest.raises(ChannelBusyError):
        await rate_get(loop)
    with pytest.raises(ChannelBusyError):
        await rate_get(loop, poll=True)
    assert loop.agent.stats.sent_fail == 2
    assert loop.agent.xfers_inflight == 8
    loop.accounted()
    loop.settle()
    for _ in range(8):
        loop.core.let_go()
    loop.device.batch_end()
    await loop.run(asyncio.gather(*tasks))
    loop.accounted()


async def test_the_smallest_ring_takes_one_command_at_a_time() -> None:
    loop = Loop(size=2)
    assert loop.tx.max_msg == 1
    await loop.start()
    both = asyncio.gather(rate_get(loop, poll=True), rate_get(loop), return_exceptions=True)
    polled, busy = await loop.run(both)
    assert polled == (300).to_bytes(8, "little")
    assert isinstance(busy, ChannelBusyError)
    for poll in (False, True, False):
        assert await loop.run(rate_get(loop, poll=poll)) == (300).to_bytes(8, "little")
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, poll=True, timeout=0.01)
    with pytest.raises(ChannelBusyError):
        await rate_get(loop)  # the platform still owns the one message
    loop.settle()
    assert await loop.run(rate_get(loop, poll=True)) == (300).to_bytes(8, "little")
    loop.accounted()
    async with asyncio.timeout(20):
        await loop.close()


async def test_a_message_that_is_too_long_is_our_own_mistake(loop: Loop) -> None:
    for payload, expect in ((bytes(129), 0), (b"", 129)):
        with pytest.raises(LocalError, match="128 at most"):
            await loop.agent.do_xfer(CLOCK, GET, payload, expect=expect)
    with pytest.raises(LocalError, match="no SCMI command"):
        await loop.agent.do_xfer(CLOCK, 256)
    assert not loop.agent.in_flight
    loop.accounted()


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_tokens_go_up_and_skip_those_in_flight(loop: Loop) -> None:
    loop.core.holding = True
    held = spawn(rate_get(loop))
    await turns()
    loop.settle()
    loop.core.holding = False
    agent = loop.agent
    assert list(agent.in_flight) == [0]
    for _ in range(header.TOKENS - 1):
        await loop.run(rate_get(loop, poll=True))
    assert agent._next_id == header.TOKENS
    await loop.run(rate_get(loop))  # 0 is still taken
    assert agent._next_id == header.TOKENS + 2
    loop.core.let_go()
    loop.device.batch_end()
    await loop.run(held)
    assert not agent.in_flight


async def test_when_every_token_is_owed_the_oldest_is_given_up(loop: Loop) -> None:
    agent = loop.agent
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, timeout=0.0)
    first = agent.in_flight[0]
    for token in range(1, header.TOKENS):
        agent.in_flight[token] = first  # as many that time-outs left behind
    assert await loop.run(rate_get(loop, poll=True))
    assert len(agent.in_flight) == header.TOKENS - 1
    first.state = 0
    agent.in_flight[0] = first
    with pytest.raises(ChannelBusyError, match="tokens"):
        await rate_get(loop)


# --- time-outs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [False, True])
async def test_a_late_reply_frees_what_a_time_out_left(loop: Loop, poll: bool) -> None:
    with pytest.raises(XferTimeoutError, match="CLOCK_RATE_GET"):
        await rate_get(loop, poll=poll, timeout=0.01)
    stats = loop.agent.stats
    assert (stats.xfers_response_timeout, stats.xfers_response_polled_timeout) == ((0, 1) if poll else (1, 0))
    assert loop.agent.xfers_inflight == 0
    assert list(loop.agent.in_flight) == [0], "the platform still owes the reply: its token stays taken"
    assert len(loop.tx.free_list) == loop.tx.max_msg - 1
    loop.accounted()
    loop.settle()
    await turns()
    assert (stats.err_msg_unexpected, stats.err_msg_late) == (1, 1)
    assert not loop.agent.in_flight
    assert len(loop.tx.free_list) == loop.tx.max_msg
    loop.accounted()


@pytest.mark.parametrize("late_polled", [False, True])
async def test_a_late_reply_that_another_polling_loop_dequeues_goes_to_the_worker(
    loop: Loop, late_polled: bool
) -> None:
    loop.interrupts = False
    loop.core.holding = True
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, poll=late_polled, timeout=0.01)
    task = spawn(rate_get(loop, 1, poll=True))
    await turns()
    loop.settle()
    loop.core.let_go(0)
    loop.core.let_go(0)
    loop.device.batch_end()
    assert await loop.run(task) == (1500).to_bytes(8, "little")
    await turns()
    assert loop.agent.stats.err_msg_unexpected == 1
    assert not loop.agent.in_flight
    assert len(loop.tx.free_list) == loop.tx.max_msg
    loop.accounted()


async def test_a_reply_that_another_loop_dequeued_as_time_ran_out_is_taken(loop: Loop) -> None:
    """Polled message marked POLL_DONE by another loop, its own poller not run since: not lost, not timed out."""
    loop.interrupts = False
    loop.core.holding = True
    first, second = spawn(rate_get(loop, 0, poll=True)), spawn(rate_get(loop, 1, poll=True))
    await turns()
    loop.settle()
    loop.core.let_go(1)
    loop.core.let_go(0)
    loop.device.batch_end()
    assert list(await loop.run(asyncio.gather(first, second))) == [
        (300).to_bytes(8, "little"),
        (1500).to_bytes(8, "little"),
    ]
    loop.accounted()


async def test_a_polling_loop_hands_others_replies_to_the_worker(loop: Loop) -> None:
    """No interrupt at all: the sleeper is woken by the deferred worker."""
    loop.interrupts = False
    sleeper, poller = spawn(rate_get(loop, 0)), spawn(rate_get(loop, 1, poll=True))
    assert list(await loop.run(asyncio.gather(sleeper, poller))) == [
        (300).to_bytes(8, "little"),
        (1500).to_bytes(8, "little"),
    ]
    assert loop.agent.stats.response_ok == 1
    loop.accounted()


# --- what the platform may get wrong ----------------------------------------------------------------------------------


async def answered_with(loop: Loop, *answers: bytes) -> asyncio.Task[Any]:
    """Send one command; have the device answer its chain, and then inject further messages on the eventq."""
    loop.core.holding = True
    task = spawn(rate_get(loop, timeout=0.05))
    await turns()
    loop.settle()
    head, _, _ = loop.core.held.pop()
    loop.device.queues[CMDQ].complete(head, answers[0])
    for answer in answers[1:]:
        event, _ = loop.core.buffers.popleft()
        loop.device.queues[EVENTQ].complete(event, answer)
    loop.device.batch_end()
    loop.settle()
    await turns()
    return task


REQUEST = header.command(CLOCK, GET)


async def test_a_chain_that_comes_back_empty_fails_its_command(loop: Loop) -> None:
    task = await answered_with(loop, b"")
    with pytest.raises(ScmiError) as raised:
        await task
    assert raised.value.status == Status.PROTOCOL_ERROR
    assert loop.agent.stats.err_msg_invalid == 1
    loop.accounted()


async def test_a_reply_without_a_status(loop: Loop) -> None:
    task = await answered_with(loop, REQUEST[:4])
    with pytest.raises(ScmiError):
        await task
    assert loop.agent.stats.err_msg_invalid == 1


@pytest.mark.parametrize(
    ("word", "counter"),
    [
        (header.pack(CLOCK, GET, 7), "err_msg_unexpected"),
        (header.pack(CLOCK, GET + 1, 0), "err_msg_invalid"),
        (header.pack(CLOCK, GET, 0, 1), "err_msg_invalid"),
        (header.pack(CLOCK, GET, 0, header.DELAYED_RESPONSE), "err_msg_invalid"),
    ],
)
async def test_a_reply_under_another_header(loop: Loop, word: int, counter: str) -> None:
    task = await answered_with(loop, header.HEADER.pack(word) + bytes(12))
    with pytest.raises(XferTimeoutError):
        await task
    assert getattr(loop.agent.stats, counter) == 1
    loop.accounted()


async def test_a_second_reply_is_not_delivered(loop: Loop) -> None:
    task = await answered_with(loop, reply(REQUEST, bytes(8)), reply(REQUEST, b"\xff" * 8))
    assert await task == bytes(8)
    assert loop.agent.stats.err_msg_unexpected + loop.agent.stats.err_msg_invalid == 1
    assert (loop.agent.stats.err_msg_late, loop.agent.stats.err_msg_overtaken) == (0, 0), "nobody owed it"


async def test_a_polled_reply_under_another_header(loop: Loop) -> None:
    loop.core.holding = True
    loop.interrupts = False
    task = spawn(rate_get(loop, poll=True))
    await turns()
    loop.settle()
    head, _, _ = loop.core.held.pop()
    loop.device.queues[CMDQ].complete(head, header.HEADER.pack(header.pack(CLOCK, GET, 9)) + bytes(12))
    loop.device.batch_end()
    with pytest.raises(ScmiError) as raised:
        await loop.run(task)
    assert raised.value.status == Status.PROTOCOL_ERROR
    assert loop.agent.stats.err_msg_invalid == 1
    loop.accounted()


async def test_a_broken_ring_ends_the_wait(loop: Loop) -> None:
    task = spawn(rate_get(loop, poll=True))
    await turns()
    used = loop.memory.view(loop.layouts[CMDQ].device, 2, "H")
    used[1] = 999
    loop.world.stir()
    with pytest.raises(RingError, match=r"used\.idx"):
        await task
    with pytest.raises(RingError):
        await rate_get(loop)
    assert loop.agent.stats.sent_fail == 1
    assert loop.agent.xfers_inflight == 0


@pytest.mark.parametrize("delayed", [False, True])
async def test_a_polled_command_that_was_complete_before_the_ring_broke(loop: Loop, delayed: bool) -> None:
    """The interrupt, or the delayed response, had ended the wait; the loop has not run since."""
    loop.core.holding = True
    task = spawn(reading_later_polled(loop) if delayed else rate_get(loop, poll=True))
    await turns()
    loop.settle()
    word = int.from_bytes(loop.core.held[0][1][:4], "little")
    if delayed:
        loop.agent.responses.delayed_response(
            header.as_delayed(word), header.HEADER.pack(header.as_delayed(word)) + bytes(4) + b"late"
        )
    else:
        loop.core.let_go()
        loop.device.batch_end()
        loop.settle()
    loop.memory.view(loop.layouts[CMDQ].device, 2, "H")[1] = 999
    with pytest.raises(RingError):
        loop.tx.complete_cb()
    loop.world.stir()
    assert await task == (b"late" if delayed else (300).to_bytes(8, "little"))
    assert loop.agent.xfers_inflight == 0


async def test_a_broken_ring_that_the_worker_finds_ends_every_wait(loop: Loop) -> None:
    loop.core.holding = True
    tasks = [spawn(rate_get(loop)), spawn(rate_get(loop, poll=True)), spawn(reading_later(loop))]
    await turns()
    loop.settle()
    loop.memory.view(loop.layouts[CMDQ].device, 2, "H")[1] = 999
    for _ in range(2):
        loop.workqueue.queue_work(loop.tx.deferred_tx_work)
        await turns()
    async with asyncio.timeout(5):
        results = await loop.run(asyncio.gather(*tasks, return_exceptions=True))
    assert [type(result) for result in results] == [RingError] * 3
    assert len(set(map(id, results))) == 3
    assert loop.agent.xfers_inflight == 0
    assert loop.agent.stats.channels_broken == 1
    assert [(event, fields["queue"]) for event, fields in loop.logged] == [("SCMI channel is broken", "cmdq")]
    assert loop.world.actors == 2, "the workers of the channel and of the notifications"


async def test_a_broken_eventq_ends_the_waits_for_delayed_responses(loop: Loop) -> None:
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    await turns()
    loop.memory.view(loop.layouts[EVENTQ].device, 2, "H")[1] = 999
    with pytest.raises(RingError):
        loop.rx.complete_cb()
    with pytest.raises(RingError, match=r"used\.idx"):
        async with asyncio.timeout(5):
            await task
    assert [(event, fields["queue"]) for event, fields in loop.logged] == [("SCMI channel is broken", "eventq")]
    assert await loop.run(rate_get(loop)) == (300).to_bytes(8, "little"), "commands still go"


@pytest.mark.parametrize("sent", [True, False])
async def test_no_delayed_response_is_waited_for_once_the_eventq_is_broken(loop: Loop, sent: bool) -> None:
    """Not by a command whose response is still under way, and not by one that is sent later."""
    loop.core.holding = True
    if sent:
        task = spawn(reading_later(loop))
        await turns()
        loop.settle()
    loop.memory.view(loop.layouts[EVENTQ].device, 2, "H")[1] = 999
    with pytest.raises(RingError):
        loop.rx.complete_cb()
    if not sent:
        task = spawn(reading_later(loop))
        await turns()
        loop.settle()
    loop.core.let_go()
    loop.device.batch_end()
    with pytest.raises(RingError, match=r"used\.idx"):
        await loop.run(task)
    assert (loop.agent.stats.response_ok, loop.agent.stats.xfers_response_timeout) == (1, 0)
    assert loop.agent.xfers_inflight == 0


# --- delayed responses ------------------------------------------------------------------------------------------------


def reading_later(loop: Loop, **kwargs: Any) -> Coroutine[Any, Any, Any]:
    return loop.agent.sensor.reading_get_async(0, **kwargs)


def reading_later_polled(loop: Loop) -> Coroutine[Any, Any, bytes]:
    """Polls for the response, and sleeps for the delayed one."""
    payload = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    return loop.agent.do_xfer_with_response(SENSOR, 6, payload, poll=True)


async def test_delayed_response(loop: Loop) -> None:
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    await turns()
    assert not task.done()
    assert loop.agent.xfers_inflight == 1
    await loop.ticks(1.0)
    assert (await task)[0].value == 50000
    assert loop.agent.stats.delayed_response_ok == 1
    assert not loop.agent.in_flight


async def test_a_delayed_response_before_its_response(loop: Loop) -> None:
    loop.core.holding = True
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    _, request, _ = loop.core.held[0]
    word = header.as_delayed(int.from_bytes(request[:4], "little"))
    early = header.HEADER.pack(word) + bytes(4) + bytes(4) + (7).to_bytes(8, "little") + bytes(8)
    event, _ = loop.core.buffers.popleft()
    loop.device.queues[EVENTQ].complete(event, early)
    loop.device.batch_end()
    loop.settle()
    assert (await task)[0].value == 7
    assert list(loop.agent.in_flight), "the response itself is still owed"
    loop.accounted()
    loop.core.let_go()
    loop.device.batch_end()
    loop.settle()
    assert loop.agent.stats.err_msg_unexpected == 1
    assert not loop.agent.in_flight
    assert len(loop.tx.free_list) == loop.tx.max_msg
    loop.accounted()


async def test_a_response_right_behind_the_delayed_one_that_overtook_it(loop: Loop) -> None:
    loop.core.holding = True
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    _, request, _ = loop.core.held[0]
    word = header.as_delayed(int.from_bytes(request[:4], "little"))
    event, _ = loop.core.buffers.popleft()
    loop.device.queues[EVENTQ].complete(
        event, header.HEADER.pack(word) + bytes(4) + bytes(4) + (7).to_bytes(8, "little") + bytes(8)
    )
    loop.device.batch_end()
    loop.settle()
    loop.core.let_go()
    loop.device.batch_end()
    loop.settle()  # the waiter has not run in between
    assert (await task)[0].value == 7
    stats = loop.agent.stats
    assert (stats.err_msg_invalid, stats.err_msg_overtaken, stats.err_msg_unexpected) == (1, 1, 0)
    assert not loop.agent.in_flight


async def test_an_early_delayed_response_ends_a_polled_wait_and_the_message_stays_the_devices(loop: Loop) -> None:
    loop.core.holding = True
    payload = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    task = spawn(loop.agent.do_xfer_with_response(SENSOR, 6, payload, poll=True))
    await turns()
    loop.settle()
    _, request, _ = loop.core.held[0]
    event, _ = loop.core.buffers.popleft()
    word = header.as_delayed(int.from_bytes(request[:4], "little"))
    loop.device.queues[EVENTQ].complete(event, header.HEADER.pack(word) + bytes(4) + b"early")
    loop.device.batch_end()
    loop.settle()
    assert await task == b"early"
    assert len(loop.tx.free_list) == loop.tx.max_msg - 1
    loop.accounted()
    loop.core.let_go()
    loop.device.batch_end()
    loop.settle()
    await turns()
    assert len(loop.tx.free_list) == loop.tx.max_msg
    assert not loop.agent.in_flight
    loop.accounted()


async def test_a_poller_that_finds_both_responses_owes_nothing(loop: Loop) -> None:
    loop.core.holding = True
    payload = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    task = spawn(loop.agent.do_xfer_with_response(SENSOR, 6, payload, poll=True))
    await turns()
    loop.settle()
    _, request, _ = loop.core.held[0]
    event, _ = loop.core.buffers.popleft()
    word = header.as_delayed(int.from_bytes(request[:4], "little"))
    loop.device.queues[EVENTQ].complete(event, header.HEADER.pack(word) + bytes(4) + b"early")
    loop.core.let_go()
    loop.device.batch_end()
    loop.interrupts = False
    loop.settle()
    loop.rx.complete_cb()  # the delayed response is delivered; the response itself waits on the ring
    assert await task == b"early"
    assert not loop.agent.in_flight
    assert len(loop.tx.free_list) == loop.tx.max_msg


async def test_no_delayed_response_in_time(loop: Loop) -> None:
    with pytest.raises(XferTimeoutError, match="SENSOR_READING_COMPLETE"):
        await loop.run(reading_later(loop, timeout=0.02))
    assert loop.agent.stats.xfers_response_timeout == 1
    await loop.ticks(1.0)
    assert loop.agent.stats.err_msg_unexpected == 1
    assert not loop.agent.in_flight


@pytest.mark.parametrize("waits", [True, False])
async def test_who_is_cancelled_leaves_the_token_to_the_delayed_response(loop: Loop, waits: bool) -> None:
    """While it waits for the delayed response, or when the response has come and it has not run since."""
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    if waits:
        await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.agent.xfers_inflight == 0
    assert len(loop.agent.in_flight) == 1
    await loop.ticks(1.0)
    assert not loop.agent.in_flight
    assert (loop.agent.stats.delayed_response_ok, loop.agent.stats.err_msg_late) == (0, 1)


async def test_a_refused_asynchronous_command_waits_for_nothing(loop: Loop) -> None:
    with pytest.raises(ScmiError) as raised:
        await loop.run(loop.agent.sensor.reading_get_async(2))
    assert raised.value.status == Status.NOT_SUPPORTED
    assert not loop.agent.in_flight


async def test_a_delayed_response_with_an_error(loop: Loop) -> None:
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    await turns()
    await loop.run(loop.agent.sensor.config_set(0, 0))  # turned off before the reading is due
    await loop.ticks(1.0)
    with pytest.raises(ScmiError, match="SENSOR_READING_COMPLETE") as raised:
        await task
    assert raised.value.status == Status.PROTOCOL_ERROR


# --- the channel goes away --------------------------------------------------------------------------------------------


async def test_close_ends_every_wait(loop: Loop) -> None:
    loop.core.holding = True
    tasks = [spawn(rate_get(loop, poll=poll)) for poll in (False, True)]
    loop.core.holding = False
    tasks.append(spawn(reading_later(loop)))
    await turns()
    loop.settle()
    await turns()
    done = [task for task in tasks if task.done()]
    async with asyncio.timeout(5):
        await loop.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, LinkDownError) for one, task in zip(results, tasks, strict=True) if task not in done)
    with pytest.raises(LinkDownError):
        await rate_get(loop)
    assert loop.agent.stats.sent_fail_channel_not_found == 1
    loop.tx.reclaim()
    assert len(loop.tx.free_list) == loop.tx.max_msg


async def test_what_comes_after_detach_is_unexpected(loop: Loop) -> None:
    task = spawn(rate_get(loop))
    await turns()
    loop.agent.detach()
    loop.settle()
    with pytest.raises(LinkDownError):
        await task
    assert loop.agent.stats.err_msg_unexpected == 1


async def test_another_channel_ends_the_wait_for_a_delayed_response(loop: Loop) -> None:
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    await turns()
    memory = GuestMemory(1 << 20)
    at = SplitLayout.packed_at(0, 16)
    ring = loop.world.new(SplitDriver, loop.world, memory, at)
    other = loop.world.new(
        TxChannel, loop.world, memory, ring, Layout(1 << 16, 1 << 16), lambda: None, loop.agent.rx_callback,
        loop.workqueue,
    )  # fmt: skip
    loop.agent.attach(other)
    with pytest.raises(LinkDownError, match="SENSOR_READING_GET"):
        await task
    assert loop.agent.stats.xfers_response_timeout == 0


# --- the device restarts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [False, True])
async def test_a_restart_with_commands_in_flight(loop: Loop, poll: bool) -> None:
    """Every buffer completes exactly once; what may not be done twice is answered with COMMS_ERROR."""
    loop.core.holding = True
    get = spawn(rate_get(loop, poll=poll))
    later = spawn(loop.agent.sensor.reading_get_async(0))
    await turns()
    loop.settle()
    loop.restart_device()
    with pytest.raises(ScmiError) as raised:
        await loop.run(later)
    assert raised.value.status == Status.COMMS_ERROR
    assert await loop.run(get) == (300).to_bytes(8, "little")
    stats = loop.agents.platform.stats
    assert (stats.re_executed, stats.refused_after_reset) == (1, 1)
    assert len(loop.core.buffers) == loop.rx.max_msg, "the eventq's buffers came again"
    loop.accounted()
    assert len(loop.tx.free_list) == loop.tx.max_msg
    assert await loop.run(rate_get(loop, poll=poll)) == (300).to_bytes(8, "little")


async def test_a_delayed_response_that_is_lost_with_its_platform(loop: Loop) -> None:
    task = spawn(reading_later(loop))
    await turns()
    loop.settle()
    await turns()
    plain = spawn(rate_get(loop))
    await turns()
    loop.restart_device()
    loop.agent.platform_reset()
    with pytest.raises(ScmiError, match="SENSOR_READING_COMPLETE") as raised:
        async with asyncio.timeout(5):
            await task
    assert raised.value.status == Status.COMMS_ERROR
    assert loop.agent.stats.delayed_response_reset == 1
    assert await loop.run(plain) == (300).to_bytes(8, "little"), "a command without a response goes to the new one"
    assert not loop.agent.in_flight
    assert loop.agent.stats.err_msg_unexpected == 0


async def test_a_polled_response_that_another_loop_dequeued_before_the_platform_was_reset(loop: Loop) -> None:
    loop.interrupts = False
    payload = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    later = spawn(loop.agent.do_xfer_with_response(SENSOR, 6, payload, poll=True))
    other = spawn(rate_get(loop, poll=True))
    await turns()
    loop.settle()
    assert loop.tx.poll_done(loop.agent.in_flight[1])
    loop.agent.platform_reset()
    with pytest.raises(ScmiError) as raised:
        async with asyncio.timeout(5):
            await later
    assert raised.value.status == Status.COMMS_ERROR
    assert await other == (300).to_bytes(8, "little")
    assert len(loop.tx.free_list) == loop.tx.max_msg
    assert not loop.agent.in_flight
    stats = loop.agent.stats
    assert (stats.response_polled_ok, stats.err_msg_invalid) == (2, 0), "counted once"


@pytest.mark.parametrize("poll", [False, True])
async def test_an_asynchronous_command_that_only_the_new_platform_has_seen(loop: Loop, poll: bool) -> None:
    """Sent while the platform was away: it is no command of the old one, and its delayed response will come."""
    loop.lose_link()
    payload = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    task = spawn(loop.agent.do_xfer_with_response(SENSOR, 6, payload, poll=poll))
    await turns()
    loop.restart_device()
    loop.agent.platform_reset()
    loop.settle()
    await turns()
    loop.world.stir()
    await turns()
    await loop.ticks(1.0)
    async with asyncio.timeout(3):
        assert len(await task) == 20
    assert not loop.agent.in_flight
    stats = loop.agent.stats
    assert (stats.delayed_response_ok, stats.delayed_response_reset, stats.err_msg_invalid) == (1, 0, 0)


async def test_a_lost_connection_repeats_answers(loop: Loop) -> None:
    task = spawn(rate_get(loop))
    await turns()
    loop.device_turn()
    loop.lose_link()  # the answer is gone with it
    await turns()
    loop.reconnect()
    assert await loop.run(task) == (300).to_bytes(8, "little")
    assert loop.agents.platform.stats.success == 1, "executed once"
    loop.accounted()


# --- atomic mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polling", "atomic", "is_atomic"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_an_atomic_transport(polling: bool, atomic: bool, is_atomic: bool) -> None:
    loop = Loop(polling=polling, atomic=atomic, threshold_us=50)
    assert loop.agent.is_transport_atomic == is_atomic
    assert [loop.agent.polls(us) for us in (0, 1, 50, 51)] == [False, is_atomic, is_atomic, False]
    loop.agent.detach()
    assert not loop.agent.is_transport_atomic
    assert not loop.agent.polls(1)
    await loop.world.close()


async def test_no_threshold_no_polling(loop: Loop) -> None:
    assert loop.agent.is_transport_atomic
    assert not loop.agent.polls(0)
    assert not loop.agent.polls(1)


async def test_a_transport_that_is_not_atomic_polls_where_it_is_told_to() -> None:
    loop = Loop(atomic=False)
    loop.interrupts = False
    assert await loop.run(rate_get(loop, poll=True)) == (300).to_bytes(8, "little")
    await loop.world.close()


async def test_polling_on_a_transport_that_cannot() -> None:
    loop = Loop(polling=False)
    await loop.start()
    with pytest.raises(PollingUnsupportedError, match="CLOCK_RATE_GET"):
        await rate_get(loop, poll=True)
    with pytest.raises(PollingUnsupportedError):
        await loop.agent.do_xfer_with_response(CLOCK, clock.Command.CLOCK_RATE_SET, poll=True)
    stats = loop.agent.stats
    assert (stats.sent_fail_polling_unsupported, stats.sent_fail, stats.sent_ok) == (2, 0, 0)
    assert not loop.agent.in_flight
    loop.accounted()
    assert len(loop.tx.free_list) == loop.tx.max_msg
    assert await loop.run(rate_get(loop)) == (300).to_bytes(8, "little")
    await loop.world.close()


async def test_a_late_response_leaves_the_token_to_the_delayed_one(loop: Loop) -> None:
    """It may come after any number of younger commands: were the token free, it would be one of theirs."""
    loop.core.holding = True
    task = spawn(reading_later(loop, timeout=0.05))
    await turns()
    loop.settle()
    _, request, _ = loop.core.held[0]
    with pytest.raises(XferTimeoutError):
        await task
    loop.core.let_go()
    loop.device.batch_end()
    loop.settle()
    assert (loop.agent.stats.err_msg_unexpected, loop.agent.stats.err_msg_late) == (1, 1)
    assert list(loop.agent.in_flight)
    event, _ = loop.core.buffers.popleft()
    word = header.as_delayed(int.from_bytes(request[:4], "little"))
    loop.device.queues[EVENTQ].complete(event, header.HEADER.pack(word) + bytes(12))
    loop.device.batch_end()
    loop.settle()
    assert (loop.agent.stats.err_msg_unexpected, loop.agent.stats.err_msg_late) == (2, 2)
    assert not loop.agent.in_flight


async def test_what_is_not_owed_does_not_free_a_token(loop: Loop) -> None:
    """The command timed out and its chain is the platform's still: another message under its token changes nothing."""
    loop.core.holding = True
    task = spawn(rate_get(loop, timeout=0.05))
    await turns()
    loop.settle()
    with pytest.raises(XferTimeoutError):
        await task
    event, _ = loop.core.buffers.popleft()
    loop.device.queues[EVENTQ].complete(event, header.HEADER.pack(header.pack(CLOCK, GET + 1, 0)) + bytes(12))
    loop.device.batch_end()
    loop.settle()
    assert (loop.agent.stats.err_msg_unexpected, loop.agent.stats.err_msg_late) == (1, 0)
    assert list(loop.agent.in_flight)


@pytest.mark.parametrize("poll", [False, True])
async def test_a_malformed_response_is_counted_once(loop: Loop, poll: bool) -> None:
    loop.core.holding = True
    loop.interrupts = not poll
    task = spawn(rate_get(loop, poll=poll))
    await turns()
    loop.settle()
    head, _, _ = loop.core.held.pop()
    loop.device.queues[CMDQ].complete(head, b"")
    loop.device.batch_end()
    loop.settle()
    with pytest.raises(ScmiError):
        await task
    stats = loop.agent.stats
    assert (stats.err_msg_invalid, stats.response_ok, stats.response_polled_ok) == (1, 0, 0)
