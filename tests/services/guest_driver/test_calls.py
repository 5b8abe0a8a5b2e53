"""Calls over a real link on loopback: answers in any order, errnos, and links that go down under them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import CallError, FrameError, LinkDownError, RemoteError
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.wire.limits import MAX_FRAME
from common.wire.messages import Call, Return
from services.guest_driver.calls import Calls
from tests.services.guest_driver.mesh_rig import until, within


class Device:
    """The far end: keeps every call until the test answers. A LinkHandler."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.link: Link | None = None

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, _link: Link, message: Any) -> None:
        self.calls.append(message)

    def link_batch(self, link: Link) -> None: ...

    def link_down(self, _link: Link, reason: str) -> None: ...


class Vmm:
    """The near end. A LinkHandler."""

    def __init__(self) -> None:
        self.calls = Calls("nic")

    def link_up(self, link: Link) -> None:
        self.calls.attach(link)

    def link_frame(self, _link: Link, message: Any) -> None:
        self.calls.returned(message)

    def link_batch(self, link: Link) -> None: ...

    def link_down(self, _link: Link, reason: str) -> None:
        self.calls.detach(reason)


class Pair:
    def __init__(self) -> None:
        self.device, self.vmm = Device(), Vmm()
        self.calls = self.vmm.calls
        self.server = LinkServer(
            role="nic", token="", epoch=1, accept=lambda _hello: self.device, metrics=Metrics("nic")
        )
        self.client: LinkClient

    async def start(self) -> None:
        await self.server.start("127.0.0.1", 0)
        self.client = LinkClient(
            role="vmm", peer="nic", host="127.0.0.1", port=self.server.port, token="", epoch=2, handler=self.vmm,
            metrics=Metrics("guest"), guest="vm",
        )  # fmt: skip
        await self.client.start()
        await within(self.client.wait_up())

    def ask(self, op: str, *args: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(self.calls.call(op, *args))

    def answer(self, *answers: Return) -> None:
        assert self.device.link is not None
        for answer in answers:
            self.device.link.send(answer)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    await made.start()
    yield made
    await made.client.close()
    await made.server.close()


async def test_each_answer_finds_its_call(pair: Pair) -> None:
    tasks = [pair.ask("set_vq_num", n, 8) for n in range(3)]
    await until(lambda: len(pair.device.calls) == 3)
    assert [(c.op, c.args) for c in pair.device.calls] == [("set_vq_num", [n, 8]) for n in range(3)]
    seqs = [c.seq for c in pair.device.calls]
    assert len(set(seqs)) == 3
    pair.answer(Return(seqs[2], 0, "c"), Return(seqs[0], 0, "a"), Return(seqs[1], 0, "b"))
    assert await within(asyncio.gather(*tasks)) == ["a", "b", "c"]


async def test_an_errno_is_an_error(pair: Pair) -> None:
    task = pair.ask("set_map", 1)
    await until(lambda: pair.device.calls)
    pair.answer(Return(pair.device.calls[0].seq, errno.EBUSY, "not now"))
    with pytest.raises(CallError, match="not now") as caught:
        await within(task)
    assert (caught.value.errno, caught.value.field) == (errno.EBUSY, "set_map")


async def test_answers_to_no_call_and_second_answers_are_ignored(pair: Pair) -> None:
    given_up, task = pair.ask("get_status"), pair.ask("get_status")
    await until(lambda: len(pair.device.calls) == 2)
    given_up.cancel()
    first, second = (c.seq for c in pair.device.calls)
    pair.answer(Return(999, 0), Return(first, 0, 1), Return(second, 0, 2), Return(second, 5, "late"))
    assert await within(task) == 2
    assert pair.client.link is not None


async def test_a_link_that_goes_down_fails_what_is_under_way(pair: Pair) -> None:
    task, given_up = pair.ask("set_status", 1), pair.ask("set_status", 2)
    await until(lambda: len(pair.device.calls) == 2)
    given_up.cancel()
    assert pair.device.link is not None
    pair.device.link.close("test")
    with pytest.raises(LinkDownError, match="nic = 'set_status'"):
        await within(task)
    await within(pair.client.wait_up())
    task = pair.ask("get_status")
    await until(lambda: len(pair.device.calls) == 3)
    seqs = [c.seq for c in pair.device.calls]
    assert len(set(seqs)) == 3, "an answer to an old call is none to a new one"
    pair.answer(Return(seqs[2], 0, 15))
    assert await within(task) == 15


async def test_without_a_link(pair: Pair) -> None:
    await pair.client.close()
    with pytest.raises(LinkDownError, match="the link is down"):
        await pair.calls.call("get_status")


async def test_a_call_that_is_too_long_leaves_nothing_behind(pair: Pair) -> None:
    with pytest.raises(FrameError):
        await pair.calls.call("set_map", b"x" * MAX_FRAME)
    assert not pair.calls._waiting


@pytest.mark.parametrize("value", [None, "15", 1.5, [15], True])
async def test_a_value_of_another_type_is_an_error_of_the_device(pair: Pair, value: object) -> None:
    task = asyncio.get_running_loop().create_task(pair.calls.call("get_status", kind=int))
    await until(lambda: pair.device.calls)
    pair.answer(Return(pair.device.calls[0].seq, 0, value))
    with pytest.raises(RemoteError, match="nic get_status") as caught:
        await within(task)
    assert (caught.value.field, caught.value.value) == ("return.value", value)
    assert pair.client.link is not None
