"""Tables to guest memory and back, in KVM's layout; tables of somebody who means ill. Streams: test_save_points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from common.errors import CallError
from common.gic import commands as op
from common.gic import vmm_ops as ops
from common.gic.commands import Command
from common.gic.entries import NOT_MAPPED, Cte, Dte, Ite
from common.gic.registers import BASER_VALID, GITS_BASER, GITS_CTLR
from common.gic.vmm_ops import EEXIST, EFAULT, EINVAL, ENOMEM
from common.memory import GuestMemory
from services.gic_its.direct import DirectDma
from services.gic_its.held_tables import Limits
from services.gic_its.saving import BLOCK
from tests.services.gic_its.machine import COLLECTIONS, DEVICES, ITT, LEVEL2, NOWHERE, Machine, standard

ITT7 = ITT + 0x1_0000
GARBAGE = 0xFFFF_0000_0000_FFFF  # of an ITE: all but the pINTID


@pytest.fixture
def kvm() -> Iterator[Machine]:
    """The standard set-up; vCPUs are stopped."""
    with closing(Machine("kvm")) as made:
        made.start(*standard())
        yield made


def dte(itt: int = ITT, bits: int = 8, following: int = 0) -> int:
    return int.from_bytes(Dte(True, itt, bits, following).pack(), "little")


def cte(icid: int, rdbase: int) -> int:
    return int.from_bytes(Cte(True, rdbase, icid).pack(), "little")


def ite(intid: int, icid: int, following: int = 0) -> int:
    return int.from_bytes(Ite(intid, icid, following).pack(), "little")


def mapped(m: Machine) -> dict[int, list[int]]:
    """Device → its events."""
    tables = m.its.tables
    found: dict[int, list[int]] = {}
    for event in (tables.events[key] for key in sorted(tables.events)):  # type: ignore[attr-defined]
        found.setdefault(event.device, []).append(event.event)
    return found


def empty(m: Machine) -> bool:
    control = m.its.control
    return (control.devices, control.collections, control.events, mapped(m)) == ((), (), 0, {})


def works(m: Machine) -> None:
    """The ITS goes on as one that nobody has programmed does."""
    m.vmm(ops.CTRL_RESET)
    m.mem_fill(COLLECTIONS, 0x1_0000, 0)
    m.start(*standard()).interrupt(2, 20)
    m.msi(7, 255)
    assert m.all_pending() == [[], [], [8196], [8195]]


def restored(m: Machine) -> None:
    m.power_cycle()
    m.vmm(ops.RESTORE_TABLES)
    m.vmm(ops.SET_ITS_REG, GITS_CTLR, 1)


def refuses(m: Machine, errno: int, words: str) -> None:
    """Restoring what the tables say now is refused, nothing is mapped, and the ITS works all the same."""
    m.power_cycle()
    with pytest.raises(CallError, match=words) as raised:
        m.vmm(ops.RESTORE_TABLES)
    assert raised.value.errno == errno
    assert empty(m)
    works(m)


# --- what is there --------------------------------------------------------------------------------------------------


def test_tables_are_kvms(kvm: Machine) -> None:
    kvm.vmm(ops.SAVE_TABLES)
    assert kvm.word(DEVICES + 2 * 8) == dte(ITT, 8, 5)
    assert kvm.word(DEVICES + 7 * 8) == dte(ITT7, 8, 0)
    assert [kvm.word(COLLECTIONS + at * 8) for at in range(3)] == [cte(3, 3), cte(2, 2), 0]
    assert kvm.word(ITT + 20 * 8) == ite(8195, 3)
    assert kvm.word(ITT7 + 255 * 8) == ite(8196, 2)


def test_saving_writes_what_was_overwritten(kvm: Machine) -> None:
    kvm.run(Command(op.MAPTI, device=2, event=21, intid=8197, icid=9))
    before = [kvm.mem_read(addr, 0x1000) for addr in (DEVICES, COLLECTIONS, ITT, ITT7)]
    for addr in (DEVICES, COLLECTIONS, ITT, ITT7):
        kvm.mem_fill(addr, 0x1000, 0)
    kvm.vmm(ops.SAVE_TABLES)
    assert [kvm.mem_read(addr, 0x1000) for addr in (DEVICES, COLLECTIONS, ITT, ITT7)] == before
    assert kvm.word(ITT + 20 * 8) == ite(8195, 3, 1)


def test_restored_tables_translate(kvm: Machine) -> None:
    restored(kvm)
    assert mapped(kvm) == {2: [20], 7: [255]}
    kvm.interrupt(2, 20)
    kvm.msi(7, 255)
    assert kvm.all_pending() == [[], [], [8196], [8195]]
    assert kvm.ack(3) == 8195  # its configuration was read


def test_a_collection_that_is_not_mapped(kvm: Machine) -> None:
    """MAPTI to a collection that MAPC never named; another machine; MAPC; the event arrives."""
    kvm.run(Command(op.MAPTI, device=2, event=21, intid=8197, icid=9))
    assert kvm.word(COLLECTIONS + 2 * 8) == cte(9, NOT_MAPPED)
    restored(kvm)
    kvm.interrupt(2, 21)
    assert kvm.all_pending() == [[], [], [], []]
    kvm.run(Command(op.MAPC, icid=9, rdbase=1, valid=1), Command(op.INVALL, icid=9))
    kvm.interrupt(2, 21)
    assert kvm.all_pending() == [[], [8197], [], []]


def test_two_levels() -> None:
    with closing(Machine("kvm")) as m:
        m.start(*standard(), indirect=True)
        m.put_word(DEVICES + 2 * 8, 1 << 63 | 0x4231_0000)  # DeviceIDs from 0x4000 on
        m.run(
            Command(op.MAPD, device=0x4001, size=0, itt=ITT + 0x2_0000, valid=1),
            Command(op.MAPTI, device=0x4001, event=1, intid=8200, icid=3),
        )
        assert m.word(LEVEL2 + 7 * 8) == dte(ITT7, 8, (1 << 14) - 6)
        assert m.word(0x4231_0000 + 8) == dte(ITT + 0x2_0000, 1)
        m.vmm(ops.CTRL_RESET)
        m.lpis(ptz=False)
        m.tables(indirect=True)
        m.vmm(ops.RESTORE_TABLES)
        assert mapped(m) == {2: [20], 7: [255], 0x4001: [1]}
        # a chain that skips the whole first page, a page that is not there
        m.put_word(LEVEL2 + 7 * 8, dte(ITT7, 8, 0x2000))
        m.put_word(DEVICES + 8, 1 << 63 | NOWHERE)
        m.put_word(LEVEL2 + 8 * 8, dte(ITT7, 8))
        with pytest.raises(CallError, match="no memory"):
            m.vmm(ops.RESTORE_TABLES)
        m.put_word(DEVICES + 8, NOWHERE)
        m.vmm(ops.RESTORE_TABLES)
        assert mapped(m) == {2: [20], 7: [255], 0x4001: [1]}
        m.put_word(LEVEL2 + 7 * 8, dte(ITT7, 8, 0x3FFC))  # from 7 to 0x4003: past the second page, and past 0x4001
        m.put_word(DEVICES + 8, 1 << 63 | NOWHERE)
        m.vmm(ops.RESTORE_TABLES)
        assert mapped(m) == {2: [20], 7: [255]}


def test_the_chain_says_where_entries_are(kvm: Machine) -> None:
    """What ``next`` leaves out is not looked at; 0 is the end, an entry that is not valid says go on."""
    kvm.put_word(DEVICES + 4 * 8, dte(NOWHERE))
    kvm.put_word(DEVICES + 8 * 8, dte(NOWHERE))
    kvm.put_word(ITT + 21 * 8, ite(1, 99))
    restored(kvm)
    assert mapped(kvm) == {2: [20], 7: [255]}
    kvm.put_word(DEVICES + 2 * 8, dte(ITT, 8, 4))  # to 6, which is not valid
    kvm.put_word(ITT + 20 * 8, ite(8195, 3, 4))
    kvm.put_word(ITT + 23 * 8, ite(1, 99))
    kvm.put_word(ITT + 25 * 8, ite(8198, 2))
    restored(kvm)
    assert mapped(kvm) == {2: [20, 25], 7: [255]}


def test_the_first_gap_ends_the_list_of_collections(kvm: Machine) -> None:
    for at in (3, 4, 5000):
        kvm.put_word(COLLECTIONS + at * 8, cte(7, 99))
    restored(kvm)
    assert kvm.its.control.collections == (3, 2)


def test_full_tables(kvm: Machine) -> None:
    """No invalid entry ends a collection table that is full."""
    kvm.vmm(ops.CTRL_RESET)
    kvm.mem_fill(DEVICES, 0x1_0000, 0)
    for at in range(0x1_0000 // 8):
        kvm.put_word(COLLECTIONS + at * 8, cte(at, 0))
    kvm.tables()
    tables = kvm.its.tables
    object.__setattr__(tables.limits, "collections", 65536)  # type: ignore[attr-defined]
    kvm.vmm(ops.RESTORE_TABLES)
    assert len(kvm.its.control.collections) == 0x2000


def test_a_second_restore_takes_the_place_of_the_first(kvm: Machine) -> None:
    kvm.vmm(ops.SAVE_TABLES)
    kvm.vmm(ops.RESTORE_TABLES)
    kvm.vmm(ops.RESTORE_TABLES)
    assert mapped(kvm) == {2: [20], 7: [255]}
    kvm.interrupt(2, 20)
    assert kvm.all_pending() == [[], [], [], [8195]]


def test_where_tables_are_in_memory_only_nothing_is_done() -> None:
    with closing(Machine("qemu")) as m:
        m.start(*standard())
        memory = [m.mem_read(addr, 0x1000) for addr in (DEVICES, COLLECTIONS, ITT)]
        m.mem_fill(COLLECTIONS, 16, 0xFF)  # nonsense is not looked at
        m.vmm(ops.SAVE_TABLES)
        m.vmm(ops.RESTORE_TABLES)
        m.mem_write(COLLECTIONS, memory[1])
        assert [m.mem_read(addr, 0x1000) for addr in (DEVICES, COLLECTIONS, ITT)] == memory
        m.interrupt(2, 20)
        assert m.all_pending() == [[], [], [], [8195]]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addr", "word", "errno", "words"),
    [
        (COLLECTIONS, cte(0x2000, 0), EINVAL, "8192.*the table has 8192 entries"),
        (COLLECTIONS, cte(3, 4), EINVAL, "collection 3.*PE 4 is none of 4"),
        (COLLECTIONS, cte(3, NOT_MAPPED - 1), EINVAL, "is none of 4"),
        (COLLECTIONS + 8, cte(3, 1), EEXIST, "collection 3.*twice"),
        (DEVICES + 16, dte(ITT, 17), EINVAL, "device 0x2.*17 EventID bits, 16 at most"),
        (DEVICES + 16, dte(ITT, 32), EINVAL, "32 EventID bits"),
        (DEVICES + 16, dte(NOWHERE, 8), EFAULT, "no memory"),
        (ITT + 160, ite(8191, 3), EINVAL, "device 0x2 event 20.*pINTID 8191"),
        (ITT + 160, ite(1, 3), EINVAL, "pINTID 1 "),
        (ITT + 160, ite(65536, 3), EINVAL, "pINTID 65536"),
        (ITT + 160, ite(0xFFFF_FFFF, 3), EINVAL, "pINTID 4294967295"),
        (ITT + 160, ite(8195, 3, 236), EINVAL, "256, is past the ITT of 256"),
        (ITT + 160, ite(8195, 3, 0xFFFF), EINVAL, "past the ITT"),
        (ITT + 160, ite(8195, 4), EINVAL, "no collection 4"),
        (ITT7 + 255 * 8, ite(8196, 0xFFFF), EINVAL, "device 0x7 event 255.*no collection 65535"),
    ],
)  # fmt: skip
def test_entries_that_are_refused(kvm: Machine, addr: int, word: int, errno: int, words: str) -> None:
    kvm.put_word(addr, word)
    refuses(kvm, errno, words)


def test_edges_that_are_taken(kvm: Machine) -> None:
    kvm.put_word(ITT + 160, ite(65535, 3, 235))
    kvm.put_word(ITT + 255 * 8, ite(8192, 2))
    kvm.put_word(DEVICES + 7 * 8, dte(ITT7, 16))
    restored(kvm)
    assert mapped(kvm) == {2: [20, 255], 7: [255]}


@pytest.mark.parametrize("n", [0, 1])
def test_tables_where_there_is_no_memory(kvm: Machine, n: int) -> None:
    kvm.power_cycle()
    kvm.mmio_write("its", GITS_BASER + 8 * n, 8, BASER_VALID | 2 << 8 | NOWHERE)
    with pytest.raises(CallError, match="no memory") as raised:
        kvm.vmm(ops.RESTORE_TABLES)
    assert raised.value.errno == EFAULT
    assert empty(kvm)


@pytest.mark.parametrize("what", ["devices", "collections", "events"])
def test_more_than_this_its_takes(kvm: Machine, what: str) -> None:
    object.__setattr__(kvm.its.tables.limits, what, 1)  # type: ignore[attr-defined]
    kvm.power_cycle()
    with pytest.raises(CallError, match=f"more than 1 {what}") as raised:
        kvm.vmm(ops.RESTORE_TABLES)
    assert raised.value.errno == ENOMEM
    assert empty(kvm)


# --- what it costs --------------------------------------------------------------------------------------------------


class Counting(DirectDma):
    """DMA that counts what is read."""

    reads = 0
    total = 0

    async def read(self, addr: int, length: int) -> bytes:
        self.reads += 1
        self.total += length
        return await super().read(addr, length)


def counted(m: Machine) -> Counting:
    dma = Counting(m._memory)
    m.its.dma._dma = dma  # type: ignore[misc]
    return dma


def many(m: Machine, itt: int, step: int = 0) -> None:
    """As many devices as the ITS takes, with 16 EventID bits each."""
    m.power_cycle()
    for device in range(Limits().devices):
        m.put_word(DEVICES + device * 8, dte(itt + device * step, 16, 1 if device < Limits().devices - 1 else 0))


@pytest.mark.parametrize("word", [0, GARBAGE])
def test_itts_at_one_address_are_read_once(kvm: Machine, word: int) -> None:
    """4096 devices whose ITTs together would be 2 GiB."""
    kvm.mem_write(ITT, word.to_bytes(8, "little") * 65536)
    many(kvm, ITT)
    dma = counted(kvm)
    kvm.vmm(ops.RESTORE_TABLES)
    assert len(kvm.its.tables.devices) == 4096  # type: ignore[attr-defined]
    assert dma.total <= 0x8_0000 + 0x8_0000 + 0x1_0000 + BLOCK


def test_itts_that_overlap_are_read_once_but_for_their_ends(kvm: Machine) -> None:
    kvm.mem_fill(ITT, 0x30_0000, 0)
    many(kvm, ITT, 256)
    dma = counted(kvm)
    kvm.vmm(ops.RESTORE_TABLES)
    assert dma.total <= 4096 * 2 * BLOCK + 0x30_0000
    assert dma.reads <= 4096 * 2 + 400


def test_a_full_itt_that_many_share_ends_at_the_limit(kvm: Machine) -> None:
    kvm.mem_write(ITT, b"".join(Ite(8192 + n % 1000, 3, 1 if n < 65535 else 0).pack() for n in range(65536)))
    many(kvm, ITT)
    dma = counted(kvm)
    with pytest.raises(CallError, match="more than 65536 events"):
        kvm.vmm(ops.RESTORE_TABLES)
    assert dma.reads < 200
    assert empty(kvm)


def test_what_a_chain_leaves_out_is_not_read(kvm: Machine) -> None:
    kvm.put_word(DEVICES + 2 * 8, dte(ITT, 16))
    kvm.put_word(ITT + 160, ite(8195, 3, 60_000))
    kvm.put_word(ITT + 60_020 * 8, ite(8198, 3))
    kvm.power_cycle()
    dma = counted(kvm)
    kvm.vmm(ops.RESTORE_TABLES)
    assert mapped(kvm) == {2: [20, 60_020]}
    assert dma.total <= 0x1_0000 + 3 * BLOCK


def test_tables_of_garbage_are_refused_at_once(kvm: Machine) -> None:
    for byte in (0xFF, 0x80, 0x5A):
        for addr in (DEVICES, COLLECTIONS):
            kvm.mem_fill(addr, 0x1_0000, byte)
        kvm.power_cycle()
        dma = counted(kvm)
        if byte == 0x5A:
            kvm.vmm(ops.RESTORE_TABLES)  # no entry is valid
        else:
            with pytest.raises(CallError):
                kvm.vmm(ops.RESTORE_TABLES)
        assert dma.reads < 100
        assert empty(kvm)


def test_memory_that_ends_inside_a_block() -> None:
    """Reads stay inside the table, however memory lies around it."""
    with closing(Machine("kvm")) as m:
        m.start(*standard())
        data = m.mem_read(ITT, 0x800)
        m._memory.remove_region(0x4000_0000)
        for base, size in ((0x4220_0000, 0x8_0000), (0x4240_0000, 0x1_0000), (0x4260_0000, 0x2_0000),
                           (0x4270_0000, 0x8_0000), (ITT, 0x800), (ITT7, 0x800)):  # fmt: skip
            m._memory.add_region(base, size)
        memory: GuestMemory = m._memory
        memory.write(ITT, data)
        memory.write(DEVICES + 16, Dte(True, ITT, 8, 0).pack())
        memory.write(COLLECTIONS, Cte(True, 3, 3).pack())
        m.vmm(ops.RESTORE_TABLES)
        assert mapped(m) == {2: [20]}
