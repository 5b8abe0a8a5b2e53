from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gic_its.ordered import Ids, added, members, neighbours, removed, without

#: three groups, and both ends of each
VALUES = st.integers(0, 8) | st.integers(250, 262) | st.integers(508, 520)


@given(st.lists(st.tuples(st.booleans(), VALUES)), VALUES)
def test_like_a_set(steps: list[tuple[bool, int]], probe: int) -> None:
    ids: Ids = ()
    model: set[int] = set()
    for add, value in steps:
        if add:
            ids = added(ids, value)
            model.add(value)
        else:
            ids = removed(ids, value)
            model.discard(value)
    assert tuple(members(ids)) == tuple(sorted(model))
    assert all(ids)
    previous = max((v for v in model if v < probe), default=None)
    distance = min((v - probe for v in model if v > probe), default=0)
    assert neighbours(ids, probe) == (previous, distance)


@given(st.sets(VALUES, min_size=1), st.data())
def test_a_run_of_one_group_goes_at_once(values: set[int], data: st.DataObject) -> None:
    ids: Ids = ()
    for value in values:
        ids = added(ids, value)
    group = data.draw(st.sampled_from(ids))
    first = data.draw(st.integers(0, len(group) - 1))
    run = group[first : data.draw(st.integers(first + 1, len(group)))]
    rest = without(ids, run)
    assert tuple(members(rest)) == tuple(sorted(values - set(run)))
    assert all(rest)


def test_what_changes_nothing_is_the_same_object() -> None:
    ids = added(added((), 3), 600)
    assert added(ids, 600) is ids
    assert removed(ids, 4) is ids
    assert removed(ids, 300) is ids


def test_a_change_leaves_other_groups_alone() -> None:
    """A set of 65,536 grows and shrinks at the cost of one group."""
    ids: Ids = ()
    for value in range(0, 65536, 7):
        ids = added(ids, value)
    grown, shrunk = added(ids, 30000), removed(ids, 7 * 4000)
    assert max(map(len, grown)) <= 256
    assert sum(a is not b for a, b in zip(ids, grown, strict=True)) == 1
    assert sum(a is not b for a, b in zip(ids, shrunk, strict=True)) == 1
