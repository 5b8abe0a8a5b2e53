"""DMA by frames: answers, faults, lost links; commits that fit into one frame or do not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from common.errors import MemoryFaultError, RemoteError
from common.runtime.link import Link
from common.wire.codec import encode
from common.wire.limits import MAX_DMA, MAX_FRAME
from common.wire.messages import DmaCommit, DmaData, DmaRead, Lpi
from services.gic_its.remote_dma import MAX_PARTS, RemoteDma


class Sent(list[Any]):
    """Stands where a link does; keeps what is sent."""

    def send(self, message: Any) -> None:
        self.append(message)


class Rig:
    """A RemoteDma whose ITS stands at ``creadr``."""

    def __init__(self) -> None:
        self.creadr = 0
        self.dma = RemoteDma(lambda: self.creadr)
        self.sent = Sent()
        self.dma.attach(cast(Link, self.sent))

    async def begin(self, length: int = 4) -> asyncio.Task[bytes]:
        task = asyncio.create_task(self.dma.read(0x1000, length))
        await asyncio.sleep(0)
        return task


async def test_a_read_and_its_answer() -> None:
    rig = Rig()
    task = await rig.begin()
    assert rig.sent == [DmaRead(1, 0x1000, 4)]
    rig.dma.answer(DmaData(1, b"abcd"))
    assert await task == b"abcd"


async def test_answers_may_come_in_any_order() -> None:
    rig = Rig()
    one, two = await rig.begin(1), await rig.begin(2)
    rig.dma.answer(DmaData(2, b"bb"))
    rig.dma.answer(DmaData(1, b"a"))
    assert (await one, await two) == (b"a", b"bb")


async def test_faults() -> None:
    rig = Rig()
    task = await rig.begin()
    rig.dma.answer(DmaData(1, None))
    with pytest.raises(MemoryFaultError, match="cannot be read"):
        await task
    lost, gone = await rig.begin(), await rig.begin()
    gone.cancel()
    await asyncio.sleep(0)
    rig.dma.detach()
    with pytest.raises(MemoryFaultError):
        await lost
    with pytest.raises(MemoryFaultError, match="link is down"):
        await rig.dma.read(0, 1)
    del rig.sent[:]
    rig.dma.write(0, b"dropped")
    rig.dma.commit()
    assert rig.sent == []


async def test_answers_that_do_not_fit_are_refused() -> None:
    rig = Rig()
    with pytest.raises(RemoteError, match=r"dma_data\.seq"):
        rig.dma.answer(DmaData(1, b""))
    for wrong in (b"abc", b"abcde", b""):
        task = await rig.begin()
        with pytest.raises(RemoteError, match=r"dma_data\.data"):
            rig.dma.answer(DmaData(len(rig.sent), wrong))
        with pytest.raises(MemoryFaultError):
            await task
    gone = await rig.begin()
    gone.cancel()
    await asyncio.sleep(0)
    rig.dma.answer(DmaData(4, b"abcd"))
    with pytest.raises(RemoteError):
        rig.dma.answer(DmaData(4, b"abcd"))


def test_a_commit_is_one_frame() -> None:
    rig = Rig()
    rig.dma.write(0x1000, b"abc")
    rig.dma.write(0x2000, 4096)
    rig.dma.lpi(1, 8192, 5)
    assert rig.sent == []
    rig.creadr = 64
    rig.dma.commit()
    assert rig.sent == [DmaCommit(64, [(0x1000, b"abc"), (0x2000, 4096)], [(1, 8192, 5)])]


def test_a_commit_of_nothing_is_not_sent() -> None:
    rig = Rig()
    rig.dma.commit()
    assert rig.sent == []
    rig.creadr = 32
    for _ in range(2):
        rig.dma.commit()
    assert rig.sent == [DmaCommit(32, [], [])]
    rig.creadr = 0
    rig.dma.commit()
    assert rig.sent[1:] == [DmaCommit(0, [], [])]


def test_another_guest_is_told_where_the_its_stands() -> None:
    rig = Rig()
    rig.creadr = 32
    rig.dma.commit()
    rig.dma.detach()
    rig.dma.attach(cast(Link, rig.sent))
    rig.dma.commit()
    assert rig.sent == [DmaCommit(32, [], [])] * 2


async def test_a_read_sees_what_was_written_before() -> None:
    rig = Rig()
    rig.dma.write(0x1000, b"a")
    rig.creadr = 32
    task = await rig.begin()
    assert rig.sent == [DmaCommit(32, [(0x1000, b"a")], []), DmaRead(1, 0x1000, 4)]
    rig.dma.answer(DmaData(1, None))
    with pytest.raises(MemoryFaultError):
        await task


def test_what_was_not_committed_is_lost_with_the_link() -> None:
    rig = Rig()
    rig.dma.write(0x1000, b"a")
    rig.dma.lpi(0, 8192, 0)
    rig.dma.detach()
    rig.dma.attach(cast(Link, rig.sent))
    rig.dma.commit()
    assert rig.sent == []


def test_long_writes_are_split() -> None:
    rig = Rig()
    rig.dma.write(0x1000, bytes(MAX_DMA + 8))
    rig.dma.commit()
    assert [([(at, len(cast(bytes, data))) for at, data in m.writes], m.last) for m in rig.sent] == [
        ([(0x1000, MAX_DMA)], False),
        ([(0x1000 + MAX_DMA, 8)], True),
    ]


def test_many_writes_are_split_and_keep_their_order() -> None:
    rig = Rig()
    for at in range(MAX_PARTS * 2 + 5):
        rig.dma.write(at, at.to_bytes(2, "little"))
    rig.creadr = 96
    rig.dma.commit()
    assert [m.last for m in rig.sent] == [False, False, True]
    assert {m.creadr for m in rig.sent} == {96}
    assert [at for m in rig.sent for at, _ in m.writes] == list(range(MAX_PARTS * 2 + 5))
    assert max(len(m.writes) for m in rig.sent) == MAX_PARTS


def test_lpis_that_find_no_room_go_before() -> None:
    rig = Rig()
    for number in range(MAX_PARTS + 3):
        rig.dma.lpi(1, 8192, number)
    rig.dma.commit()
    *before, last = rig.sent
    assert before == [Lpi(1, 8192, MAX_PARTS + n) for n in range(3)]
    assert len(last.lpis) == MAX_PARTS


def test_the_largest_frame_fits() -> None:
    """As many writes, as many bytes and as many LPIs as there may be, all numbers of full width."""
    rig = Rig()
    rig.creadr = 0xF_FFE0
    far = (1 << 64) - 0x1_0000
    for at in range(MAX_PARTS):
        rig.dma.write(far + at, bytes(MAX_DMA // MAX_PARTS))
        rig.dma.lpi(511, 65535, (1 << 63) - 1)
    rig.dma.commit()
    assert len(rig.sent) == 1
    assert len(encode(rig.sent[0])) <= MAX_FRAME
    for size in (MAX_DMA, 1, 255, 256, 300):
        rig.dma.write(far, bytes(size))
        for _ in range(MAX_PARTS):
            rig.dma.write(far, bytes(size))
            rig.dma.lpi(511, 65535, (1 << 63) - 1)
        del rig.sent[:]
        rig.dma.commit()
        for frame in rig.sent:
            encode(frame)
