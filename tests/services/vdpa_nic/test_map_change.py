"""The table of the changes: every row with its actions in order, events that it does not have, the diagram."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import LocalError
from services.vdpa_nic.map_change import TABLE, WAITING, Actions, Event, MapChange, State, diagram

AGAIN = ["restore_channels_info", "create_vqs", "resume_vqs", "done"]
ACTIONS = [name for name in vars(Actions) if not name.startswith("_")]


class Recorder:
    """Notes every action; ``then`` says what one of them causes."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.then: dict[str, Callable[[], None]] = {}

    def __getattr__(self, name: str) -> Callable[[], None]:
        assert name in ACTIONS

        def act() -> None:
            self.did.append(name)
            self.then.get(name, lambda: None)()

        return act


def machine() -> tuple[MapChange, Recorder]:
    recorder = Recorder()
    return MapChange(recorder), recorder


def told(recorder: Recorder) -> list[str]:
    did, recorder.did[:] = list(recorder.did), []
    return did


def test_a_change_of_map() -> None:
    change, do = machine()
    assert change.idle
    change.begin(Event.SET_MAP, [0, 2])
    assert (change.state, told(do)) == (State.SUSPENDING, ["suspend_vqs"])
    change.stands(2)
    change.stands(7)  # was not asked
    assert (change.state, told(do)) == (State.SUSPENDING, [])
    change.stands(0)
    assert (change.state, told(do)) == (State.KEYING, ["save_channels_info", "teardown_vqs", "create_mkey"])
    change.stands(0)  # said twice
    assert told(do) == []
    change.event(Event.MKEY_CREATED)
    assert told(do) == ["put_in_force", *AGAIN]
    assert change.idle


def test_only_between_changes_it_is_idle() -> None:
    change, _ = machine()
    for state in State:
        change.state = state
        assert change.idle == (state is State.IDLE)


def test_a_refused_key_leads_back() -> None:
    change, do = machine()
    change.begin(Event.SET_MAP, [])
    assert (change.state, told(do)) == (
        State.KEYING,
        ["suspend_vqs", "save_channels_info", "teardown_vqs", "create_mkey"],
    )
    change.event(Event.MKEY_REFUSED)
    assert told(do) == ["roll_back", *AGAIN]
    assert change.idle


def test_suspend_and_resume() -> None:
    change, do = machine()
    change.begin(Event.SUSPEND, [1])
    assert (change.state, told(do)) == (State.STOPPING, ["suspend_vqs"])
    change.stands(1)
    assert (change.state, told(do)) == (
        State.IDLE,
        ["finish_in_flight", "save_channels_info", "set_suspended", "done"],
    )
    change.begin(Event.RESUME, [])
    assert (change.state, told(do)) == (State.IDLE, ["clear_suspended", *AGAIN])


def test_reset_of_a_queue() -> None:
    change, do = machine()
    change.begin(Event.RESET_VQ, [5])
    assert (change.state, told(do)) == (State.RESETTING, ["suspend_vqs"])
    change.stands(5)
    assert (change.state, told(do)) == (
        State.IDLE,
        ["save_channels_info", "teardown_vqs", "forget_vqs", "done"],
    )


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (Event.SET_MAP, State.SUSPENDING),
        (Event.SUSPEND, State.STOPPING),
        (Event.RESET_VQ, State.RESETTING),
    ],
)
def test_a_new_link_while_queues_are_waited_for(event: Event, state: State) -> None:
    change, do = machine()
    change.begin(event, [0])
    told(do)
    change.wait_for([0, 1])
    change.event(Event.LINK_BACK)
    assert (change.state, change.waiting, told(do)) == (state, {0, 1}, [])
    change.stands(0)
    assert told(do) == [], "queue 1 says again where it stands"
    change.stands(1)
    assert change.state is not state


def test_a_new_link_while_the_key_is_made() -> None:
    change, do = machine()
    change.begin(Event.SET_MAP, [])
    told(do)
    change.wait_for([0])
    assert not change.waiting, "nobody is waited for here"
    change.event(Event.LINK_BACK)
    assert (change.state, told(do)) == (State.KEYING, ["create_mkey"])


def test_a_new_link_between_changes() -> None:
    change, do = machine()
    change.wait_for([0])
    change.event(Event.LINK_BACK)
    assert (change.state, change.waiting, told(do)) == (State.IDLE, set(), [])


def test_a_reset_ends_the_waiting() -> None:
    change, do = machine()
    change.begin(Event.SUSPEND, [0, 1])
    change.reset()
    assert change.idle
    assert do.did[-1] == "done"
    told(do)
    change.reset()
    assert told(do) == []


def test_what_an_action_causes_comes_after_its_row() -> None:
    """A map of nothing needs no key: create_mkey says at once that it stands, and the next change begins in done."""
    change, do = machine()
    do.then["create_mkey"] = lambda: change.event(Event.MKEY_CREATED)

    def another() -> None:
        del do.then["done"]
        change.begin(Event.RESET_VQ, [])

    do.then["done"] = another
    change.begin(Event.SET_MAP, [])
    assert do.did == [
        "suspend_vqs", "save_channels_info", "teardown_vqs", "create_mkey", "put_in_force", *AGAIN,
        "suspend_vqs", "save_channels_info", "teardown_vqs", "forget_vqs", "done",
    ]  # fmt: skip
    assert change.idle


def test_one_change_at_a_time() -> None:
    change, do = machine()
    change.begin(Event.SET_MAP, [0])
    told(do)
    with pytest.raises(LocalError, match="suspend in state suspending"):
        change.begin(Event.SUSPEND, [1])
    assert (change.waiting, told(do)) == ({0}, []), "and nothing has changed"


ILLEGAL = [(state, event) for state in State for event in Event if (state, event) not in TABLE]


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_events_that_the_table_does_not_have(state: State, event: Event) -> None:
    change, do = machine()
    change.state = state
    change.waiting = {0}
    with pytest.raises(LocalError, match=f"{event.value} in state {state.value}"):
        change.event(event)
    assert (change.state, do.did) == (state, [])
    # the fault was one event's: the machine goes on
    change.state = State.IDLE
    change.begin(Event.SUSPEND, [])
    assert do.did[-1] == "done"


def test_the_table_is_whole() -> None:
    """Every state can be left, whatever waits can be cut off, and no action is unused or without a name."""
    assert {row.next for row in TABLE.values()} == set(State)
    assert all((state, Event.LINK_BACK) in TABLE for state in State)
    assert {State.SUSPENDING, State.STOPPING, State.RESETTING} == WAITING
    assert {action for row in TABLE.values() for action in row.actions} == set(ACTIONS)
    ends = [row.actions[-1] for row in TABLE.values() if row.next is State.IDLE and row.actions]
    assert ends == ["done"] * len(ends), "whoever asked is answered whenever a change is over"


def test_the_diagram_has_every_row_with_actions() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    rows = [(state, event, row) for (state, event), row in TABLE.items() if row.actions]
    assert len(lines) == 1 + len(rows)
    for line, (state, event, row) in zip(lines[1:], rows, strict=True):
        assert line == f"    {state.value} --> {row.next.value}: {event.value} / {', '.join(row.actions)}"
    assert "suspending --> keying: all saved / save_channels_info, teardown_vqs, create_mkey" in diagram()
