from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gic_its.ordered import Ids, added, before, distance, removed


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))), st.integers(0, 20))
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
    assert ids == tuple(sorted(model))
    assert before(ids, probe) == max((v for v in model if v < probe), default=None)
    assert distance(ids, probe) == min((v - probe for v in model if v > probe), default=0)
