"""Changes that need queues to stand still, the change of the memory map before all: one table, which the docs draw.

A change of map goes as in mlx5 (``set_map`` → ``change_map``): suspend the queues → save where each stands → tear the
queue objects down → make a memory key of the new map → make queue objects under it where the old ones stood → resume.
What fails on the way leads back: the queue objects are made anew under the old key. Suspending the device, resetting a
queue and disabling one stop queues in the same way, so they stand in the same table, and one change follows another.

An event that the table does not have in a state is a fault of ours (LocalError).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from common.errors import LocalError


class State(Enum):
    """Where a change stands."""

    IDLE = "idle"
    SUSPENDING = "suspending"
    """the queues were told to stop; some have not said where they stand"""
    KEYING = "keying"
    """no queue object holds the old key; the new one is being made"""
    STOPPING = "stopping"
    """the device is being suspended"""
    RESETTING = "resetting"
    """a queue is being reset or disabled"""


class Event(Enum):
    """What moves a change on. The first four begin one."""

    SET_MAP = "set_map"
    SUSPEND = "suspend"
    RESUME = "resume"
    RESET_VQ = "reset_vq"
    ALL_SAVED = "all saved"
    """every queue that was told to stop has said where it stands, or is dead"""
    MKEY_CREATED = "mkey created"
    MKEY_REFUSED = "mkey refused"
    LINK_BACK = "link back"
    """a new connection to the port: what was sent over the last one may be lost"""


class Actions(Protocol):
    """What the device does for a change; the names are mlx5's where it has one."""

    def suspend_vqs(self) -> None:
        """Tell the queues of the change to stop; :meth:`MapChange.stands` is called for each."""
        ...

    def save_channels_info(self) -> None:
        """Remember where each queue stands; what was fetched and not processed goes back."""
        ...

    def teardown_vqs(self) -> None:
        """The queue objects of the change go."""
        ...

    def create_mkey(self) -> None:
        """Have the port make the key of the new map."""
        ...

    def put_in_force(self) -> None:
        """New queue objects hold the new key from now on."""
        ...

    def roll_back(self) -> None:
        """The new map is dropped, the old one stays in force."""
        ...

    def restore_channels_info(self) -> None:
        """Hand the saved indices to the queues that will be made: not where the driver is not DRIVER_OK, and not while
        the device is suspended."""
        ...

    def create_vqs(self) -> None:
        """Make the queue objects that restore_channels_info() chose."""
        ...

    def resume_vqs(self) -> None:
        """They fetch."""
        ...

    def finish_in_flight(self) -> None:
        """Before a suspended device shows that it is: what it can still finish is finished, and the driver told."""
        ...

    def set_suspended(self) -> None:
        """The device is suspended from now on."""
        ...

    def clear_suspended(self) -> None:
        """The device is not suspended any more."""
        ...

    def forget_vqs(self) -> None:
        """The queues of the change begin anew when they are enabled again."""
        ...

    def done(self) -> None:
        """Answer whoever asked."""
        ...


@dataclass(slots=True, frozen=True)
class Row:
    """What happens on an event: actions in this order, then the state that stands."""

    actions: tuple[str, ...]
    next: State


_AGAIN: Final = ("restore_channels_info", "create_vqs", "resume_vqs", "done")

TABLE: Final[dict[tuple[State, Event], Row]] = {
    (State.IDLE, Event.SET_MAP): Row(("suspend_vqs",), State.SUSPENDING),
    (State.SUSPENDING, Event.ALL_SAVED): Row(("save_channels_info", "teardown_vqs", "create_mkey"), State.KEYING),
    (State.KEYING, Event.MKEY_CREATED): Row(("put_in_force", *_AGAIN), State.IDLE),
    (State.KEYING, Event.MKEY_REFUSED): Row(("roll_back", *_AGAIN), State.IDLE),
    (State.KEYING, Event.LINK_BACK): Row(("create_mkey",), State.KEYING),
    (State.IDLE, Event.SUSPEND): Row(("suspend_vqs",), State.STOPPING),
    (State.STOPPING, Event.ALL_SAVED): Row(
        ("finish_in_flight", "save_channels_info", "set_suspended", "done"), State.IDLE
    ),
    (State.IDLE, Event.RESUME): Row(("clear_suspended", *_AGAIN), State.IDLE),
    (State.IDLE, Event.RESET_VQ): Row(("suspend_vqs",), State.RESETTING),
    (State.RESETTING, Event.ALL_SAVED): Row(("save_channels_info", "teardown_vqs", "forget_vqs", "done"), State.IDLE),
    # the answers that are awaited come by the new connection, as Resync
    (State.IDLE, Event.LINK_BACK): Row((), State.IDLE),
    (State.SUSPENDING, Event.LINK_BACK): Row((), State.SUSPENDING),
    (State.STOPPING, Event.LINK_BACK): Row((), State.STOPPING),
    (State.RESETTING, Event.LINK_BACK): Row((), State.RESETTING),
}

#: The states in which queues are waited for.
WAITING: Final = frozenset(state for state, event in TABLE if event is Event.ALL_SAVED)


class MapChange:
    """The change under way on one device, if any. ``do`` carries the actions out."""

    __slots__ = ("_do", "_events", "_running", "state", "waiting")

    def __init__(self, do: Actions) -> None:
        self._do: Final = do
        self.state = State.IDLE
        #: queues that have not said where they stand
        self.waiting: set[int] = set()
        self._events: deque[Event] = deque()
        self._running = False

    @property
    def idle(self) -> bool:
        return self.state is State.IDLE

    def begin(self, event: Event, queues: Iterable[int]) -> None:
        """Begin a change that waits for ``queues``. Raises LocalError unless idle."""
        if self.state is not State.IDLE:
            raise LocalError(f"{event.value} in state {self.state.value}")
        self.waiting = set(queues)
        self.event(event)

    def stands(self, queue: int) -> None:
        """``queue`` fetches no more, and everything that it had fetched has arrived; or it is dead."""
        if queue in self.waiting:
            self.waiting.discard(queue)
            self._run()

    def wait_for(self, queues: Iterable[int]) -> None:
        """These queues will say by themselves where they stand, whatever they have said before."""
        if self.state in WAITING:
            self.waiting.update(queues)

    def reset(self) -> None:
        """No queue object is left."""
        self.waiting.clear()
        self._run()

    def event(self, event: Event) -> None:
        """Carry out the row of ``event``. What an action causes comes after it."""
        self._events.append(event)
        self._run()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while True:
                if self._events:
                    event = self._events.popleft()
                elif self.state in WAITING and not self.waiting:
                    event = Event.ALL_SAVED
                else:
                    return
                row = TABLE.get((self.state, event))
                if row is None:
                    raise LocalError(f"change of map: {event.value} in state {self.state.value}")
                self.state = row.next
                for action in row.actions:
                    getattr(self._do, action)()
        finally:
            self._running = False


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2"]
    for (state, event), row in TABLE.items():
        if row.actions:
            lines.append(f"    {state.value} --> {row.next.value}: {event.value} / {', '.join(row.actions)}")
    return "\n".join(lines)
