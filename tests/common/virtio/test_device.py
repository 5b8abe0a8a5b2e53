"""A virtio device over the mesh: status and phases (virtio 1.3 §2.1, §3.1.1), refusals, broken rings, interrupts."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from common.errors import MemoryFaultError, RemoteError
from common.memory import GuestMemory, MemoryKey
from common.virtio.device import MAX_LOGGED, VirtioDevice
from common.virtio.features import Feature, Status
from common.virtio.split_layout import SplitLayout
from common.virtio.vdpa_ops import OPS, Phase
from common.wire.messages import (
    Avail,
    Broken,
    Call,
    Create,
    Destroy,
    Irq,
    Kick,
    Message,
    Msi,
    Notice,
    Resume,
    Resync,
    Saved,
    Used,
)
from tests.common.virtio.ringkit import OFFERED, EchoDevice, configure, identity_key

LAYOUTS = [SplitLayout.packed_at(0x1000, 4), SplitLayout.packed_at(0x2000, 8)]
MEMORY = GuestMemory(0x10000)
KEY = identity_key(MEMORY, 1)


def make(key: MemoryKey | None = KEY) -> tuple[EchoDevice, list[Message], list[Message]]:
    sent: list[Message] = []
    msis: list[Message] = []
    return EchoDevice(sent, msis, [4, 8], key), sent, msis


def running() -> tuple[EchoDevice, list[Message], list[Message]]:
    device, sent, msis = make()
    configure(device, LAYOUTS)
    sent.clear()
    return device, sent, msis


def call(device: VirtioDevice, op: str, *args: Any) -> Any:
    answer = device.answer(Call(1, op, list(args)))
    assert answer is not None
    assert answer.errno == 0, answer
    return answer.value


def refused(device: VirtioDevice, op: str, *args: Any) -> int:
    before = device.stats.calls_refused
    answer = device.answer(Call(1, op, list(args)))
    assert answer is not None
    assert answer.errno != 0
    assert isinstance(answer.value, str)
    assert len(answer.value) > 10
    assert device.stats.calls_refused == before + 1
    return answer.errno


# --- status -----------------------------------------------------------------------------------------------------------

A, D, F, OK, FAIL, NEEDS = 1, 2, 8, 4, 128, 64
STEPS: list[tuple[str, list[int], int, int | None]] = [
    # what happens, statuses written before, the one written, what stands afterwards (None: refused)
    ("acknowledge", [], A, A),
    ("driver", [A], A | D, A | D),
    ("both at once", [], A | D, A | D),
    ("the same again", [A | D], A | D, A | D),
    ("driver before acknowledge", [], D, None),
    ("features before driver", [A], A | F, None),
    ("driver_ok before features", [A | D], A | D | OK, None),
    ("a bit taken back", [A | D], A, None),
    ("an unknown bit", [A], A | 32, None),
    ("suspend was not offered", [A], A | 16, None),
    ("a bit beyond the byte", [], 256, None),
    ("negative", [], -1, None),
    ("failed", [A], A | FAIL, A | FAIL),
    ("needs_reset is the device's", [A], A | NEEDS, A),
    ("reset", [A | D], 0, 0),
    ("features without VERSION_1 do not stick", [A | D], A | D | F, A | D),
    ("nothing behind them sticks", [A | D], A | D | F | OK, A | D),
]


@pytest.mark.parametrize(("name", "before", "write", "after"), STEPS, ids=[row[0] for row in STEPS])
def test_status(name: str, before: list[int], write: int, after: int | None) -> None:
    device, _, _ = make()
    for status in before:
        call(device, "set_status", status)
    stood = device.status
    if after is None:
        assert refused(device, "set_status", write) == errno.EINVAL
        assert device.status == stood
    else:
        assert call(device, "set_status", write) == after == call(device, "get_status")


def test_phases() -> None:
    device, _, _ = make()
    seen = [device.phase]
    for op, args in (("set_status", 1), ("set_status", 3), ("set_driver_features", OFFERED), ("set_status", 11)):
        call(device, op, args)
        seen.append(device.phase)
    call(device, "set_status", 15)
    seen.append(device.phase)
    assert seen == [Phase.RESET, Phase.RESET, Phase.FEATURES, Phase.FEATURES, Phase.SETUP, Phase.RUNNING]


ARGS: dict[str, list[Any]] = {
    "set_driver_features": [OFFERED],
    "set_status": [0],
    "get_config": [0, 1],
    "get_vq_num_max": [0],
    "set_vq_num": [0, 4],
    "set_vq_address": [0, 0x1000, 0x2000, 0x3000],
    "set_vq_cb": [0, 1],
    "set_vq_state": [0, 0],
    "get_vq_state": [0],
    "set_vq_ready": [0, False],
    "get_vq_ready": [0],
    "kick_vq": [0],
}


@pytest.mark.parametrize("op", sorted(OPS))
@pytest.mark.parametrize(
    ("phase", "statuses"),
    [(Phase.RESET, []), (Phase.FEATURES, [3]), (Phase.SETUP, [3, 11]), (Phase.RUNNING, [3, 11, 15])],
)
def test_an_op_is_legal_in_its_phases_only(op: str, phase: Phase, statuses: list[int]) -> None:
    device, _, _ = make()
    for status in statuses:
        if status == 11:
            call(device, "set_driver_features", OFFERED)
        call(device, "set_status", status)
    assert device.phase == phase
    args = ARGS.get(op, [])
    if phase & OPS[op].phases:
        call(device, op, *args)
    else:
        assert refused(device, op, *args) == errno.EBUSY


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("no_such_operation" * 10, [], errno.EOPNOTSUPP),
        ("batch_end", [], errno.EOPNOTSUPP),  # a method, not an operation
        ("get_status", [1], errno.EINVAL),
        ("set_vq_num", [0], errno.EINVAL),
        ("set_vq_num", [0, "4"], errno.EINVAL),
        ("set_vq_num", [0, 0], errno.EINVAL),
        ("set_vq_num", [0, 3], errno.EINVAL),
        ("set_vq_num", [0, 8], errno.EINVAL),
        ("set_vq_num", [0, -4], errno.EINVAL),
        ("set_vq_num", [2, 4], errno.EINVAL),
        ("set_vq_num", [-1, 4], errno.EINVAL),
        ("get_vq_num_max", [2], errno.EINVAL),
        ("get_vq_state", [2], errno.EINVAL),
        ("set_vq_address", [0, 8, 0, 0], errno.EINVAL),
        ("set_vq_address", [0, 0, 1, 0], errno.EINVAL),
        ("set_vq_address", [0, 0, 0, 2], errno.EINVAL),
        ("set_vq_address", [0, -16, 0, 0], errno.EINVAL),
        ("set_vq_address", [0, 1 << 64, 0, 0], errno.EINVAL),
        ("set_vq_address", [9, 0, 0, 0], errno.EINVAL),
        ("set_vq_cb", [0, 1 << 16], errno.EINVAL),
        ("set_vq_cb", [0, -1], errno.EINVAL),
        ("set_vq_cb", [5, 1], errno.EINVAL),
        ("set_vq_state", [0, 1 << 16], errno.EINVAL),
        ("set_vq_state", [0, -1], errno.EINVAL),
        ("set_vq_state", [0, 5, 1 << 16], errno.EINVAL),
        ("set_vq_state", [0], errno.EINVAL),
        ("set_vq_state", [0, 1, 2, 3], errno.EINVAL),
        ("set_vq_state", [0, 1, 0], errno.EINVAL),  # no size yet: nothing can be under way
        ("get_vq_ready", [2], errno.EINVAL),
        ("set_vq_ready", [0, True], errno.EINVAL),  # no size yet
        ("set_vq_ready", [0, 1], errno.EINVAL),
        ("set_vq_ready", [7, False], errno.EINVAL),
        ("get_config", [0, 17], errno.EINVAL),
        ("get_config", [-1, 1], errno.EINVAL),
        ("get_config", [1, -1], errno.EINVAL),
    ],
)
def test_bad_arguments(op: str, args: list[Any], code: int) -> None:
    device, _, _ = make()
    call(device, "set_status", 3)
    call(device, "set_driver_features", OFFERED)
    call(device, "set_status", 11)
    assert refused(device, op, *args) == code


@pytest.mark.parametrize("features", [OFFERED | Feature.RING_PACKED.bit, Feature.EVENT_IDX.bit, 0, -1])
def test_bad_features(features: int) -> None:
    device, _, _ = make()
    call(device, "set_status", 3)
    assert refused(device, "set_driver_features", features) == errno.EINVAL
    assert device.features == 0


def test_two_queues_cannot_share_an_event() -> None:
    """Interrupt numbers count per queue and MSIs per event: a shared one would swallow the slower queue's."""
    device, _, _ = running()
    assert refused(device, "set_vq_cb", 1, 40) == errno.EBUSY
    call(device, "set_vq_cb", 1, 41)
    call(device, "set_vq_cb", 1, 50)


def test_an_event_stays_with_its_first_queue_until_the_reset() -> None:
    """The numbers that its first queue raised would have the next one's taken for repeats."""
    device, _, msis = running()
    device.frame(Irq(1, 1000))
    call(device, "set_vq_cb", 1, 50)
    assert refused(device, "set_vq_cb", 0, 41) == errno.EBUSY
    call(device, "set_vq_cb", 1, 41)
    call(device, "set_status", 0)
    configure(device, LAYOUTS[:1])
    call(device, "set_vq_cb", 0, 41)
    msis.clear()
    device.frame(Irq(0, 1))
    assert msis == [Msi("vm", 7, 41, 1)]


def test_a_reset_device_sends_no_interrupt_again() -> None:
    device, _, msis = running()
    device.frame(Irq(0, 1))
    assert device.msi.unconfirmed == 1
    call(device, "set_status", 0)
    msis.clear()
    device.msi.tick(1000.0)
    device.msi.resend_all(1000.0)
    assert (msis, device.msi.unconfirmed) == ([], 0)


def test_reads() -> None:
    device, _, _ = make()
    assert call(device, "get_device_id") == 63
    assert call(device, "get_device_features") == OFFERED
    assert call(device, "get_config", 2, 3) == b"\2\3\4"
    assert call(device, "get_config", 16, 0) == b""
    assert call(device, "get_vq_num_max", 1) == 8


def test_what_a_device_type_finds_wrong_is_an_answer_too() -> None:
    class Strict(EchoDevice):
        def op_get_vq_state(self, index: int) -> int:
            raise MemoryFaultError("addr", "0x10", None, "nowhere")

    device = Strict([], [], [4], KEY)
    assert refused(device, "get_vq_state", 0) == errno.EINVAL


# --- life -------------------------------------------------------------------------------------------------------------


def test_driver_ok_makes_the_ready_queues() -> None:
    device, sent, _ = make()
    configure(device, LAYOUTS[:1])
    assert [m.queue for m in sent if isinstance(m, Create)] == [0]
    device.frame(Call(9, "set_status", [0]))
    assert [type(m).__name__ for m in sent] == ["Create", "Resume", "Destroy", "Return"]
    assert (device.phase, device.stats.resets, device.vectors, device.ready) == (
        Phase.RESET, 1, [None, None], [False, False],
    )  # fmt: skip


def test_a_device_that_waits_for_its_map() -> None:
    device, sent, _ = make(None)
    configure(device, LAYOUTS)
    assert sent == []
    device.change_key(KEY)
    assert [m.generation for m in sent if isinstance(m, Create)] == [1, 1]


def test_set_vq_state_says_where_to_begin() -> None:
    device, sent, _ = make()
    call(device, "set_status", 3)
    call(device, "set_driver_features", OFFERED)
    call(device, "set_status", 11)
    call(device, "set_vq_num", 0, 4)
    call(device, "set_vq_state", 0, 0xFFFE)
    call(device, "set_vq_ready", 0, True)
    call(device, "set_status", 15)
    create = sent[0]
    assert isinstance(create, Create)
    assert (create.index, create.used) == (0xFFFE, 0xFFFE)
    assert call(device, "get_vq_state", 0) == 0xFFFE


def test_a_resumed_queue_keeps_the_ports_place() -> None:
    device, sent, _ = make()
    device.frame(Resync(0, 12, 12, 10, 2, 0))
    call(device, "set_status", 3)
    call(device, "set_driver_features", OFFERED)
    call(device, "set_status", 11)
    call(device, "set_vq_num", 0, 4)
    call(device, "set_vq_state", 0, 0)
    call(device, "set_vq_ready", 0, True)
    call(device, "set_status", 15)
    create = sent[0]
    assert isinstance(create, Create)
    assert (create.index, create.used, create.policy & 8) == (12, 10, 8)
    device.frame(Avail(0, 1, 10, [(0, b"ab", [(0, 2, 0)]), (1, b"ab", [(0, 2, 0)])], 10, True))
    assert (device.stats.refetched, device.stats.resyncs) == (2, 1)


# --- broken rings -----------------------------------------------------------------------------------------------------

GOOD = Avail(0, 1, 0, [(0, b"ab", [(0, 2, 0)])], 0)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Avail(1, 1, 7, [], 0), "avail.first_idx"),
        (Avail(1, 1, 0, [(0, b"", [(0xFFFFFF, 1, 2)])], 0), "addr"),
        (Resync(1, 9, 9, 0, 9, 0), "resync.index"),
        (Resync(1, 0, 0, 5, 0, 0), "avail.used_idx"),
    ],
)
def test_a_broken_ring_is_told_and_the_others_run_on(message: Message, field: str) -> None:
    device, sent, _ = running()
    device.frame(message)
    assert isinstance(sent[0], Broken)
    assert (sent[0].queue, sent[0].field) == (1, field)
    assert isinstance(sent[1], Notice)
    assert sent[1].what == "needs_reset"
    assert device.status == 15 | Status.DEVICE_NEEDS_RESET
    device.frame(message)
    assert device.stats.rings_broken == 1
    del sent[:]
    device.frame(GOOD)
    device.answer_one(0, 0)
    device.batch_end()
    assert sent == [Used(0, 0, [(0, b"")])]
    call(device, "set_status", 79)  # a driver may write back what it read
    call(device, "set_status", 0)
    assert device.status == 0
    configure(device, LAYOUTS)
    assert device.queues[1].live
    assert not device.queues[1].broken


def test_the_port_may_break_a_queue() -> None:
    device, sent, _ = running()
    for _ in range(2):
        device.frame(Broken(0, "head", "out of range"))
    assert [type(m) for m in sent] == [Notice]
    assert device.stats.rings_broken == 1
    device.frame(Resync(0, 0, 0, 0, 0, 0))  # the port does not know: it is told, and the queue stays dead
    assert isinstance(sent[-1], Broken)
    assert device.queues[0].broken


def test_a_restarted_device_does_not_revive_a_queue_that_its_port_broke() -> None:
    device, sent, _ = make()
    device.frame(Broken(0, "head", "out of range"))
    configure(device, LAYOUTS)
    assert [m.queue for m in sent if isinstance(m, Create)] == [1]


@pytest.mark.parametrize("message", [Avail(2, 1, 0, [], 0), Irq(-1, 1), Saved(2, 0, 0, 0, 0), Resync(9, 0, 0, 0, 0, 0)])
def test_a_queue_that_is_not_there_closes_the_link(message: Message) -> None:
    device, _, _ = running()
    with pytest.raises(RemoteError, match="queue"):
        device.frame(message)
    with pytest.raises(RemoteError):
        device.frame(Broken(5, "x", "y"))
    device.frame(Kick(0))  # nothing to a device


def test_frames_for_a_queue_that_does_not_stand_are_dropped() -> None:
    device, sent, _ = make()
    device.frame(GOOD)
    assert (sent, device.stats.chains) == ([], 0)


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_interrupts_become_numbered_msis() -> None:
    device, _, msis = running()
    for number in (1, 2, 2, 1):
        device.frame(Irq(1, number))
    assert msis == [Msi("vm", 7, 41, 1), Msi("vm", 7, 41, 2)]
    assert device.queues[1].irq_number == 2


def test_an_interrupt_before_its_vector_is_raised_when_it_has_one() -> None:
    device, _, msis = make()
    device.frame(Resync(0, 0, 0, 0, 0, 5))
    device.frame(Irq(1, 3))
    assert msis == []
    configure(device, LAYOUTS)
    assert msis == [Msi("vm", 7, 40, 5), Msi("vm", 7, 41, 3)]


def test_an_interrupt_that_the_connection_took_is_raised_at_resync() -> None:
    device, sent, msis = running()
    device.frame(Irq(0, 1))
    device.frame(Resync(0, 0, 0, 0, 0, 2))
    assert msis == [Msi("vm", 7, 40, 1), Msi("vm", 7, 40, 2)]
    assert [type(m) for m in sent] == [Create, Resume]


def test_destroy_only_where_an_object_stands() -> None:
    device, sent, _ = make()
    device.reset()
    assert not any(isinstance(m, Destroy) for m in sent)


def test_refusals_are_counted_always_and_logged_once_a_kind() -> None:
    device, _, _ = make()
    said: list[dict[str, Any]] = []
    device.log = lambda _event, **context: said.append(context)
    for _ in range(50):
        refused(device, "x" * 100_000)
        refused(device, "get_config", 0, 1 << 20)
    assert [(line["op"], line["errno"]) for line in said] == [
        ("x" * 40, errno.EOPNOTSUPP),
        ("get_config", errno.EINVAL),
    ]
    assert all(len(line["reason"]) <= 256 for line in said)
    for number in range(1000):
        refused(device, f"op{number}")
    assert len(said) == MAX_LOGGED


def test_getters_and_kick() -> None:
    device, sent, _ = make()
    configure(device, LAYOUTS)
    sent.clear()
    assert call(device, "get_driver_features") == OFFERED
    assert call(device, "get_config_size") == len(device.config)
    assert call(device, "get_generation") == 0
    assert call(device, "get_vq_ready", 0) is True
    call(device, "kick_vq", 1)
    assert sent == [Kick(1)]
    call(device, "reset")
    assert device.phase == Phase.RESET
    assert call(device, "get_vq_ready", 0) is False


def test_a_saved_state_with_more_under_way_than_the_queue_has() -> None:
    device, sent, _ = make()
    for op, args in (("set_status", [3]), ("set_driver_features", [OFFERED]), ("set_status", [11])):
        call(device, op, *args)
    call(device, "set_vq_num", 0, 4)
    assert refused(device, "set_vq_state", 0, 9, 4) == errno.EINVAL
    assert call(device, "get_vq_state", 0) == 0, "nothing has changed"
    call(device, "set_vq_state", 0, 2, 0xFFFE)
    assert call(device, "get_vq_state", 0) == 2
    call(device, "set_vq_address", 0, 0x1000, 0x2000, 0x3000)
    call(device, "set_vq_ready", 0, True)
    call(device, "set_status", 15)
    create = next(m for m in sent if isinstance(m, Create))
    assert (create.index, create.avail, create.used) == (2, 2, 0xFFFE)
