"""A hostile driver, a hostile guest's side of the port, a hostile VMM.

Whatever they do is counted and breaks the queue that it concerns, with DEVICE_NEEDS_RESET where the driver is at fault;
the other queues of the same NIC run on, and nothing grows without bound.
"""

from __future__ import annotations

import errno
import random
from typing import Any, Final

import pytest

from common.errors import RemoteError
from common.memory import ACCESS_RW
from common.virtio.device import MAX_LOGGED
from common.virtio.features import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Status
from common.virtio.net_ctrl import NET_ERR, NET_OK
from common.virtio.net_header import TX_PLAIN
from common.wire.messages import Avail, Broken, Chain, Irq, Message, MkeyCreated, Resync, Saved
from services.vdpa_nic.changes import MAX_WAITING
from tests.services.vdpa_nic.mesh_rig import WHOLE
from tests.services.vdpa_nic.victim import CTRL, READ_ONLY, RX, TX, Desc, Victim
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW

N, W, I = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT  # noqa: E741
END: Final = RAM + IOVA + BYTES
#: Guest memory that no map holds.
SECRET: Final = WINDOW[0]


#: name → (queue, descriptors of its table, of the indirect table, heads made available, how far idx jumps besides)
HARMS: Final[dict[str, tuple[int, list[Desc], list[Desc], list[int], int]]] = {
    "a descriptor that follows itself": (TX, [(1, 4, N, 0)], [], [0], 0),
    "a loop of two": (TX, [(1, 4, N, 1), (1, 4, N, 0)], [], [0], 0),
    "a loop of writable ones": (RX, [(1, 64, N | W, 1), (1, 64, N | W, 0)], [], [0], 0),
    "a length of 4 GiB": (TX, [(1, 0xFFFF_FFFF, 0, 0)], [], [0], 0),
    "a writable length of 4 GiB": (RX, [(1, 0xFFFF_FFFF, W, 0)], [], [0], 0),
    "many long ones": (TX, [(1, 30_000, N * (i < 7), i + 1) for i in range(8)], [], [0], 0),
    "address 0": (TX, [(0, 64, 0, 0)], [], [0], 0),
    "an address that is not mapped": (RX, [(SECRET, 64, W, 0)], [], [0], 0),
    "over the end of a mapping": (TX, [(END - 32, 64, 0, 0)], [], [0], 0),
    "before the start of a mapping": (RX, [(RAM + IOVA - 32, 64, W, 0)], [], [0], 0),
    "round the end of the address space": (TX, [(2**64 - 16, 64, 0, 0)], [], [0], 0),
    "round the end, writable": (RX, [(2**64 - 16, 64, W, 0)], [], [0], 0),
    "round to where it began": (TX, [(2**64 - 1, 0xFFFF_FFFF, 0, 0)], [], [0], 0),
    "writes where it may only read": (RX, [(READ_ONLY, 64, W, 0)], [], [0], 0),
    "an address outside, of no bytes": (TX, [(0, 0, N, 1), (1, 64, 0, 0)], [], [0], 0),
    "a next outside the table": (TX, [(1, 4, N, 8)], [], [0], 0),
    "a next of 65535": (TX, [(1, 4, N, 65535)], [], [0], 0),
    "readable behind writable": (RX, [(1, 64, W | N, 1), (1, 64, 0, 0)], [], [0], 0),
    "a head outside the table": (TX, [(1, 64, 0, 0)], [], [8], 0),
    "a head of 65535": (RX, [(1, 64, W, 0)], [], [65535], 0),
    "a head twice": (RX, [(1, 64, W, 0)], [], [0, 0], 0),
    "the index jumps": (TX, [(1, 64, 0, 0)], [], [0], 8),
    "the index jumps half round": (RX, [(1, 64, W, 0)], [], [0], 0x7FFF),
    "the index goes back": (TX, [(1, 64, 0, 0)], [], [], -1),
    "an indirect table in one": (TX, [(2, 16, I, 0)], [(2, 16, I, 0)], [0], 0),
    "an indirect table longer than the queue": (TX, [(2, 16 * 9, I, 0)], [(1, 4, N, i + 1) for i in range(9)], [0], 0),
    "an indirect table of 4 GiB": (TX, [(2, 0xFFFF_FFF0, I, 0)], [(1, 4, 0, 0)], [0], 0),
    "an indirect table of no entry": (TX, [(2, 0, I, 0)], [], [0], 0),
    "an indirect table of half an entry": (TX, [(2, 24, I, 0)], [(1, 4, 0, 0)], [0], 0),
    "an indirect table that is not mapped": (TX, [(SECRET, 16, I, 0)], [], [0], 0),
    "an indirect table round the end": (TX, [(2**64 - 16, 32, I, 0)], [], [0], 0),
    "an indirect table not aligned": (TX, [(3, 16, I, 0)], [(1, 4, 0, 0)], [0], 0),
    "a loop in an indirect table": (TX, [(2, 32, I, 0)], [(1, 4, N, 1), (1, 4, N, 0)], [0], 0),
    "a next outside an indirect table": (TX, [(2, 16, I, 0)], [(1, 4, N, 1)], [0], 0),
    "an indirect table chained on": (TX, [(2, 16, I | N, 1), (1, 4, 0, 0)], [(1, 4, 0, 0)], [0], 0),
    "a receive buffer of a header": (RX, [(1, 12, W, 0)], [], [0], 0),
    "a receive buffer of nothing": (RX, [(1, 0, W, 0)], [], [0], 0),
    "a receive buffer to be read": (RX, [(1, 64, 0, 0)], [], [0], 0),
    "a command without an answer": (CTRL, [(1, 3, 0, 0)], [], [0], 0),
    "an answer of no bytes": (CTRL, [(1, 3, N, 1), (1, 0, W, 0)], [], [0], 0),
    "an answer outside": (CTRL, [(1, 3, N, 1), (SECRET, 1, W, 0)], [], [0], 0),
}  # fmt: skip

#: What the port says of those that something behind it would stop too.
SAYS: Final = {
    "a descriptor that follows itself": "chain = 9 (limit 8): descriptor loop",
    "a loop of two": "chain = 9 (limit 8): descriptor loop",
    "a loop of writable ones": "chain = 9 (limit 8): descriptor loop",
    "a loop in an indirect table": "chain = 9 (limit 8): descriptor loop",
    "many long ones": "exceed a frame",
    "a head twice": "made available twice",
    "the index jumps": "index jumped",
    "the index jumps half round": "index jumped",
    "the index goes back": "index jumped",
    "an indirect table longer than the queue": "bytes of an indirect table",
    "readable behind writable": "after a writable",
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("event_idx", [False, True])
def test_a_harmful_ring_breaks_its_queue_alone(harm: str, event_idx: bool) -> None:
    index, descs, table, heads, jump = HARMS[harm]
    mesh = Victim(event_idx=event_idx).start()
    places = {1: mesh.room + IOVA, 2: mesh.table + IOVA, 3: mesh.table + IOVA + 4}
    queue = mesh.queues[index]
    mesh.put(queue.layout.desc, [(places.get(addr, addr), *rest) for addr, *rest in descs])  # type: ignore[misc]
    mesh.put(mesh.table, [(places.get(addr, addr), *rest) for addr, *rest in table])  # type: ignore[misc]
    if index == CTRL:
        mesh.memory.write(mesh.room, bytes([0, 0, 1]))
    before = mesh.memory.read(SECRET, WINDOW[1])
    mesh.offer(queue, heads, jump)
    mesh.settle()
    assert mesh.device.queues[index].broken
    assert mesh.port.queues[index].broken
    assert SAYS.get(harm, "") in mesh.alarms[0].reason  # type: ignore[attr-defined]
    assert mesh.device.status & Status.DEVICE_NEEDS_RESET
    assert [q.index for q in mesh.device.queues if q.broken] == [index]
    assert mesh.device.stats.rings_broken == 1
    assert mesh.memory.read(SECRET, WINDOW[1]) == before
    mesh.others_run()
    # a doorbell, a new connection and a change of map do not wake the dead
    mesh.port.doorbell(index)
    mesh.disconnect()
    mesh.connect()
    mesh.vmm("set_map", 0, WHOLE)
    mesh.settle()
    assert mesh.asked == {}
    assert mesh.device.stats.rings_broken == 1
    mesh.others_run()
    # the reset does
    mesh.by_hand.clear()
    mesh.reset()
    assert mesh.device.status == 15
    assert mesh.echoes(0)
    assert mesh.echoes(1)


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        ("an address that is not mapped", "faults_unmapped"),
        ("writes where it may only read", "faults_permission"),
    ],
)
def test_faults_are_counted_by_kind(harm: str, kind: str) -> None:
    index, descs, _, heads, _ = HARMS[harm]
    mesh = Victim().start()
    mesh.put(mesh.queues[index].layout.desc, descs)
    mesh.offer(mesh.queues[index], heads)
    mesh.settle()
    assert getattr(mesh.device.vdpa_stats, kind) == 1


MALFORMED: Final[dict[str, list[bytes]]] = {
    "nothing": [b""],
    "half a header": [TX_PLAIN[:6]],
    "a header alone": [TX_PLAIN],
    "too long": [TX_PLAIN + bytes(1519)],
    "60 kB": [bytes(30_000), bytes(30_000)],
    "a checksum that was not negotiated": [b"\1" + TX_PLAIN[1:] + bytes(64)],
    "segmentation that was not negotiated": [b"\0\1" + TX_PLAIN[2:] + bytes(64)],
    "flags of all bits": [b"\xff" * 12 + bytes(64)],
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_packet_is_counted_and_completed(what: str) -> None:
    mesh = Victim().start()
    mesh.give(0)
    mesh.kick(mesh.queues[RX])
    mesh.settle()
    queue = mesh.queues[TX]
    at, descs = mesh.room, []
    for i, piece in enumerate(MALFORMED[what]):
        mesh.memory.write(at, piece)
        descs.append((at + IOVA, len(piece), N * (i + 1 < len(MALFORMED[what])), i + 1))
        at += len(piece)
    mesh.put(queue.layout.desc, descs)
    mesh.offer(queue, [0])
    mesh.settle()
    assert mesh.device.core.stats.tx_malformed == 1
    assert mesh.used(queue) == 1
    assert mesh.alarms == []
    mesh.others_run()


#: name → (the readable pieces of a command, what it is answered)
COMMANDS: Final[dict[str, tuple[list[bytes], int]]] = {
    "nothing": ([], NET_ERR),
    "a class alone": ([b"\0"], NET_ERR),
    "no such class": ([b"\xff\xff"], NET_ERR),
    "64 KiB": ([b"\1\0" + b"\xff" * 65534], NET_ERR),
    "64 KiB of a MAC table": ([b"\1\0" + (10_921).to_bytes(4, "little") + bytes(65526)], NET_ERR),
    "a table of 2^32 addresses": ([b"\1\0", b"\xff" * 4, b"\xff" * 4], NET_ERR),
    "pairs of 0": ([b"\4\0\0\0"], NET_ERR),
    "pairs of 65535": ([b"\4\0\xff\xff"], NET_ERR),
    "a mode that is neither": ([b"\0\0\2"], NET_ERR),
    "in three pieces": ([b"\0", b"\0", b"\1"], NET_OK),
    "in pieces of nothing": ([b"", b"\0\0", b"", b"", b"\1", b""], NET_OK),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_nonsense_on_the_control_queue_is_answered(what: str) -> None:
    pieces, ack = COMMANDS[what]
    mesh = Victim().start()
    at, descs = mesh.room, []
    for i, piece in enumerate(pieces):
        mesh.memory.write(at, piece)
        descs.append((at + IOVA, len(piece), N, i + 1))
        at += len(piece)
    mesh.memory.write(mesh.table, b"\xee\xee")
    mesh.put(mesh.ctrl.layout.desc, [*descs, (mesh.table + IOVA, 2, W, 0)])
    was = mesh.used(mesh.ctrl)
    mesh.offer(mesh.ctrl, [0])
    mesh.settle()
    assert mesh.used(mesh.ctrl) == was + 1
    assert mesh.memory.read(mesh.table, 2) == bytes([ack, 0xEE])
    assert mesh.alarms == []
    assert mesh.device.core.state.pairs == 2
    assert mesh.echoes(1)


# --- a hostile port ---------------------------------------------------------------------------------------------------

SEGMENT: Final = (RAM + IOVA, 64, W)
FRAMES: Final[dict[str, Message]] = {
    "stale key": Avail(0, 7, 0, [(0, b"", (SEGMENT,))], 0),
    "key of -1": Avail(0, -1, 0, [(0, b"", (SEGMENT,))], 0),
    "not the next entry": Avail(0, 1, 1, [(0, b"", (SEGMENT,))], 0),
    "an entry of 2^40": Avail(0, 1, 1 << 40, [(0, b"", (SEGMENT,))], 0),
    "head of -1": Avail(0, 1, 0, [(-1, b"", (SEGMENT,))], 0),
    "head of 2^63": Avail(0, 1, 0, [(1 << 63, b"", (SEGMENT,))], 0),
    "head twice": Avail(0, 1, 0, [(0, b"", (SEGMENT,)), (0, b"", (SEGMENT,))], 0),
    "no segment": Avail(0, 1, 0, [(0, b"", ())], 0),
    "too many segments": Avail(0, 1, 0, [(0, b"", (SEGMENT,) * 9)], 0),
    "too many chains": Avail(0, 1, 0, [(i % 8, b"", (SEGMENT,)) for i in range(9)], 0),
    "a length below 0": Avail(0, 1, 0, [(0, b"", ((RAM + IOVA, -1, W),))], 0),
    "bytes that are not there": Avail(1, 1, 0, [(0, b"ab", ((RAM + IOVA, 64, 0),))], 0),
    "an address below 0": Avail(0, 1, 0, [(0, b"", ((-64, 64, W),))], 0),
    "an address to read outside": Avail(1, 1, 0, [(0, bytes(64), ((0, 64, 0),))], 0),
    "used beyond": Avail(0, 1, 0, [(0, b"", (SEGMENT,))], 5),
    "used of -1": Avail(0, 1, 0, [(0, b"", (SEGMENT,))], -1),
    "again, what never was": Avail(0, 1, 0, [(i, b"", (SEGMENT,)) for i in range(9)], 0, True),
    "resync ahead": Resync(0, 100, 100, 0, 0, 0),
    "resync of no u16": Resync(0, -1, 1 << 40, 0, 0, 0),
    "resync, used beyond": Resync(0, 0, 0, 9, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("what", FRAMES)
def test_a_hostile_port_breaks_its_queue_alone(what: str) -> None:
    mesh = Victim().start()
    message = FRAMES[what]
    mesh.device.frame(message)
    mesh.device.batch_end()
    index = message.queue  # type: ignore[attr-defined]
    assert [q.index for q in mesh.device.queues if q.broken] == [index]
    assert mesh.device.status & Status.DEVICE_NEEDS_RESET
    mesh.settle()
    assert mesh.echoes(1)


@pytest.mark.parametrize("kind", ["avail", "saved", "resync", "irq", "broken"])
@pytest.mark.parametrize("index", [-1, 5, 1 << 40])
def test_a_queue_that_there_is_not_is_an_error_of_the_link(kind: str, index: int) -> None:
    mesh = Victim().start()
    message: Message = {
        "avail": Avail(index, 1, 0, [], 0),
        "saved": Saved(index, 0, 0, 0, 0),
        "resync": Resync(index, 0, 0, 0, 0, 0),
        "irq": Irq(index, 1),
        "broken": Broken(index, "x", "y"),
    }[kind]
    with pytest.raises(RemoteError, match="queue"):
        mesh.device.frame(message)
    mesh.others_run()


def test_a_port_that_takes_no_answers_gets_no_more_than_a_queue_of_them() -> None:
    mesh = Victim().start()
    chains: list[Chain] = [(head, b"", ((RAM + IOVA, 0, 0),)) for head in range(8)]
    broken = []
    for first in (0, 8):
        mesh.device.frame(Avail(1, 1, first, chains, 0))
        mesh.device.batch_end()
        broken.append(mesh.device.queues[1].broken)
    assert broken == [False, True]
    mesh.settle()
    assert mesh.echoes(1)


HARMLESS: Final[tuple[Message, ...]] = (
    Saved(0, 0, 0, 0, 0),
    Saved(2, 7, 7, 7, 7),
    Saved(0, -1, 1 << 40, -5, -1),
    MkeyCreated(1, 0),
    MkeyCreated(99, 0),
    MkeyCreated(-1, 14, "x"),
    MkeyCreated(1, 14, "x"),
    Irq(2, -1),
    Irq(0, 1 << 62),
)


@pytest.mark.parametrize("during", ["nothing", "a change of map", "a suspension", "a new connection"])
def test_words_out_of_turn_do_no_harm_to_others(during: str) -> None:
    for message in HARMLESS:
        mesh = Victim().start()
        if during == "a change of map":
            mesh.vmm("set_map", 0, WHOLE)
        elif during == "a suspension":
            mesh.vmm("suspend")
        elif during == "a new connection":
            mesh.disconnect()
            mesh.connect()
        mesh.device.frame(message)
        mesh.settle()
        mesh.vmm("resume")
        mesh.settle()
        assert mesh.asked == {}, (during, message)
        wronged = getattr(message, "queue", None)
        if wronged not in (2, 3):
            assert mesh.echoes(1), (during, message)


# --- a hostile VMM ----------------------------------------------------------------------------------------------------

HUGE: Final = 1 << 200
CALLS: Final[list[tuple[Any, ...]]] = [
    ("set_map", 0, [(i << 12, 4096, RAM, ACCESS_RW) for i in range(10_000)]),
    ("set_map", 0, [(-4096, 8192, RAM, ACCESS_RW)]),
    ("set_map", 0, [(HUGE, 4096, RAM, ACCESS_RW)]),
    ("set_map", 0, [(0, HUGE, RAM, ACCESS_RW)]),
    ("set_map", 0, [(0, 4096, -1, ACCESS_RW)]),
    ("set_map", 0, [(0, 4096, RAM, 7)]),
    ("set_map", 0, [(0, 4096, RAM)]),
    ("set_map", 0, [(0.5, 4096, RAM, 3)]),
    ("set_map", 0, "all"),
    ("set_map", 0, []),
    ("set_map", HUGE, WHOLE),
    ("set_map", None, None),
    ("set_map",),
    ("dma_map", 0, HUGE, 4096, RAM, 3),
    ("dma_map", 0, 0, 1 << 64, 0, 3),
    ("dma_map", 0, RAM + IOVA + 4096, 4096, RAM, 3),
    ("dma_unmap", 0, RAM + IOVA, 4096),
    ("dma_unmap", 0, RAM + IOVA, BYTES),
    ("dma_unmap", 0, -1, HUGE),
    ("reset_map", 0),
    ("reset_map", [[[]]]),
    ("set_group_asid", 0, 1),
    ("set_group_asid", HUGE, -HUGE),
    ("get_vq_state", HUGE),
    ("get_vq_num_max", -1),
    ("get_config", -1, HUGE),
    ("get_config", 0, HUGE),
    ("kick_vq", 5),
    ("set_status", 0),
    ("set_vq_address", 0, 0, 0, 0),
    ("reset_vq", 0),
    ("x" * 100_000, 0),
    ("__init__",),
    ("call", 1),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0][:16])
def test_a_hostile_vmm_is_refused_and_changes_nothing(call: tuple[Any, ...]) -> None:
    mesh = Victim().start()
    before = mesh.device.spaces.in_force(0), mesh.device.vdpa_stats.map_changes, mesh.device.status
    answers: list[Any] = []
    mesh.vmm(*call, after=answers.append)
    mesh.settle()
    assert len(answers) == 1
    assert answers[0].errno in (errno.EINVAL, errno.E2BIG, errno.EEXIST, errno.EPERM, errno.EOPNOTSUPP, errno.EBUSY)
    assert len(answers[0].value) <= 256
    assert (mesh.device.spaces.in_force(0), mesh.device.vdpa_stats.map_changes, mesh.device.status) == before
    assert mesh.device.stats.calls_refused == 1
    mesh.others_run()


def test_refusals_and_waiting_changes_are_bounded() -> None:
    mesh = Victim().start()
    dice = random.Random(5)
    logged = len(mesh.logged)
    for _ in range(2000):
        mesh.vmm(f"op{dice.random()}")
    assert len(mesh.logged) - logged <= MAX_LOGGED
    mesh.disconnect()
    answers: list[Any] = []
    for i in range(500):
        mesh.vmm("set_map", 0, WHOLE if i % 2 else [*WHOLE, (READ_ONLY, 4096, WINDOW[0], 3)], after=answers.append)
    assert {answer.errno for answer in answers} == {errno.EBUSY}
    assert len(answers) == 500 - MAX_WAITING - 1
    mesh.connect()
    mesh.settle()
    assert mesh.asked == {}
    mesh.others_run()
