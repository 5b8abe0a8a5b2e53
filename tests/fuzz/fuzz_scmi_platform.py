"""Random and mutated SCMI messages against the platform: every protocol, several agents, both profiles.

Each message is answered well-formed (its header again, a known status, nothing behind a status other than SUCCESS, no
longer than a message may be) or dropped and counted. What the platform sends unasked is well-formed too, every
delayed response answers one command that asked for one, none stays out, and the counters add up. At the end of an
episode what was set is saved and taken back by another platform.

``python -m tests.fuzz.fuzz_scmi_platform COUNT SEED FIRST``: so many messages, in episodes from number FIRST on.
"""

from __future__ import annotations

import operator
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from common.scmi import base, header, pinctrl
from common.scmi.names import message_name
from common.scmi.status import Status
from services.scmi_platform.agent import Entry
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import KINDS, ProfileName
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import Command
from services.scmi_platform.state import PlatformState
from tests.fuzz import rounds
from tests.fuzz.scmi_requests import requests

BOARD: Final = Path(__file__).parents[1] / "services" / "scmi_platform" / "board_whole.toml"
#: The agent of the board that may set permissions.
BOSS: Final = 2
#: Messages an episode: one platform from its start.
EPISODE: Final = 2_000
#: Bytes of the longest message.
LONGEST: Final = 200

_LIST_ASSOCIATIONS: Final = header.key(pinctrl.PROTOCOL, pinctrl.Command.PINCTRL_LIST_ASSOCIATIONS)
_PROFILES: Final[tuple[ProfileName, ...]] = ("scmi-2.0", "scmi-3.2")
_STATUSES: Final = {int(status): status.name.lower() for status in Status}
#: Counters of which every message moves one, by one.
_COUNTED: Final = (*_STATUSES.values(), "dropped_short")
_counters: Final = operator.attrgetter(*_COUNTED)
_NUMBERS: Final = (0, 1, 2, 3, 4, 5, 7, 8, 0xF, 0x10, 0x14, 0x15, 0x20, 0x100, 0x102, 0xFFFF, 0x10000, 0x20000, 0x30000,
                   0x4000_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)  # fmt: skip


def _ints(value: Any) -> Iterator[int]:
    """Every whole number in ``value``."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _ints(one)
    elif isinstance(value, int):
        yield int(value) & 0xFFFF_FFFF


class Episode:
    """One platform and what was said to it and by it."""

    def __init__(self, seed: int, number: int) -> None:
        self.dice: Final = random.Random(f"{seed} {number}")
        profile = self.dice.choice(_PROFILES)
        self.board: Final = Board.load(BOARD).with_profile(profile)
        self.has_p2a: Final = self.dice.random() < 0.8
        self.now = 50.0
        self.counts: Counter[str] = Counter()
        #: (agent, header of the delayed response) of commands that are owed one
        self.owed: Counter[tuple[int, int]] = Counter()
        self.full = False
        self.platform: Final = self._platform(self.dice.choice((76, 104, 128, 128, 128, 4000)))
        self._board_numbers: Final = sorted(set(_ints(msgspec.to_builtins(self.board))))
        self._good: list[bytes] = []
        self._keys: dict[int, tuple[dict[int, Entry] | None, list[tuple[int, list[int]]]]] = {}

    def _platform(self, max_payload: int) -> Platform:
        return Platform(
            self.board,
            clock=lambda: self.now,
            emit=self.emit,
            p2a=lambda agent: self.has_p2a,
            registry=STANDARD,
            max_payload=max_payload,
        )

    # --- what is sent -------------------------------------------------------------------------------------------------

    def word(self) -> int:
        dice = self.dice.random()
        if dice < 0.5:
            return self.dice.randrange(4)
        if dice < 0.7:
            return self.dice.choice(_NUMBERS)
        return self.dice.choice(self._board_numbers) if dice < 0.92 else self.dice.getrandbits(32)

    def head(self, key: int) -> bytes:
        return header.HEADER.pack(key | self.dice.randrange(header.TOKENS) << header.TOKEN_SHIFT)

    def _by_protocol(self, agent: int) -> list[tuple[int, list[int]]]:
        """What the agent may call now, of each protocol."""
        rows, (known, found) = self.platform.agents[agent].dispatch, self._keys.get(agent, (None, []))
        if rows is not known:
            groups: dict[int, list[int]] = {}
            for key in rows:
                groups.setdefault(key >> header.PROTOCOL_SHIFT, []).append(key)
            found = list(groups.items())
            self._keys[agent] = (rows, found)
        return found

    def message(self, agent: int) -> tuple[str, bytes]:
        """The kind of a message of ``agent``, and the message."""
        kind = self.dice.choice(("valid", "valid", "command", "command", "mutated", "mutated", "mutated", "payload",
                                 "random", "header"))  # fmt: skip
        rows = self.platform.agents[agent].dispatch
        if kind == "mutated" and self._good:
            return kind, self._mutated(self.dice.choice(self._good))
        if kind == "random":
            return kind, self.dice.randbytes(self.dice.randrange(LONGEST + 1))
        if kind == "header":
            return kind, self.head(self.dice.getrandbits(18)) + self.dice.randbytes(4 * self.dice.randrange(6))
        protocol, keys = self.dice.choice(self._by_protocol(agent))
        key = self.dice.choice(keys)
        _, least, most, row = rows[key]
        known = requests(protocol, row.message, self.dice.choice(self.platform.protocols[protocol].versions))
        if kind == "valid" and known:
            return kind, self.head(key) + self.dice.choice(known)
        if kind == "payload":
            return kind, self.head(key) + self.dice.randbytes(self.dice.randrange(LONGEST - 3))
        size = least if self.dice.random() < 0.7 else min(self.dice.randrange(least, most + 1, 4), LONGEST)
        return "command", self.head(key) + b"".join(
            self.word().to_bytes(4, "little") for _ in range(header.HEADER.size, size, 4)
        )

    def _mutated(self, request: bytes) -> bytes:
        """A request that once succeeded, some of it changed."""
        raw = bytearray(request)
        for _ in range(self.dice.randrange(4)):
            way = self.dice.randrange(5)
            at = self.dice.randrange(len(raw)) if raw else 0
            if way == 0 and raw:
                raw[at] ^= 1 << self.dice.randrange(8)
            elif way == 1 and len(raw) >= 8:
                at = 4 * self.dice.randrange(1, len(raw) // 4)
                raw[at : at + 4] = self.word().to_bytes(4, "little")
            elif way == 2:
                del raw[at:]
            elif way == 3:
                raw[at:at] = self.dice.randbytes(self.dice.randrange(9))
            elif self._good:
                raw[at:] = self.dice.choice(self._good)[at:]
        return bytes(raw[:LONGEST])

    # --- what must be true --------------------------------------------------------------------------------------------

    def ask(self, agent: int, request: bytes, again: bool) -> str:
        """Send one message and judge the answer. Returns the name of its status."""
        word = int.from_bytes(request[:4], "little")
        entry = self.platform.agents[agent].dispatch.get(word & header.KEY_MASK)
        before = _counters(self.platform.stats)
        reply = self.platform.handle(agent, request, again)
        counted = [name for name, old, new in zip(_COUNTED, before, _counters(self.platform.stats), strict=True)
                   for _ in range(new - old)]  # fmt: skip
        if reply is None:
            assert len(request) < header.HEADER.size, "no answer to a whole header"
            assert counted == ["dropped_short"]
            return "dropped"
        asked = word & (header.TOKEN_MASK | header.KEY_MASK & ~header.TYPE_MASK)
        status = int.from_bytes(reply[4:8], "little", signed=True)
        assert int.from_bytes(reply[:4], "little") == asked, "another header"
        self._well_formed(reply)
        assert status == 0 or len(reply) == 8, "something follows an error"
        name = _STATUSES[status]
        assert counted == [name]
        if status == 0:
            assert entry is not None, "an answer to nothing that there is"
            self._good.append(request)
            if len(self._good) > 200:
                self._good.pop(self.dice.randrange(200))
            self._succeeded(agent, word, entry[3], request)
            self.counts[f"success: {entry[3].name}"] += 1
        return name

    def _succeeded(self, agent: int, word: int, row: Command, request: bytes) -> None:
        if row.delayed is not None and row.delayed.wanted(request):
            assert self.has_p2a, "a delayed response without a channel for it"
            self.owed[agent, header.as_delayed(word)] += 1
        if word & header.KEY_MASK == header.key(base.PROTOCOL, base.Command.BASE_RESET_AGENT_CONFIGURATION):
            (target, _) = base.RESET_AGENT.unpack_from(request, 4)
            for key in [key for key in self.owed if key[0] == target]:
                del self.owed[key]

    def _well_formed(self, message: bytes) -> None:
        assert 8 <= len(message) <= 4 + self.platform.max_payload, f"{len(message)} bytes"
        # words; only PINCTRL_LIST_ASSOCIATIONS has items of 16 bits (DEN0056E §4.11.2)
        halves = int.from_bytes(message[:4], "little") & header.KEY_MASK == _LIST_ASSOCIATIONS
        assert len(message) % (2 if halves else 4) == 0, f"{len(message)} bytes are no words"

    def emit(self, agent: int, message: bytes) -> bool:
        assert self.has_p2a, "sent without a channel"
        self._well_formed(message)
        word = int.from_bytes(message[:4], "little")
        head = header.unpack(word)
        assert head.reserved == 0
        if self.full:
            return False
        if head.type == header.DELAYED_RESPONSE:
            assert self.owed[agent, word] > 0, f"nobody asked for this delayed response: {message.hex()}"
            self.owed[agent, word] -= 1
            status = int.from_bytes(message[4:8], "little", signed=True)
            assert status in _STATUSES
            assert status == 0 or len(message) == 8
            self.counts["sent: delayed response"] += 1
            return True
        assert head.type == header.NOTIFICATION
        assert head.token == 0
        server = self.platform.protocols[head.protocol]
        assert server.table.notifications is not None
        assert head.message in list(server.table.notifications)
        assert any(one is server for one in self.platform.accessible(self.platform.agents[agent])), "not for this agent"
        if head.protocol in KINDS:
            seen = len(server.seen(self.platform.agents[agent]))  # type: ignore[attr-defined]
            assert int.from_bytes(message[8:12], "little") < seen, "a domain that the agent does not see"
        self.counts[f"notification: {message_name(head.protocol, head.message, header.NOTIFICATION)}"] += 1
        self.counts["sent: notification"] += 1
        return True

    # --- an episode ---------------------------------------------------------------------------------------------------

    def run(self, messages: int) -> None:
        dice = self.dice
        agents = list(self.platform.agents)
        self._subscribe()
        for _ in range(messages):
            if dice.random() < 0.03:
                self.full = not self.full
            if dice.random() < 0.1:
                self.now += dice.choice((0.0, 0.001, 0.05, 1.0, 20.0))
                self.platform.tick(self.now)
            agent = dice.choice(agents)
            kind, request = self.message(agent)
            if dice.random() < 0.05:
                # else everything would soon be denied to everybody
                agent, kind = BOSS, "allow"
                allow = base.SET_DEVICE_PERMISSIONS.pack(dice.choice(agents), dice.randrange(4), base.ALLOW)
                request = header.command(base.PROTOCOL, base.Command.BASE_SET_DEVICE_PERMISSIONS, 0, allow)
            try:
                status = self.ask(agent, request, dice.random() < 0.02)
            except BaseException:
                print(f"agent {agent}, {kind}: {request.hex()}", file=sys.stderr)
                raise
            self.counts[f"message: {kind}"] += 1
            self.counts[f"answer: {status}"] += 1
        self._end()

    def _subscribe(self) -> None:
        """Some agents begin with asking for notifications."""
        for agent in self.platform.agents:
            rows = [row for row in self.platform.agents[agent].dispatch.items() if row[1][3].p2a]
            for key, (_, _, _, row) in rows if self.dice.random() < 0.5 else ():
                for payload in requests(key >> header.PROTOCOL_SHIFT, row.message, 0)[:-1]:
                    self.ask(agent, self.head(key) + payload, False)

    def _end(self) -> None:
        """With room and time everything that is owed comes, and the counters add up."""
        self.full = False
        for _ in range(3):
            self.now += 1e6
            self.platform.tick(self.now)
        left = {key for key, owed in self.owed.items() if owed}
        assert not left, f"delayed responses that never came: {left}"
        assert not any(any(agent.pending.values()) for agent in self.platform.agents.values())
        stats = self.platform.stats
        assert stats.notifications == self.counts["sent: notification"]
        assert stats.delayed_responses == self.counts["sent: delayed response"]
        self._state()

    def _state(self) -> None:
        """What was set fits into another platform and is the same there."""
        saved = msgspec.msgpack.encode(PlatformState(self.platform).snapshot())
        other = PlatformState(self._platform(self.platform.max_payload))
        refused = other.restore(msgspec.msgpack.decode(saved, type=list[tuple[int, str | int, Any]]))
        assert refused == []
        assert msgspec.msgpack.encode(other.snapshot()) == saved


def fuzz(count: int, seed: int, first: int = 0, report: Callable[[int], None] = lambda _done: None) -> Counter[str]:
    """Episodes from number ``first`` on until ``count`` messages were sent. Returns what was counted."""
    return rounds.episodes(Episode, EPISODE, count, seed, first, report)


if __name__ == "__main__":
    rounds.run(fuzz, "each answered well-formed, or dropped and counted")
