"""Power domains above and below each other: whatever is loaded, what keeps its context hangs on what does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.scmi.power import OFF, ON
from services.scmi_platform.boards.power import PowerDomainSection
from services.scmi_platform.protocols.power_state import PowerDomain, PowerState, domains_of

PARENTS = ["", "0", "0", "1", "1", "3"]
RETENTION, DEEP = 1, 0x4000_0001


def tree(states: list[bool]) -> list[PowerDomain]:
    """Domain n hangs on PARENTS[n]; ``states`` says which are on, if those above are."""
    on: list[bool] = []
    for number, wanted in enumerate(states):
        on.append(wanted and (not PARENTS[number] or on[int(PARENTS[number])]))
    return domains_of(
        [
            PowerDomainSection(name=str(number), parent=PARENTS[number], on=one, states=[RETENTION, DEEP])
            for number, one in enumerate(on)
        ]
    )


def sound(domains: list[PowerDomain]) -> bool:
    return all(one.lost or one.parent is None or not one.parent.lost for one in domains)


LOADS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([ON, OFF, RETENTION, DEEP])), max_size=12)


@given(st.lists(st.booleans(), min_size=6, max_size=6), LOADS)
def test_any_snapshot_is_made_sound(states: list[bool], loads: list[tuple[int, int]]) -> None:
    domains = tree(states)
    assert sound(domains)
    for number, state in loads:
        domains[number].load(PowerState(state, 1))
        assert domains[number].state == state
        assert sound(domains)


@given(st.lists(st.booleans(), min_size=6, max_size=6), LOADS, st.permutations(range(6)))
def test_a_sound_snapshot_is_loaded_as_it_is(
    states: list[bool], loads: list[tuple[int, int]], order: list[int]
) -> None:
    domains = tree(states)
    for number, state in loads:  # as agents set them
        one = domains[number]
        if not one.refuses(state):
            if state in (ON, RETENTION):
                for above in one.off_above():
                    above.state, above.owner = ON, 1
            one.state, one.owner = state, 1
    assert sound(domains)
    again = tree(states)
    for number in order:
        saved = domains[number].save()
        if saved is not None:
            again[number].load(saved)
    assert [one.state for one in again] == [one.state for one in domains]


def test_what_is_off_above_from_the_top_on() -> None:
    domains = tree([False] * 6)
    assert [one.id for one in domains[5].off_above()] == [0, 1, 3]
    domains[0].state = RETENTION
    assert [one.id for one in domains[5].off_above()] == [1, 3]
    assert domains[0].off_above() == []


def test_below() -> None:
    domains = tree([True] * 6)
    assert [one.id for one in domains[0].below()] == [1, 2, 3, 4, 5]
    assert [one.id for one in domains[1].below()] == [3, 4, 5]
    assert list(domains[5].below()) == []
