"""Numbers: every MSI is covered by a delivery that began after it, and confirmed when the guest took that one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gic_its.delivery import Delivery
from services.gic_its.state import NONE, UNCOUNTED, Control, Event, Lpi, RedistState
from services.gic_its.stats import ItsStats


class Line:
    """``events`` events of device 1 on one LPI, and a guest that takes deliveries when it is told to."""

    def __init__(self, events: int = 1) -> None:
        self.control = Control()
        self.stats = ItsStats()
        self.taken: list[int] = []
        self.done: list[tuple[int, int, int]] = []
        self.port = RedistState(0, enabled=True)
        self.lpi = Lpi(self.port, 8192, enabled=True, configured=True)
        self.events = [Event(1, n, 8192, 0, self.lpi) for n in range(events)]
        self.lpi.events = tuple(self.events)
        self.delivery = Delivery(
            self.control, self.stats, lambda _v, _i, n: self.taken.append(n), lambda *d: self.done.append(d)
        )

    def msi(self, number: int, event: int = 0) -> None:
        self.delivery.msi(self.events[event], self.lpi, number)

    def eoi(self) -> None:
        self.delivery.eoi(self.lpi, self.lpi.out)


def test_one_msi() -> None:
    line = Line()
    line.msi(1)
    assert line.taken == [1]
    assert line.done == []
    line.eoi()
    assert line.done == [(1, 0, 1)]
    assert line.control.outstanding == 0


def test_msis_while_outstanding_coalesce_into_one_delivery() -> None:
    line = Line()
    for number in (1, 2, 3):
        line.msi(number)
    assert line.taken == [1]
    line.eoi()
    assert line.taken == [1, 3]
    assert line.done == [(1, 0, 1)]
    line.eoi()
    assert line.taken == [1, 3]
    assert line.done == [(1, 0, 1), (1, 0, 3)]
    assert line.stats.coalesced == 2


def test_a_number_already_confirmed_is_confirmed_at_once() -> None:
    line = Line()
    line.msi(4)
    line.eoi()
    line.msi(3)
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


def test_a_resend_of_what_was_cleared_is_delivered() -> None:
    line = Line()
    line.control.held = True
    line.msi(1)
    line.lpi.pending = False  # CLEAR
    line.control.held = False
    line.msi(1)
    assert line.taken == [1]


def test_a_resend_of_what_was_cleared_while_another_is_outstanding_is_delivered() -> None:
    line = Line()
    line.msi(1)
    line.msi(2)
    line.lpi.pending = False  # CLEAR
    line.msi(2)
    line.eoi()
    assert line.taken == [1, 2]


def test_the_number_confirmed_last_is_confirmed_again() -> None:
    line = Line()
    line.msi(4)
    line.eoi()
    line.msi(4)
    assert line.taken == [4]
    assert line.done == [(1, 0, 4), (1, 0, 4)]


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
    line.msi(7, event=0)
    line.msi(2, event=1)
    assert line.taken == [UNCOUNTED]
    line.eoi()
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
    delivery = Delivery(line.control, line.stats, lambda _v, intid, _n: taken.append(intid), lambda *_: None)
    port = RedistState(0, enabled=True)
    lpis = [Lpi(port, 8192 + n, True, priority, True, pending=n != 3) for n, priority in enumerate((9, 4, 4, 0, 0))]
    delivery.offer_all(lpis)
    assert taken == [8196, 8193, 8194, 8192]


def test_nothing_goes_out_while_disabled_or_held() -> None:
    line = Line()
    for owner, name, off, on in (
        (line.lpi, "enabled", False, True),
        (line.port, "enabled", False, True),
        (line.control, "held", True, False),
    ):
        setattr(owner, name, off)
        line.delivery.set_pending(line.lpi)
        assert line.taken == []
        setattr(owner, name, on)
        line.lpi.pending = False


def test_again_repeats_what_is_outstanding() -> None:
    line = Line()
    line.delivery.again(line.lpi)
    line.msi(1)
    line.delivery.again(line.lpi)
    assert line.taken == [1, 1]
    line.eoi()
    line.eoi()
    assert line.done == [(1, 0, 1)]
    assert line.stats.stray_eois == 1


STEPS = st.lists(
    st.sampled_from(["raise0", "raise1", "resend0", "resend1", "eoi", "int", "off", "on", "hold", "resume"])
)


@settings(max_examples=200)
@given(STEPS, st.integers(1, 2))
def test_every_number_raised_is_covered_and_none_is_delivered_twice(steps: list[str], events: int) -> None:
    """Invariant: confirmed numbers were delivered after they were raised; without INT and resume a counted number
    is delivered once; when all is enabled and ended, everything raised is confirmed."""
    line = Line(events)
    raised = [0] * events
    resumed = False
    for step in steps:
        event = int(step[-1]) % events if step[-1].isdigit() else 0
        if step.startswith("raise"):
            raised[event] += 1
            line.msi(raised[event], event)
        elif step.startswith("resend") and raised[event]:
            line.msi(raised[event], event)
        elif step == "eoi":
            line.eoi()
        elif step == "int":
            line.delivery.set_pending(line.lpi)
        elif step in ("off", "on"):
            line.lpi.enabled = step == "on"
            line.delivery.offer(line.lpi)
        elif step == "hold":
            line.control.held = True
        elif step == "resume":
            resumed = resumed or line.lpi.out != NONE
            line.control.held = False
            line.delivery.again(line.lpi)
            line.delivery.offer(line.lpi)
        for index, number in enumerate(raised):
            state = line.events[index]
            assert state.done <= state.sent <= state.number == number
    line.control.held = False
    line.lpi.enabled = True
    line.delivery.offer(line.lpi)
    for _ in range(3):
        line.eoi()
    assert line.control.outstanding == 0
    for index, number in enumerate(raised):
        assert line.events[index].done == number
    counted = [number for number in line.taken if number != UNCOUNTED]
    assert counted == sorted(counted)
    if not resumed:
        assert len(set(counted)) == len(counted)
    for index in range(events):
        confirmed = [number for _, event, number in line.done if event == index]
        assert confirmed == sorted(confirmed)
        if raised[index]:
            assert confirmed[-1] == raised[index]
