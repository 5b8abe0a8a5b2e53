"""The guest's trace and the platform's, message by message.

The two have no clock in common and run side by side, so the order of messages is compared a command at a time: the
k-th message of one kind with one token, protocol and message id on one side belongs to the k-th on the other (a token
comes back only after 1023 others). Notifications carry no token; the k-th of a kind belongs to the k-th.

Linux writes a command down after it was sent, from the buffer into which the reply goes as well. Where the reply came
first, the guest's line shows the reply's bytes over the command's: that is no difference (``overwritten`` counts them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION
from common.scmi.names import message_name
from common.scmi.status import Common
from services.linux_guest.ftrace import MessageDump

#: kind, protocol, message, token
Key = tuple[str, int, int, int]

_COMMON: Final = frozenset(Common)
_TYPES: Final = {"CMND": COMMAND, "RESP": COMMAND, "DLYD": DELAYED_RESPONSE, "NOTI": NOTIFICATION}


@dataclass(slots=True)
class Comparison:
    """``pairs``: (guest's, platform's); ``differences`` a sentence each; what only one side has is in the lists. A
    message that the guest threw away pairs too: it was there, and Linux does not say what was in it."""

    pairs: list[tuple[MessageDump, MessageDump]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    overwritten: int = 0
    only_guest: list[MessageDump] = field(default_factory=list)
    only_platform: list[MessageDump] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (self.differences or self.only_guest or self.only_platform)

    def lines(self) -> list[str]:
        """What is not equal, for people."""
        return [
            *self.differences,
            *(f"only the guest has {describe(one)}" for one in self.only_guest),
            *(f"only the platform has {describe(one)}" for one in self.only_platform),
        ]


def compare(guest: Iterable[MessageDump], platform: Iterable[MessageDump]) -> Comparison:
    """Pair the messages of two traces of one run."""
    result = Comparison()
    theirs: defaultdict[Key, list[MessageDump]] = defaultdict(list)
    for one in platform:
        theirs[key(one)].append(one)
    taken: defaultdict[Key, int] = defaultdict(int)
    for one in once(guest):
        same = theirs[key(one)]
        at = taken[key(one)]
        if at == len(same):
            result.only_guest.append(one)
            continue
        taken[key(one)] += 1
        result.pairs.append((one, same[at]))
        replies = theirs[("RESP", *key(one)[1:])] if one.kind == "CMND" else []
        if at < len(replies) and one.payload == _over(same[at].payload, replies[at].payload) != same[at].payload:
            result.overwritten += 1
        else:
            result.differences += _differences(one, same[at])
    for where, messages in theirs.items():
        result.only_platform += messages[taken[where] :]
    return result


def key(one: MessageDump) -> Key:
    return one.kind, one.protocol, one.message, 0 if one.kind == "NOTI" else one.token


def once(messages: Iterable[MessageDump]) -> list[MessageDump]:
    """Each message once: Linux writes a polled reply down twice where the interrupt brought it as well, once in the
    interrupt and once in the poller. Replies to commands that share a token, as those of one long list do, differ: and
    the second may well stand before its command."""
    last: dict[Key, MessageDump] = {}
    out = []
    for one in messages:
        if one.kind == "CMND":
            last.pop(("RESP", *key(one)[1:]), None)
        elif one.kind == "RESP" and not one.thrown_away:
            before = last.get(key(one))
            if before is not None and (before.status, before.payload) == (one.status, one.payload):
                continue
            last[key(one)] = one
        out.append(one)
    return out


def _over(command: bytes, reply: bytes) -> bytes:
    """``command`` with ``reply`` over it."""
    return (reply + command[len(reply) :])[: len(command)]


def _differences(guest: MessageDump, platform: MessageDump) -> list[str]:
    if guest.thrown_away:
        return []
    found = []
    if guest.status != platform.status:
        found.append(f"{describe(guest)}: status {guest.status} in the guest, {platform.status} in the platform")
    if guest.payload != platform.payload:
        ours, theirs = guest.payload.hex() or "nothing", platform.payload.hex() or "nothing"
        found.append(f"{describe(guest)}: {ours} in the guest, {theirs} in the platform")
    return found


def describe(one: MessageDump) -> str:
    return f"{one.tag} {title(one.protocol, one.message, _TYPES.get(one.kind, COMMAND))} #{one.token}"


def title(protocol: int, message: int, kind: int = COMMAND) -> str:
    """``CLOCK_ATTRIBUTES``; with the number of its protocol where the name says nothing of it."""
    name = message_name(protocol, message, kind)
    return f"{protocol:02X} {name}" if message in _COMMON and kind != NOTIFICATION else name


def tally(messages: Sequence[MessageDump]) -> dict[str, int]:
    """How many of each tag."""
    counts: dict[str, int] = {}
    for one in messages:
        counts[one.tag] = counts.get(one.tag, 0) + 1
    return counts
