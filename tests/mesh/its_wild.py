"""A guest whose vCPUs write CWRITER without a lock, whatever comes to their minds, over a queue of any commands.

``python -m tests.mesh.its_wild PORT SECONDS SEED`` prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Final

import uvloop

from common.errors import BackpressureError
from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, encode
from common.gic.lpi import LPI_BASE
from common.gic.registers import GITS_CREADR, GITS_CWRITER, QUEUE_OFFSET
from common.runtime.clock import monotonic
from services.guest_driver.vcpu import IrqLine
from tests.mesh.its_guest import CPUS, ItsGuest
from tests.services.guest_driver.mesh_rig import until

NAME: Final = "wild"
QUEUE: Final = 1 << 16
DEVICE, EVENTS = 1, 32


def _any_command(rng: random.Random) -> bytes:
    device, event, icid = rng.choice((DEVICE, DEVICE, DEVICE, 2, 0xFFFFF)), rng.randrange(EVENTS + 2), rng.randrange(9)
    return rng.choice((
        lambda: encode(Command(op.INT, device=device, event=event)),
        lambda: encode(Command(op.INT, device=device, event=event)),
        lambda: encode(Command(op.MAPTI, device=device, event=event, intid=LPI_BASE + event, icid=icid)),
        lambda: encode(Command(op.MOVI, device=device, event=event, icid=icid)),
        lambda: encode(Command(op.DISCARD, device=device, event=event)),
        lambda: encode(Command(op.INV, device=device, event=event)),
        lambda: encode(Command(op.INVALL, icid=icid)),
        lambda: encode(Command(op.MOVALL, rdbase=rng.randrange(9), rdbase2=rng.randrange(9))),
        lambda: rng.randbytes(COMMAND_SIZE),
    ))()  # fmt: skip


async def run(port: int, seconds: float, seed: int) -> dict[str, int]:
    """Be wild for so long. ``writes``: of CWRITER; ``outside``: those past the queue; ``wraps``: lower than before."""
    rng = random.Random(seed)
    guest = ItsGuest(port, NAME, queue=QUEUE)
    done = {"writes": 0, "outside": 0, "wraps": 0, "refused": 0}
    last = 0
    try:
        await guest.start()
        for event in range(EVENTS + 2):
            guest.vcpus.request_irq(IrqLine(str(event), DEVICE, event, LPI_BASE + event, 0, lambda: None))
        await guest.driver.map_device(DEVICE, EVENTS)
        base = guest.driver._queue._base
        end = monotonic() + seconds
        while monotonic() < end:
            for _ in range(CPUS):
                at = rng.randrange(QUEUE // COMMAND_SIZE) * COMMAND_SIZE
                guest.memory.write(base + at, _any_command(rng))
                past = rng.random() < 0.1
                value = rng.randrange(QUEUE) + QUEUE * past | rng.randrange(2) << 40
                try:
                    guest.link.post_write("its", GITS_CWRITER, 8, value)
                except BackpressureError:
                    done["refused"] += 1
                    await asyncio.sleep(0.001)
                    continue
                done["writes"] += 1
                done["outside"] += past
                if not past:
                    done["wraps"] += value & QUEUE_OFFSET < last
                    last = value & QUEUE_OFFSET
            await asyncio.sleep(0)
        stats = guest.link.stats
        await until(lambda: stats.posted_done == stats.posted)
        done["creadr"] = await guest.link.read("its", GITS_CREADR, 8)
        done["cwriter"] = await guest.link.read("its", GITS_CWRITER, 8)
        done["last"], done["restores"] = last, stats.restores
    finally:
        await guest.close()
    return done


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))))
