"""A census of the messages of a TxChannel: each must be in exactly one place, at all times.

========  ==========================================================================================
place     the message is
========  ==========================================================================================
free      on the free list
ring      a token of the virtqueue: the platform owns it, or has used it and nobody dequeued it yet
pending   on the list of the deferred worker
poller    dequeued, and bound to an xfer in flight (``xfer.priv``)
========  ==========================================================================================

Each place is looked through by identity, none is inferred from the others: a message found nowhere is a leak, one found
twice is doubled. Its count of users must fit where it is. Between two awaits the algorithms of the services are atomic,
so a census taken there holds; it takes no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.world import Table
from services.guest_driver.scmi_message import POLL_DONE, VioMsg
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_xfer import Xfer, xfers_of

PLACES: Final = ("free", "ring", "pending", "poller")


@dataclass(slots=True, frozen=True)
class Census:
    """How many messages were found in each place, and what was wrong: one sentence a message."""

    free: int
    ring: int
    pending: int
    poller: int
    wrong: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The number of messages of the channel, or something was wrong."""
        return self.free + self.ring + self.pending + self.poller


def take_census(channel: TxChannel, in_flight: Table[Xfer]) -> Census:
    """Count the messages of ``channel``, whose agent's table of transactions is ``in_flight``."""
    vqueue, messages = channel.vqueue, channel.messages
    free = list(channel.free_list)
    ring = [token for i in range(vqueue.size) if (token := vqueue.tokens[i]) is not None]
    pending = list(channel.pending_cmds_list)
    bound = [xfer.priv for xfer in xfers_of(in_flight) if xfer.priv is not None]
    on_ring = {id(msg) for msg in ring}
    # bound and on the ring: the platform has it, somebody waits
    poller = [msg for msg in bound if id(msg) not in on_ring]
    found: dict[int, list[str]] = {}
    for place, some in zip(PLACES, (free, ring, pending, poller), strict=True):
        for msg in some:
            found.setdefault(id(msg), []).append(place)
    waited = {id(msg) for msg in bound}
    wrong = []
    for number in range(channel.max_msg):
        msg = messages[number]
        places = found.pop(id(msg), [])
        if len(places) != 1:
            wrong.append(f"message {number} is " + (f"doubled: {' and '.join(places)}" if places else "leaked"))
        elif (users := msg.users.load()) != (expected := _users(places[0], msg, id(msg) in waited)):
            wrong.append(f"message {number} is {places[0]} and has {users} users, not {expected}")
    wrong += [f"a stranger is {' and '.join(places)}" for places in found.values()]
    return Census(len(free), len(ring), len(pending), len(poller), tuple(wrong))


def _users(place: str, msg: VioMsg, waited: bool) -> int:
    """How many users a message in ``place`` must have: the ring, and who polls for it."""
    if place == "free":
        return 0
    if place == "poller":
        # the ring's use is the poller's where a polling loop dequeued it, the callback's where the interrupt did
        return 2 if msg.poll_status == POLL_DONE else 1
    return 2 if waited else 1


@dataclass(slots=True)
class CensusStats:
    """What an :class:`Enumerator` counts."""

    censuses: int = 0
    #: messages found leaked, doubled or miscounted, each time that one newly was
    violations: int = 0


class Enumerator:
    """Takes censuses, counts what is newly wrong in them; ``log(event, **context)`` hears of the first."""

    def __init__(self, channel: TxChannel, in_flight: Table[Xfer], log: Callable[..., None]) -> None:
        self.stats: Final = CensusStats()
        self._channel: Final = channel
        self._in_flight: Final = in_flight
        self._log: Final = log
        self._known: frozenset[str] = frozenset()

    def take(self, when: str = "", *, at_rest: bool = False) -> Census:
        """One census; ``when`` is said in the log. ``at_rest``: nobody sends or polls, and the worker has had its turn,
        so messages that are pending or held have been forgotten there."""
        census = take_census(self._channel, self._in_flight)
        wrong = list(census.wrong)
        if at_rest and (left := census.pending + census.poller):
            wrong.append(f"{left} messages were forgotten: pending {census.pending}, poller {census.poller}")
        stats = self.stats
        stats.censuses += 1
        if wrong or self._known:
            new = [one for one in wrong if one not in self._known]
            if new and not stats.violations:
                self._log(
                    "SCMI messages do not add up",
                    wrong=new[:8],
                    more=max(0, len(new) - 8),
                    when=when,
                    max_msg=self._channel.max_msg,
                    **{place: getattr(census, place) for place in PLACES},
                )
            stats.violations += len(new)
            self._known = frozenset(wrong)
        return census
