"""A stream of commands that is saved on its way and goes on in another process.

``python -m tests.services.gic_its.save_points PROFILE POINT < FILE`` goes on after point number POINT with what is in
the file and behind it all ITTs, and prints a digest of all that can be saved at each of the :data:`AFTER` points
behind it. (An ITT that is not in use is not saved; in QEMU it still means something when it is mapped again.)
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from tests.services.gic_its.machine import ITT, Machine
from tests.services.gic_its.streams import hostile_stream

COMMANDS: Final = 10_000
POINTS: Final = 20
#: Commands between two points.
STEP: Final = COMMANDS // POINTS
#: Points that are looked at behind the one where a process begins.
AFTER: Final = 2
#: Commands of a batch; then a vCPU takes an LPI.
BATCH: Final = 20
SEED: Final = 11
#: Bytes of memory where ITTs may be.
ITTS: Final = 0x20_0000


def stream() -> list[bytes]:
    return list(hostile_stream(random.Random(SEED), COMMANDS + AFTER * STEP))


def digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def files(machine: Machine, commands: list[bytes], first: int, last: int) -> Iterator[tuple[bytes, bytes]]:
    """Play from point ``first`` on; what is saved at each later point until ``last``, and all ITTs."""
    for point in range(first, last):
        for at in range(point * STEP, (point + 1) * STEP, BATCH):
            machine.run(*commands[at : at + BATCH])
            machine.ack(at // BATCH % machine.cpus)
        yield machine.file(), machine.mem_read(ITT, ITTS)


def main() -> None:
    profile, point = sys.argv[1], int(sys.argv[2])
    with closing(Machine(profile)) as machine:
        data = sys.stdin.buffer.read()
        machine.mem_write(ITT, data[-ITTS:])
        machine.load(data[:-ITTS])
        for file, _itts in files(machine, stream(), point, point + AFTER):
            print(digest(file))


if __name__ == "__main__":
    main()
