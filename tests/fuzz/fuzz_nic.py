"""Whatever the driver of the first queue pair and the control queue, their end of the port and the VMM do, the NIC
breaks at most those queues, answers every call, holds no more than its queues have entries, and echoes every frame of
the second pair once and in order.

Rings are written by hand, with descriptors that are right, nearly right or noise; frames of the port are forged; calls
of the VMM have arguments of any type and size; links go down and messages are delivered one by one meanwhile.

``python -m tests.fuzz.fuzz_nic COUNT SEED FIRST``: so many moves, in episodes from number FIRST on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from common.errors import FrameError, RemoteError
from common.memory import ACCESS_RO
from common.virtio.device import MAX_LOGGED
from common.virtio.features import Status
from common.wire.messages import Avail, Broken, Chain, Irq, Message, MkeyCreated, Resync, Return, Saved
from services.vdpa_nic.changes import MAX_WAITING
from services.vdpa_nic.vdpa import VMM_OPS
from tests.fuzz import rounds
from tests.services.vdpa_nic.mesh_rig import WHOLE
from tests.services.vdpa_nic.victim import Desc, Victim
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW

#: Moves an episode: one NIC from its start.
EPISODE: Final = 150
#: The queues that are attacked: those of the first pair, and the control queue.
ATTACKED: Final = (0, 1, 4)
#: The queues that nobody touches.
HEALTHY: Final = (2, 3)

_START: Final = RAM + IOVA
_ADDRESSES: Final = (0, _START, _START + BYTES - 64, _START + BYTES, WINDOW[0] + IOVA, 2**64 - 64, 2**64 - 1)
_LENGTHS: Final = (0, 1, 3, 11, 12, 13, 16, 64, 128, 1530, 4096, 65536, 1 << 31, 0xFFFF_FFFF)
_NUMBERS: Final = (-(1 << 63), -1, 0, 1, 2, 4, 5, 7, 8, 64, 255, 65535, 65536, 1 << 32, (1 << 63) - 1)
_MAPS: Final = (
    WHOLE,
    [*WHOLE, (1 << 20, 0x1000, WINDOW[0], ACCESS_RO)],
    [(RAM + IOVA, BYTES // 2, RAM, 3), (RAM + IOVA + BYTES // 2, BYTES // 2, RAM + BYTES // 2, 3)],
)


class Episode:
    """One NIC and what was done to it."""

    def __init__(self, seed: int, number: int) -> None:
        self.dice: Final = random.Random(f"{seed} {number}")
        self.counts: Counter[str] = Counter()
        self.mesh: Final = Victim(event_idx=self.dice.random() < 0.5)
        self.mesh.start()
        #: a frame of the port was forged: from then on the NIC may tell the port of chains that it does not hold
        self.forged = False

    # --- the driver ---------------------------------------------------------------------------------------------------

    def descs(self, count: int, at: int) -> list[Desc]:
        dice, rows = self.dice, []
        for i in range(count):
            addr = dice.choice((*_ADDRESSES, at, at, at, self.mesh.room + IOVA, self.mesh.room + IOVA))
            addr = max(0, addr + dice.choice((0, 0, 0, 1, 4, 16, -16))) & (2**64 - 1)
            length = dice.choice(_LENGTHS) if dice.random() < 0.7 else 16 * dice.randrange(10)
            flags = dice.choice((0, 0, 1, 1, 2, 2, 3, 3, 4, 5, dice.getrandbits(16)))
            rows.append((addr, length, flags, dice.choice((i + 1, i + 1, dice.randrange(count), dice.getrandbits(16)))))
        return rows

    def ring(self) -> None:
        """Descriptors, an indirect table and available entries of one queue."""
        mesh, dice = self.mesh, self.dice
        queue = mesh.queues[dice.choice(ATTACKED)]
        mesh.put(queue.layout.desc, self.descs(mesh.size, mesh.table + IOVA))
        mesh.put(mesh.table, self.descs(12, mesh.table + IOVA))
        mesh.memory.write(mesh.room, dice.randbytes(dice.choice((3, 12, 14, 64, 2000))))
        heads = [dice.choice((i, dice.randrange(mesh.size), dice.randrange(mesh.size + 1)))
                 for i in range(dice.choice((1, 1, 1, 2, 3, mesh.size)))]  # fmt: skip
        mesh.offer(queue, heads, dice.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 8, -1, 0x8000)))

    # --- the port -----------------------------------------------------------------------------------------------------

    def number(self) -> int:
        return self.dice.choice(_NUMBERS) if self.dice.random() < 0.5 else self.dice.randrange(9)

    def frame(self) -> Message:
        """A frame of the port for a queue that is attacked, nearly right."""
        dice, number = self.dice, self.number
        queue = dice.choice((*ATTACKED, *ATTACKED, *ATTACKED, -1, 5, 1 << 40))
        far = self.mesh.device.queues[queue] if queue in ATTACKED else self.mesh.device.queues[0]
        place = dice.choice((far.next_idx, far.next_idx, number()))
        used = dice.choice((far.confirmed_idx, far.confirmed_idx, far.used_idx, number()))
        generation = far.key.generation if far.key is not None and dice.random() < 0.8 else number()
        kind = dice.randrange(6)
        if kind == 0:
            chains: list[Chain] = []
            for i in range(dice.choice((0, 1, 1, 2, 9))):
                segments = tuple(
                    (dice.choice(_ADDRESSES), dice.choice((*_LENGTHS, -1)), dice.choice((0, 2, 2)))
                    for _ in range(dice.choice((0, 1, 1, 2, 9)))
                )
                size = sum(n for _, n, flags in segments if not flags & 2)
                data = bytes(size) if 0 <= size < 4096 and dice.random() < 0.8 else b"x"
                chains.append((dice.choice((i, number())), data, segments))
            return Avail(queue, generation, place, chains, used, dice.random() < 0.3)
        if kind == 1:
            return Saved(queue, place, number(), used, number())
        if kind == 2:
            return Resync(queue, place, number(), used, number(), number())
        if kind == 3:
            return Irq(queue, number())
        if kind == 4:
            # the key that is being made is one matter of all queues: a lie about it harms them all
            known = [key.generation for key in self.mesh.device.changes.keys.values()]
            return MkeyCreated(dice.choice((-1, 0, 1 << 32, *known)), dice.choice((0, 0, 14)), "forged")
        return Broken(queue, "forged", "x" * dice.choice((0, 10)))

    def forge(self) -> None:
        self.forged = True
        message = self.frame()
        try:
            self.mesh.device.frame(message)
        except RemoteError as error:
            if error.field != "queue" or getattr(message, "queue", 0) in range(5):
                raise
            self.counts["refused: queue"] += 1

    # --- the VMM ------------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        """An argument of a call, of any type and size."""
        number = self.number
        ranges = [[number() for _ in range(4)] for _ in range(3)]
        many = [[i << 12, 4096, RAM, 3] for i in range(1025)]
        one = [[0, 4096, RAM, 3]]
        odd: tuple[Any, ...] = (
            1 << 200,
            -(1 << 200),
            None,
            "x",
            1.5,
            [],
            b"",
            [[]],
            True,
            one,
            ranges,
            many,
        )
        return self.dice.choice((number(), number(), number(), *odd))

    def vmm(self) -> None:
        mesh, dice = self.mesh, self.dice

        def after(answer: Return) -> None:
            self.counts[f"answer: {answer.errno}"] += 1

        if dice.random() < 0.4:
            mesh.vmm("set_map", 0, dice.choice(_MAPS), after=after)
        elif dice.random() < 0.3:
            mesh.vmm(dice.choice(("suspend", "resume", "resume")), after=after)
        elif all(mesh.device.queues[q].live for q in HEALTHY) and mesh.device.changes.machine.idle:
            # else a map without the rings of the second pair could be in force when that is made
            op = dice.choice((*sorted(VMM_OPS - {"suspend"}), "set_status", "no_such_thing"))
            args = [dice.choice((0, 0, 1, self.value())) for _ in range(dice.randrange(6))]
            if op == "dma_map" and dice.random() < 0.5:
                args = [0, self.number(), self.number(), self.number(), 3]
            mesh.vmm(op, *args, after=after)

    # --- an episode ---------------------------------------------------------------------------------------------------

    def move(self) -> str:
        mesh, dice = self.mesh, self.dice
        what = dice.choice(("ring", "ring", "port", "port", "vmm", "traffic", "traffic", "step", "step", "step", "step",
                            "link", "doorbell", "settle"))  # fmt: skip
        if what == "ring":
            self.ring()
        elif what == "port":
            # how a connection begins is one matter of all queues: the Resyncs, then the rest
            if dice.random() < 0.3 and not mesh.device.awaited:
                self.forge()
        elif what == "vmm":
            self.vmm()
        elif what == "traffic":
            mesh.transmit(1, dice.randrange(4))
            mesh.give(1)
            mesh.kick(mesh.queues[2])
            mesh.kick(mesh.queues[3])
        elif what == "doorbell":
            mesh.port.doorbell(dice.randrange(5))
        elif what == "link":
            if dice.random() < 0.7:
                pass
            elif mesh.up:
                mesh.disconnect()
            else:
                mesh.connect()
        elif what == "settle":
            self.deliver(mesh.settle)
        else:
            self.deliver(lambda: mesh.step(dice.choice(("device", "port")), dice.randrange(3)))
        return what

    def deliver(self, step: Callable[[], None]) -> None:
        """A NIC that was lied to may send what the port does not take: the link would be closed, and opened again."""
        try:
            step()
        except FrameError:
            raise
        except RemoteError as error:
            if not self.forged:
                raise
            self.counts[f"link closed: {error.field}"] += 1
            self.mesh.disconnect()
            self.mesh.connect()

    def check(self) -> None:
        mesh = self.mesh
        for queue in mesh.device.queues:
            assert queue.in_hand <= max(queue.size, 1)
            assert not queue.broken or queue.index in ATTACKED, "a queue broke that nobody attacked"
            assert not queue.broken or mesh.device.status & Status.DEVICE_NEEDS_RESET
        assert len(mesh.asked) <= MAX_WAITING + 2
        assert len(mesh.logged) <= 2 * MAX_LOGGED

    def run(self, moves: int) -> None:
        for _ in range(moves):
            what = self.move()
            self.check()
            self.counts[f"move: {what}"] += 1
        self.end()

    def end(self) -> None:
        """The second pair has lost nothing, every call is answered, and a reset makes all whole."""
        mesh = self.mesh
        if not mesh.up:
            mesh.connect()
        mesh.vmm("resume")
        mesh.vmm("set_map", 0, WHOLE)
        for _ in range(20):
            self.deliver(mesh.settle)
            mesh.give(1)
            mesh.kick(mesh.queues[2])
            mesh.kick(mesh.queues[3])
        for queue in mesh.device.queues:
            self.counts[f"broken: {queue.index}"] += queue.broken
        assert mesh.asked == {}, "a call was not answered"
        numbers = [n for at, pair, n in mesh.got if pair == 1]
        assert numbers == list(range(mesh.sent[1])), "frames of the second pair were lost, doubled or out of order"
        self.check()
        mesh.by_hand.clear()
        mesh.reset()
        assert mesh.device.status == 15
        assert all(mesh.echoes(pair) for pair in (0, 1))


def fuzz(count: int, seed: int, first: int = 0, report: Callable[[int], None] = lambda _done: None) -> Counter[str]:
    """Episodes from number ``first`` on until ``count`` moves were made. Returns what was counted."""
    return rounds.episodes(Episode, EPISODE, count, seed, first, report)


if __name__ == "__main__":
    rounds.run(fuzz, "the second pair lost nothing, every call was answered")
