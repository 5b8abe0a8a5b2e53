"""Numbers: every MSI is covered by a delivery that began after it, and confirmed when the guest took that one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.runtime.world import AsyncWorld
from services.gic_its import delivery as module
from services.gic_its.delivery import MAX_RAISED, Delivery, order
from services.gic_its.state import NONE, UNCOUNTED, Control, Lpi, RedistState
from services.gic_its.stats import ItsStats


class Line:
    """``events`` events of device 1, LPI 8192 at vCPU 0 (``lpi``) and at vCPU 1 (``other``), and guests that take
    deliveries when they are told to."""

    def __init__(self, events: int = 1) -> None:
        self.control = Control(forwards=True)
        self.stats = ItsStats()
        self.taken: list[int] = []
        self.where: list[int] = []
        self.done: list[tuple[int, int, int]] = []
        self.delivery = Delivery(
            AsyncWorld(), self.control, self.stats, self._deliver, lambda *done: self.done.append(done), cpus=2
        )
        self.ports = [RedistState(vcpu, enabled=True) for vcpu in range(2)]
        self.lpi, self.other = (Lpi(port, 8192, enabled=True, configured=True) for port in self.ports)
        self.sources = [self.delivery.source(1, event) for event in range(events)]

    def _deliver(self, vcpu: int, _intid: int, number: int) -> None:
        self.where.append(vcpu)
        self.taken.append(number)

    def msi(self, number: int, event: int = 0) -> None:
        self.delivery.msi(self.sources[event], self.lpi, number)

    def eoi(self) -> None:
        self.delivery.eoi(self.lpi, self.lpi.out)


def test_one_msi() -> None:
    line = Line()
    line.msi(1)
    assert line.taken == [1]
    assert line.done == []
    assert line.control.outstanding == 1
    line.eoi()
    assert line.done == [(1, 0, 1)]
    assert line.control.outstanding == 0
    assert (line.stats.msis, line.stats.delivered, line.stats.eois, line.stats.confirmed) == (1, 1, 1, 1)


def test_msis_while_outstanding_coalesce_into_one_delivery() -> None:
    line = Line()
    for number in (1, 2, 3):
        line.msi(number)
    assert line.taken == [1]
    assert list(line.delivery.resting[0]) == [8192]
    line.eoi()
    assert line.taken == [1, 3]
    assert line.done == [(1, 0, 1)]
    assert list(line.delivery.resting[0]) == []
    line.eoi()
    assert line.taken == [1, 3]
    assert line.done == [(1, 0, 1), (1, 0, 3)]
    assert line.stats.coalesced == 2


@pytest.mark.parametrize("number", [3, 4])
def test_a_number_already_confirmed_is_confirmed_at_once(number: int) -> None:
    line = Line()
    line.msi(4)
    line.eoi()
    line.msi(number)
    assert line.taken == [4]
    assert line.done == [(1, 0, 4), (1, 0, 4)]
    assert line.stats.repeated == 1


def test_a_resend_of_what_is_on_its_way_is_no_new_delivery() -> None:
    line = Line()
    line.msi(1)
    line.msi(1)
    line.eoi()
    assert line.taken == [1]
    assert line.lpi.pending is False
    assert line.stats.coalesced == 1


def test_what_is_cleared_is_confirmed() -> None:
    line = Line()
    line.control.held = True
    line.msi(1)
    line.msi(2)
    line.delivery.clear(line.lpi)
    line.control.held = False
    assert line.done == [(1, 0, 2)]
    line.msi(2)
    assert line.taken == []
    assert line.stats.repeated == 1
    line.msi(3)
    assert line.taken == [3]


def test_what_is_cleared_while_another_is_outstanding_is_confirmed_and_the_other_still_ends() -> None:
    line = Line()
    line.msi(1)
    line.msi(2)
    line.delivery.clear(line.lpi)
    assert line.done == [(1, 0, 2)]
    line.eoi()
    assert line.taken == [1]
    assert line.done == [(1, 0, 2)]
    assert (line.control.outstanding, line.sources[0].held) == (0, 0)


def test_clearing_what_is_not_pending_changes_nothing() -> None:
    line = Line()
    line.msi(1)
    line.delivery.clear(line.lpi)
    assert line.done == []
    line.eoi()
    assert line.done == [(1, 0, 1)]


def test_int_is_uncounted_and_never_hides_a_number() -> None:
    line = Line()
    line.msi(1)
    line.eoi()
    line.delivery.set_pending(line.lpi)
    line.delivery.set_pending(line.lpi)  # while it is outstanding: pending once more
    assert line.taken == [1, UNCOUNTED]
    line.msi(2)
    line.eoi()
    assert line.taken == [1, UNCOUNTED, 2]
    line.eoi()
    assert line.done == [(1, 0, 1), (1, 0, 2)]


def test_a_shared_lpi_confirms_each_event_by_its_own_number() -> None:
    line = Line(events=2)
    line.control.held = True
    line.msi(7, event=0)
    line.msi(2, event=1)
    line.control.held = False
    line.delivery.offer(line.lpi)
    assert line.taken == [UNCOUNTED]
    assert [(source.sent, source.held) for source in line.sources] == [(7, 1), (2, 1)]
    line.msi(7, event=0)  # resent: it is on its way
    assert not line.lpi.pending
    line.eoi()
    assert line.done == [(1, 0, 7), (1, 1, 2)]


def test_stray_eois_are_counted() -> None:
    line = Line()
    line.delivery.eoi(line.lpi, NONE)
    line.delivery.eoi(line.lpi, 1)
    line.msi(5)
    line.delivery.eoi(line.lpi, 4)
    assert line.stats.stray_eois == 3
    assert line.done == []


def test_priority_then_lowest_intid() -> None:
    line = Line()
    taken: list[int] = []
    delivery = Delivery(
        AsyncWorld(), line.control, line.stats, lambda _v, intid, _n: taken.append(intid), lambda *_: None, 1
    )
    port = RedistState(0, enabled=True)
    lpis = [Lpi(port, 8192 + n, True, priority, True, pending=n != 3) for n, priority in enumerate((9, 4, 4, 0, 0))]
    delivery.offer_all(lpis)
    assert taken == [8196, 8193, 8194, 8192]
    assert order(lpis[0]) > order(lpis[2]) > order(lpis[1]) > order(lpis[4]) > order(lpis[3])


def test_nothing_goes_out_while_anything_speaks_against_it() -> None:
    line = Line()
    for owner, name, off in (
        (line.lpi, "enabled", False),
        (line.ports[0], "enabled", False),
        (line.control, "held", True),
        (line.control, "forwards", False),
    ):
        setattr(owner, name, off)
        line.delivery.set_pending(line.lpi)
        assert line.taken == []
        assert list(line.delivery.resting[0]) == [8192]
        setattr(owner, name, not off)
        line.delivery.clear(line.lpi)
        assert list(line.delivery.resting[0]) == []


# --- moves -------------------------------------------------------------------------------------------------------


def test_a_move_takes_pending_state_and_its_account_along() -> None:
    line = Line()
    line.control.held = True
    line.msi(3)
    line.control.held = False
    line.delivery.move(line.lpi, line.other)
    assert (line.where, line.taken) == ([1], [3])
    assert not line.lpi.pending
    line.delivery.eoi(line.other, 3)
    assert line.done == [(1, 0, 3)]


def test_a_move_of_nothing_is_nothing() -> None:
    line = Line()
    line.msi(1)
    line.delivery.move(line.lpi, line.other)  # the vCPU holds it: that stays
    assert line.where == [0]
    assert not line.other.pending
    line.eoi()
    assert line.done == [(1, 0, 1)]


def test_a_move_between_two_that_are_pending_makes_one_that_covers_both() -> None:
    line = Line(events=2)
    line.control.held = True
    line.msi(1, event=0)
    line.delivery.msi(line.sources[1], line.other, 4)
    line.delivery.set_pending(line.lpi)
    line.delivery.move(line.lpi, line.other)
    assert list(line.delivery.resting[0]) == []
    assert (line.lpi.pending, line.lpi.uncounted, line.lpi.raised) == (False, False, ())
    assert line.other.uncounted
    line.control.held = False
    line.delivery.offer(line.other)
    assert (line.where, line.taken) == ([1], [UNCOUNTED])
    line.delivery.eoi(line.other, UNCOUNTED)
    assert sorted(line.done) == [(1, 0, 1), (1, 1, 4)]
    assert line.control.outstanding == 0


def test_a_move_to_where_the_vcpu_holds_one_rests_until_its_eoi() -> None:
    line = Line()
    line.delivery.set_pending(line.other)
    line.control.held = True
    line.msi(1)
    line.control.held = False
    line.delivery.move(line.lpi, line.other)
    assert line.taken == [UNCOUNTED]
    line.delivery.eoi(line.other, UNCOUNTED)
    assert (line.where, line.taken) == ([1, 1], [UNCOUNTED, 1])


def test_a_move_brings_the_configuration_to_where_none_is_known() -> None:
    line = Line()
    line.lpi.enabled, line.lpi.priority = False, 0x40
    line.other.configured = line.other.enabled = False
    line.msi(1)
    line.delivery.move(line.lpi, line.other)
    assert (line.other.configured, line.other.enabled, line.other.priority) == (True, False, 0x40)
    line.lpi.enabled = line.lpi.configured = True
    line.msi(2)
    line.other.priority = 0x80
    line.delivery.move(line.lpi, line.other)
    assert line.other.priority == 0x80


def test_a_source_that_waits_at_both_ends_of_a_move_is_accounted_for_once() -> None:
    """The event was unmapped while it was pending at one PE, and mapped anew to another."""
    line = Line()
    line.control.held = True
    line.msi(1)
    line.delivery.msi(line.sources[0], line.other, 2)
    line.delivery.move(line.other, line.lpi)
    line.msi(3)
    assert line.lpi.raised == (line.sources[0],)
    line.control.held = False
    line.delivery.offer(line.lpi)
    assert line.taken == [3]
    line.eoi()
    assert line.done == [(1, 0, 3)]
    assert line.sources[0].held == 0


# --- bounds ------------------------------------------------------------------------------------------------------


def test_what_one_lpi_keeps_account_of_is_bounded_and_the_rest_is_sent_again() -> None:
    line = Line(MAX_RAISED + 1)
    line.control.held = True
    for event in range(MAX_RAISED + 1):
        line.msi(1, event)
    assert len(line.lpi.raised) == MAX_RAISED
    line.control.held = False
    line.delivery.offer(line.lpi)
    line.eoi()
    assert line.done == [(1, event, 1) for event in range(MAX_RAISED)]
    line.msi(1, MAX_RAISED)
    assert line.taken == [UNCOUNTED, 1]
    line.eoi()
    assert line.done[-1] == (1, MAX_RAISED, 1)


def test_a_move_keeps_the_bound() -> None:
    line = Line(MAX_RAISED + 1)
    line.control.held = True
    line.msi(1, MAX_RAISED)
    for event in range(MAX_RAISED):
        line.delivery.msi(line.sources[event], line.other, 1)
    line.delivery.move(line.lpi, line.other)
    assert len(line.other.raised) == MAX_RAISED
    line.control.held = False
    line.delivery.offer(line.other)
    line.delivery.msi(line.sources[MAX_RAISED], line.other, 1)
    line.delivery.eoi(line.other, UNCOUNTED)
    assert line.taken == [UNCOUNTED, 1]


def test_sources_with_nothing_unconfirmed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SOURCES", 3)
    line = Line(3)
    line.control.held = True
    line.msi(1, 1)
    assert line.delivery.source(1, 9).number == 0
    assert line.delivery.source(1, 1) is line.sources[1]
    assert line.delivery.source(1, 0) is not line.sources[0]


def test_reset_forgets_everything() -> None:
    line = Line()
    line.lpi.enabled = False
    line.delivery.set_pending(line.lpi)
    line.delivery.reset()
    assert not list(line.delivery.resting[0])
    assert not list(line.delivery.dirty)
    assert line.delivery.source(1, 0) is not line.sources[0]


# --- in any order ------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(
        ["raise0", "raise1", "raise0", "raise1", "resend0", "resend1", "eoi", "eoi", "int", "off", "on", "hold",
         "resume", "clear", "there", "back"]
    )
)  # fmt: skip


@settings(max_examples=300)
@given(STEPS, st.integers(1, 2))
def test_every_number_raised_is_covered_and_none_is_delivered_twice(steps: list[str], events: int) -> None:
    """Invariant: a number is confirmed by the EOI of a delivery that began after it was raised, or by CLEAR; no
    counted number is delivered twice; when all is enabled and ended, everything raised is confirmed."""
    line = Line(events)
    lpis = (line.lpi, line.other)
    at = 0
    raised = [0] * events
    begun: list[list[int]] = [[], []]  # vCPU → what was raised when the delivery that it holds began
    seen = 0
    allowed = [0] * events  # what may be confirmed

    def note() -> None:
        nonlocal seen
        for vcpu in line.where[seen:]:
            begun[vcpu] = list(raised)
        seen = len(line.where)

    def end(vcpu: int) -> None:
        if lpis[vcpu].out != NONE:
            allowed[:] = map(max, allowed, begun[vcpu])
            line.delivery.eoi(lpis[vcpu], lpis[vcpu].out)
            note()

    for step in steps:
        event = int(step[-1]) % events if step[-1].isdigit() else 0
        if step.startswith("raise"):
            raised[event] += 1
            line.delivery.msi(line.sources[event], lpis[at], raised[event])
        elif step.startswith("resend") and raised[event]:
            line.delivery.msi(line.sources[event], lpis[at], raised[event])
        elif step == "eoi":
            end(0)
            end(1)
        elif step == "int":
            line.delivery.set_pending(lpis[at])
        elif step in ("off", "on"):
            lpis[at].enabled = step == "on"
            if lpis[at].pending:
                line.delivery.offer(lpis[at])
        elif step == "hold":
            line.control.held = True
        elif step == "resume":
            line.control.held = False
            line.delivery.offer_all(lpis)
        elif step == "clear":
            allowed[:] = map(max, allowed, raised)
            line.delivery.clear(lpis[at])
        elif step in ("there", "back"):
            old, at = at, int(step == "there")
            if old != at:
                line.delivery.move(lpis[old], lpis[at])
        note()
        for index, number in enumerate(raised):
            state = line.sources[index]
            assert state.done <= state.sent <= state.number == number
            assert state.done <= allowed[index]
        for lpi in lpis:
            assert (line.delivery.resting[lpi.port.vcpu].get(8192) is lpi) == lpi.pending
    line.control.held = False
    for lpi in lpis:
        lpi.enabled = True
    line.delivery.offer_all(lpis)
    note()
    for _ in range(3):
        end(0)
        end(1)
    assert line.control.outstanding == 0
    for index, number in enumerate(raised):
        assert line.sources[index].done == number
        assert line.sources[index].held == 0
        confirmed = [number for _, event, number in line.done if event == index]
        assert confirmed == sorted(confirmed)
    counted = [number for number in line.taken if number != UNCOUNTED]
    if events == 1:
        assert len(set(counted)) == len(counted)
    assert len(line.taken) <= sum(raised) + steps.count("int")
