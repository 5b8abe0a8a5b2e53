"""A saved ITS comes back in a fresh one, or is refused with KVM's errno."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from common.gic.commands import INT, MAPTI, Command, encode
from common.gic.entries import Cte, Dte, Ite
from common.gic.saved import SavedIts, table_ranges
from common.gic.walk import walk
from common.memory import GuestMemory
from services.its_cli.restore import memory_of, restored
from tests.common.gic.its_memory import COLLECTIONS, DEVICES, ITTS, QUEUE, SMALL, Profile
from tests.common.gic.its_memory import memory_of as mapped


def saved_from(memory: GuestMemory, saved: SavedIts) -> SavedIts:
    saved.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(saved, memory.read)]
    return saved


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("profile", ["kvm", "qemu"])
async def test_what_was_saved_comes_back(profile: Profile, indirect: bool) -> None:
    saved = saved_from(*mapped(SMALL, profile, indirect=indirect))
    assert await restored(saved) == walk(saved)


async def test_commands_that_waited_are_run() -> None:
    memory, saved = mapped(SMALL, "kvm")
    memory.write(QUEUE + 0x40, encode(Command(INT, device=2, event=20)) * 1500)
    memory.write(QUEUE + 1500 * 32, encode(Command(MAPTI, device=2, event=5, intid=8200, icid=2)))
    memory.write(QUEUE + 1501 * 32, encode(Command(INT, device=2, event=5)))
    saved.its["GITS_CWRITER"] = 1502 * 32
    found = await restored(saved_from(memory, saved))
    assert found.queue is not None
    assert (found.queue.creadr, found.queue.waiting) == (1502 * 32, 0)
    assert [(event.event, event.intid) for event in found.devices[0].events] == [(5, 8200), (20, 8195)]
    assert found.pending == [[], [], [8200], [8195]]


@pytest.mark.parametrize(
    ("addr", "entry", "error"),
    [
        (ITTS + 8 * 20, Ite(100, 3, 0).pack(), "EINVAL: pINTID 100 is no LPI"),
        (ITTS + 8 * 20, Ite(8195, 77, 0).pack(), "EINVAL: no collection 77"),
        (ITTS + 8 * 20, Ite(8195, 3, 300).pack(), "EINVAL: the next one, 320, is past the ITT of 256"),
        (COLLECTIONS + 8, Cte(True, 1, 2).pack(), "EEXIST: stands twice"),
        (COLLECTIONS, Cte(True, 9, 2).pack(), "EINVAL: PE 9 is none of 4"),
        (DEVICES + 8 * 7, Dte(True, 1 << 40, 8, 0).pack(), "EFAULT: no memory at"),
    ],
)
async def test_kvm_refuses(addr: int, entry: bytes, error: str) -> None:
    memory, saved = mapped(SMALL, "kvm")
    memory.write(addr, entry)
    saved = saved_from(memory, saved)
    assert walk(saved).findings, "a dump says it beforehand"
    with pytest.raises(RemoteError, match=error):
        await restored(saved)


async def test_a_revision_of_the_tables_that_is_not_known() -> None:
    saved = saved_from(*mapped(SMALL, "kvm"))
    saved.its["GITS_IIDR"] |= 0x1000
    with pytest.raises(RemoteError, match="EINVAL"):
        await restored(saved)


def test_memory_of_ranges() -> None:
    saved = saved_from(*mapped(SMALL, "kvm"))
    saved.memory = [(0x1000, b"a" * 8), (0x1010, b"b" * 8), (0x1018, b"c" * 8), (0x2020, b"d" * 8), (0x3030, b"e" * 8)]
    memory = memory_of(saved)
    assert [(bank.base, bank.size) for bank in memory.regions] == [(0x1000, 0x1028), (0x3030, 8)]
    assert memory.read(0x1008, 0x18) == bytes(8) + b"b" * 8 + b"c" * 8
    assert memory.read(0x2020, 8) == b"d" * 8
