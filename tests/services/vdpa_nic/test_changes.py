"""Changes of the memory map on the mesh: what goes over the wire, what is skipped, what leads back, whose turn."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from common.virtio.features import Feature
from common.wire.messages import (
    Broken,
    Create,
    CreateMkey,
    Destroy,
    DestroyMkey,
    Message,
    MkeyCreated,
    Resume,
    Return,
    Saved,
    Suspend,
    Used,
)
from services.guest_driver.net_pair import RX, TX
from services.guest_driver.port_keys import MAX_KEYS
from services.vdpa_nic.changes import _common_suffix
from services.vdpa_nic.map_change import State
from tests.services.vdpa_nic.nic_rig import Rig, at, running, unharmed
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW

#: guest memory, and a range that the guest has no memory at
OUTSIDE = [(RAM + IOVA, BYTES, RAM, 3), (0, 4096, RAM + (1 << 29), 3)]


def sketch(messages: list[Message]) -> list[tuple[str, int]]:
    """Name, and queue or generation, of all that is not traffic."""
    out = []
    for m in messages:
        if isinstance(m, (Suspend, Saved, Destroy, Create, Resume)):
            out.append((type(m).__name__, m.queue))
        elif isinstance(m, (CreateMkey, MkeyCreated, DestroyMkey)):
            out.append((type(m).__name__, m.generation))
    return out


def traced(rig: Rig) -> list[tuple[str, int]]:
    """Settle, and note what went by."""
    seen: list[Message] = []
    while rig.to_device or rig.to_port:
        seen += rig.to_port
        rig.step("port")
        seen += rig.to_device
        rig.step("device")
    return sketch(seen)


# --- what goes over the wire ------------------------------------------------------------------------------------------


def test_a_change_of_map_on_the_wire() -> None:
    rig = running()
    assert rig.set_map() is None
    assert traced(rig) == [
        ("Suspend", RX), ("Suspend", TX),
        ("Saved", RX), ("Saved", TX),
        ("Destroy", RX), ("Destroy", TX), ("CreateMkey", 2),
        ("MkeyCreated", 2),
        ("DestroyMkey", 1),
        ("Create", TX), ("Create", RX), ("Resume", TX), ("Resume", RX),
    ]  # fmt: skip
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert len(rig.port.keys) == 1
    assert rig.device.vdpa_stats.map_changes == 2
    unharmed(rig)


def test_where_the_new_queue_objects_begin() -> None:
    rig = running()
    rig.set_map()
    while not any(isinstance(m, Create) for m in rig.to_port):
        rig.step("port")
        rig.step("device")
    tx, rx = (m for m in rig.to_port if isinstance(m, Create))
    assert (tx.queue, tx.generation, tx.index, tx.avail, tx.used) == (TX, 2, 2, 2, 2)
    assert (rx.queue, rx.index, rx.avail, rx.used) == (RX, 2, 10, 2), "eight buffers are handed back"
    assert (tx.desc, tx.driver, tx.device) == (rig.areas[TX].desc, rig.areas[TX].driver, rig.areas[TX].device)
    assert tx.features == rig.features
    unharmed(rig)


def test_before_the_driver_is_ready_only_the_key_is_made() -> None:
    rig = Rig()
    rig.up = True
    assert rig.set_map() is None
    assert traced(rig) == [("CreateMkey", 1), ("MkeyCreated", 1)]
    rig.vmm("dma_map", 0, WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 3)
    assert traced(rig) == [("CreateMkey", 2), ("MkeyCreated", 2), ("DestroyMkey", 1)]
    assert rig.vmm("reset_map", 0, seq=5) is None
    assert traced(rig) == [("CreateMkey", 3), ("MkeyCreated", 3), ("DestroyMkey", 2), ("DestroyMkey", 3)]
    assert rig.to_vmm[-1] == Return(5, 0), "when the port is through with what was sent before"
    assert rig.device.key(0) is None
    assert len(rig.port.keys) == 0


def test_queues_that_are_set_up_wait_for_driver_ok() -> None:
    rig = Rig()
    rig.connect()
    while rig.device.ready[:2] != [True, True]:
        rig.step("device", 1)
        rig.step("port", 1)
    rig.set_map()
    rig.device.frame(MkeyCreated(1, 0))
    assert rig.to_vmm == [Return(1001, 0)]
    assert rig.device.status == 11
    assert not any(queue.live for queue in rig.device.queues)
    rig.settle()
    rig.net.start()
    unharmed(rig)


def test_a_map_before_and_after_the_driver_is_ready() -> None:
    rig = Rig()
    rig.connect()
    rig.settle()
    assert rig.device.status == 15
    rig.net.start()
    rig.settle()
    assert rig.device.queues[RX].in_hand == 0, "no key, no queue"
    rig.set_map()
    assert traced(rig) == [
        ("CreateMkey", 1), ("MkeyCreated", 1), ("Create", TX), ("Create", RX), ("Resume", TX), ("Resume", RX),
    ]  # fmt: skip
    unharmed(rig)


def test_one_range_after_the_other() -> None:
    rig = running()
    where = (WINDOW[0] + IOVA, WINDOW[1])
    assert rig.vmm("dma_map", 0, *where, WINDOW[0], 3, seq=5) is None
    rig.settle()
    assert rig.device.key(0).map.covers(*where, 3)  # type: ignore[union-attr]
    assert rig.vmm("dma_map", 0, *where, WINDOW[0], 3, seq=6) == Return(6, 0), "is so"
    answer = rig.vmm("dma_map", 0, where[0] + 4096, 4096, WINDOW[0], 3)
    assert answer is not None
    assert answer.errno == errno.EEXIST
    assert rig.vmm("dma_unmap", 0, *where, seq=7) is None
    rig.settle()
    assert [answer.seq for answer in rig.to_vmm if answer.errno == 0][-3:] == [5, 6, 7]
    assert not rig.device.key(0).map.covers(*where, 3)  # type: ignore[union-attr]
    unharmed(rig)


def test_what_the_port_had_fetched_is_handed_back() -> None:
    """Frames that arrive between Suspend and Saved are not processed: the new queue object fetches them again."""
    rig = running()
    before = rig.port.stats.fetched
    assert rig.set_map() is None
    rig.send(3)
    assert rig.port.stats.fetched == before + 3
    rig.step("device")
    assert len(rig.device.core.pairs[0].waiting) == 3
    assert rig.device.core.stats.tx_frames == 2, "nothing moves during the change"
    rig.step("port")
    rig.step("device")
    assert rig.device.vdpa_stats.chains_handed_back == 3 + rig.size
    assert not rig.device.core.pairs[0].waiting
    rig.settle()
    assert rig.port.stats.fetched == before + 3 + 3 + rig.size + 3  # handed back: 3 and 8; refilled: 3
    assert rig.ledger.outstanding == 0
    assert [int.from_bytes(frame[-16:-8], "little") for frame in rig.got] == [0, 1, 2, 3, 4]


def test_answers_before_a_change_of_map_leave_transmit_first() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    rig.disconnect()
    assert rig.set_map() is None
    rig.connect()
    rig.step("device", 2)
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]
    unharmed(rig)


# --- what leads back --------------------------------------------------------------------------------------------------


def test_a_key_that_the_port_refuses() -> None:
    rig = running()
    old = rig.device.key(0)
    rig.send(4)
    assert rig.vmm("set_map", 0, OUTSIDE) is None
    assert traced(rig) == [
        ("Suspend", RX), ("Suspend", TX), ("Saved", RX), ("Saved", TX), ("Destroy", RX), ("Destroy", TX),
        ("CreateMkey", 2), ("MkeyCreated", 2),
        ("Create", TX), ("Create", RX), ("Resume", TX), ("Resume", RX),
    ]  # fmt: skip
    answer = rig.to_vmm[-1]
    assert (answer.seq, answer.errno) == (77, errno.EFAULT)
    assert str(answer.value).startswith("memory key: ")
    assert rig.device.key(0) is old
    stats = rig.device.vdpa_stats
    assert (stats.map_refused, stats.map_rolled_back, stats.map_changes) == (1, 1, 1)
    assert rig.port.stats.mkeys_refused == 1
    unharmed(rig)
    # the refused map left nothing behind: the next one stands on the old
    where = (WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 3)
    rig.vmm("dma_map", 0, *where)
    rig.settle()
    assert rig.to_vmm[-1] == Return(77, 0)
    assert len(rig.device.spaces.in_force(0).mappings) == 2
    assert rig.port.queues[TX].generation == 3
    unharmed(rig)


def test_a_refused_key_of_a_device_that_has_none_yet() -> None:
    rig = Rig()
    rig.connect()
    rig.settle()
    assert rig.vmm("set_map", 0, OUTSIDE) is None
    rig.settle()
    assert rig.to_vmm[-1].errno == errno.EFAULT
    assert rig.device.key(0) is None
    assert not any(queue.live for queue in rig.device.queues)
    rig.set_map()
    rig.settle()
    rig.net.start()
    unharmed(rig)


def test_a_key_refused_after_a_lost_link() -> None:
    rig = running()
    rig.vmm("set_map", 0, OUTSIDE)
    rig.step("port")
    rig.step("device")
    assert at(rig) is State.KEYING
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-1].errno == errno.EFAULT
    unharmed(rig)


def test_answers_about_other_keys_mean_nothing() -> None:
    rig = running()
    rig.device.frame(MkeyCreated(1, 0))
    rig.device.frame(MkeyCreated(1, errno.EFAULT, "late"))
    assert rig.set_map() is None
    rig.device.frame(MkeyCreated(2, 0))  # before anything was asked
    assert at(rig) is State.SUSPENDING
    rig.step("port")
    rig.step("device")
    rig.device.frame(MkeyCreated(1, 0))
    rig.device.frame(MkeyCreated(1, errno.EFAULT, "late"))
    assert at(rig) is State.KEYING
    unharmed(rig)
    assert rig.to_vmm[-1] == Return(1002, 0)


# --- one after the other ----------------------------------------------------------------------------------------------


def test_changes_are_answered_in_the_order_of_their_calls() -> None:
    """Each looks at what stands when its turn has come; the refused ones too are answered in their turn."""
    rig = running()
    where = (WINDOW[0] + IOVA, WINDOW[1])
    calls: list[tuple[str, list[Any], int]] = [
        ("dma_map", [*where, WINDOW[0], 3], 0),
        ("dma_map", [*where, WINDOW[0], 1], errno.EEXIST),
        ("dma_unmap", [*where], 0),
        ("dma_map", [*where, WINDOW[0], 1], 0),
        ("set_map", [OUTSIDE], errno.EFAULT),
        ("set_map", [[]], errno.EINVAL),
        ("dma_unmap", [*where], 0),
        ("dma_unmap", [*where], 0),
    ]
    before = len(rig.to_vmm)
    for seq, (op, args, _) in enumerate(calls):
        assert rig.vmm(op, 0, *args, seq=seq) is None, "not before its turn"
    rig.send(4)
    rig.settle()
    answers = rig.to_vmm[before:]
    assert [(answer.seq, answer.errno) for answer in answers] == [(n, code) for n, (_, _, code) in enumerate(calls)]
    stats = rig.device.vdpa_stats
    assert (stats.map_changes, stats.map_refused, stats.map_rolled_back) == (1 + 4, 3, 1)
    unharmed(rig)


def test_changes_of_two_address_spaces() -> None:
    rig = running()
    rig.vmm("set_map", 1, [(0, 4096, RAM, 1)], seq=1)
    rig.set_map()
    rig.vmm("set_map", 1, [(0, 8192, RAM, 1)], seq=2)
    rig.settle()
    assert [answer.seq for answer in rig.to_vmm[-3:]] == [1, 1002, 2]
    assert len(rig.port.keys) == 2
    unharmed(rig)


def test_a_queue_enabled_in_the_middle_of_a_change() -> None:
    rig = running()
    rig.driver("set_vq_ready", TX, False)
    rig.settle()
    rig.set_map()
    assert rig.driver("set_vq_ready", TX, True) == Return(10_002, 0)
    assert sketch(list(rig.to_port)) == [("Suspend", RX)]
    unharmed(rig)


# --- keys that nobody needs -------------------------------------------------------------------------------------------


def test_keys_whose_end_was_lost_do_not_pile_up_at_the_port() -> None:
    rig = running()
    for _ in range(MAX_KEYS + 2):
        rig.set_map()
        while not any(isinstance(m, DestroyMkey) for m in rig.to_port):
            rig.step("port")
            rig.step("device")
        rig.disconnect()
        rig.connect()
        rig.settle()
        assert rig.to_vmm[-1].errno == 0
        assert len(rig.port.keys) <= 3
    unharmed(rig)


def test_keys_of_earlier_incarnations_do_not_pile_up_at_the_port() -> None:
    rig = running()
    for count in range(12, 0, -1):
        rig.restart()
        rig.connect()
        for _ in range(count):
            rig.set_map()
        rig.settle()
    assert len(rig.port.keys) <= 3


# --- broken queues ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True])
def test_a_queue_that_breaks_in_mid_change_holds_nothing_up(lost: bool) -> None:
    rig = running()
    assert rig.set_map() is None
    rig.rings[TX].add_batch([(RAM + IOVA + BYTES + (1 << 30), 60, "bad")], 0)
    rig.port.doorbell(TX)
    if lost:
        rig.disconnect()
        rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.port.queues[RX].generation == 2
    assert rig.device.queues[TX].broken
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_change_does_not_wait_for_what_is_dead() -> None:
    rig = running()
    assert rig.set_map() is None
    rig.device.frame(Broken(RX, "head", "nonsense"))
    assert at(rig) is State.SUSPENDING
    rig.device.frame(Broken(TX, "head", "nonsense"))
    assert at(rig) is State.KEYING, "no Saved has come"
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)


def test_a_queue_that_breaks_while_the_key_is_made_is_not_made_anew() -> None:
    rig = running()
    assert rig.set_map() is None
    rig.step("port")
    rig.step("device")
    rig.device.frame(Broken(TX, "head", "nonsense"))
    created = [entry for entry in traced(rig) if entry[0] == "Create"]
    assert created == [("Create", RX)]
    assert rig.to_vmm[-1] == Return(1002, 0)


def test_a_queue_reset_is_not_counted_as_a_change_of_map() -> None:
    rig = Rig()
    rig.features |= Feature.RING_RESET.bit
    rig.start()
    rig.driver("reset_vq", TX)
    rig.settle()
    assert rig.device.vdpa_stats.map_changes == 1
    assert [type(m) for m in rig.alarms] == []
    assert rig.device.queues[TX].next_idx == 0


def test_common_suffix() -> None:
    assert [_common_suffix(a, b) for a, b in (([], []), ([1], []), ([1, 2, 3], [3]), ([1, 2], [1, 2]), ([1], [2]))] == [
        0, 0, 1, 2, 0,
    ]  # fmt: skip
