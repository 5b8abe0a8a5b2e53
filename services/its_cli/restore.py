"""A saved ITS into a fresh one, in this process: what a VMM does on the machine that a guest was moved to."""

from __future__ import annotations

from errno import errorcode
from typing import Final

from common.errors import CallError, RemoteError
from common.gic.saved import SavedIts
from common.gic.walk import Walk, walk
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import PROFILES
from services.gic_its.snapshot import restore, save

#: Ranges of memory that are no further apart are one bank.
_GAP: Final = 4096


async def restored(saved: SavedIts) -> Walk:
    """What is mapped after it was restored and then saved again; commands that waited have been run by then.

    Raises RemoteError, with KVM's errno by name and a sentence, where the ITS refuses.
    """
    memory = memory_of(saved)
    its = Its(
        AsyncWorld(),
        DirectDma(memory),
        cpus=saved.cpus,
        deliver=lambda _vcpu, _intid, _number: None,
        done=lambda _device, _event, _number: None,
        profile=PROFILES[saved.profile],
    )
    try:
        await restore(its, saved)
        again = await save(its)
    except CallError as error:
        name = errorcode.get(error.errno, str(error.errno))
        raise RemoteError(error.field, None, None, f"{name}: {error.detail}") from error
    return walk(again, memory.read)


def memory_of(saved: SavedIts) -> GuestMemory:
    """Guest memory that holds what was saved; what is between ranges that are near is there, too."""
    memory = GuestMemory()
    banks: list[list[int]] = []
    for addr, data in saved.memory:
        end = addr + len(data)
        if banks and addr - banks[-1][1] <= _GAP:
            banks[-1][1] = end
        else:
            banks.append([addr, end])
    for base, end in banks:
        memory.add_region(base, end - base)
    for addr, data in saved.memory:
        memory.write(addr, data)
    return memory
