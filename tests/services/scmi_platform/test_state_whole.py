"""Whatever agents do, another platform with what was saved answers every question as the first one does."""

from __future__ import annotations

import random
from itertools import product
from typing import Any, Final

import msgspec
import pytest

from common.scmi.status import ProtocolId
from services.scmi_platform import journal
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.state import Entry, PlatformState
from tests.fuzz.scmi_requests import requests
from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

WHOLE: Final = HERE / "board_whole.toml"
AGENTS: Final = range(1, 5)
#: More than the board has of anything.
NUMBERS: Final = range(6)

#: Commands that only read, and the words of their payloads.
QUESTIONS: Final[dict[int, dict[int, list[tuple[int, ...]]]]] = {
    ProtocolId.BASE: {0x3: [()], 0x4: [()], 0x6: [(0,)], 0x7: [(number,) for number in NUMBERS]},
    ProtocolId.POWER_DOMAIN: {message: [(number,) for number in NUMBERS] for message in (0x3, 0x5, 0x8)},
    ProtocolId.SYSTEM_POWER: {0x4: [()]},
    ProtocolId.PERFORMANCE: {
        **{message: [(number,) for number in NUMBERS] for message in (0x3, 0x6, 0x8, 0xC)},
        0x4: [(number, 0) for number in NUMBERS],
    },
    ProtocolId.CLOCK: {
        **{message: [(number,) for number in NUMBERS] for message in (0x3, 0x6, 0x8, 0xE, 0xF)},
        **{message: [(number, 0) for number in NUMBERS] for message in (0x4, 0xC)},
        0xB: list(product(NUMBERS, range(4))),
    },
    ProtocolId.SENSOR: {
        **{message: [(number,) for number in NUMBERS] for message in (0x3, 0x9, 0xC)},
        **{message: [(number, 0) for number in NUMBERS] for message in (0x6, 0x7, 0x8, 0xD)},
    },
    ProtocolId.RESET_DOMAIN: {message: [(number,) for number in NUMBERS] for message in (0x3, 0x6)},
    ProtocolId.VOLTAGE: {message: [(number,) for number in NUMBERS] for message in (0x3, 0x6, 0x8, 0x9)},
    ProtocolId.POWERCAP: {message: [(number,) for number in NUMBERS] for message in (0x3, 0x4, 0x6, 0x8, 0x9)},
    ProtocolId.PIN_CONTROL: {
        **{message: list(product(NUMBERS, range(3))) for message in (0x3, 0x5)},
        0x6: [(number, flag << 18 | kind << 16) for number, kind, flag in product(NUMBERS, range(2), range(3))],
    },
}
#: What every protocol has.
GENERIC: Final[dict[int, list[tuple[int, ...]]]] = {0x0: [()], 0x1: [()], 0x2: [(message,) for message in range(0x14)]}

#: Words that something is, on this board: agents, levels, rates, caps, trip points, flags.
VALUES: Final = (
    *range(16),
    20,
    30,
    100,
    200,
    300,
    1100,
    1500,
    2000,
    65000,
    900_000,
    1 << 16,
    1 << 18,
    1 << 30,
    1 << 31,
)


class Saving(Rig):
    """Every command is saved before it is answered, as a service does it."""

    def __init__(self) -> None:
        super().__init__(WHOLE)
        self.room = 1 << 30
        self.state = PlatformState(self.platform)
        self.file = bytearray(journal.HEADER)
        self.platform.save = self.save

    def save(self, touched: set[tuple[int, int]]) -> bool:
        self.file += journal.records(self.state.entries(touched))
        return True

    def ask(self, *args: Any, **named: Any) -> bytes:
        reply = super().ask(*args, **named)
        self.platform.commit()
        return reply

    def advance(self, seconds: float) -> float | None:
        due = super().advance(seconds)
        self.platform.commit()
        return due


def restored(rig: Saving, entries: list[Entry]) -> Saving:
    """Another platform of the same age with these entries."""
    other = Saving()
    other.now = rig.now
    assert other.state.restore(entries) == []
    other.platform.tick(rig.now)
    return other


def answers(rig: Rig) -> dict[tuple[int, ...], bytes]:
    """What ``rig`` says to all questions of all agents."""
    return {
        (agent, protocol, message, *payload): rig.ask(protocol, message, words(*payload), agent)
        for agent in AGENTS
        for protocol, own in QUESTIONS.items()
        for message, payloads in (GENERIC | own).items()
        for payload in payloads
    }


def unlike(rig: Rig, other: Rig) -> list[str]:
    """The questions that the two answer differently."""
    mine, its = answers(rig), answers(other)
    return [
        f"{[hex(one) for one in key]}: {mine[key].hex()}, {its[key].hex()}" for key in mine if mine[key] != its[key]
    ]


def by_key(entries: list[Any]) -> dict[Any, Any]:
    plain: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(entries), strict=False)
    return {(protocol, key): state for protocol, key, state in plain}


class Mischief:
    """Commands by chance: valid ones, and ones of which a word is another."""

    def __init__(self, rig: Saving, rng: random.Random) -> None:
        self._rig: Final = rig
        self._rng: Final = rng
        self._all: Final = [
            (protocol, message, payload)
            for protocol, (table, _) in STANDARD.protocols.items()
            for message in (0x10, *table.commands)
            for version in table.versions
            for payload in requests(protocol, message, version)
        ]

    def some(self, commands: int) -> None:
        rig, rng = self._rig, self._rng
        for _ in range(commands):
            protocol, message, payload = rng.choice(self._all)
            if payload and rng.random() < 0.5:
                at = rng.randrange(0, len(payload), 4)
                payload = payload[:at] + words(rng.choice(VALUES)) + payload[at + 4 :]
            rig.ask(protocol, message, payload, rng.choice((1, 2, 2, 3, 4)))
            chance = rng.random()
            if chance < 0.1:
                rig.advance(rng.choice((0.001, 0.06, 0.7)))
            elif chance < 0.12:
                rig.ask(ProtocolId.BASE, 0xB, words(rng.choice(AGENTS), rng.randrange(2)), 2)
            elif chance < 0.13:
                rig.platform.reset_agent(rng.choice(AGENTS), settings=False)
                rig.platform.commit()


def check(rig: Saving) -> Saving:
    """Both the whole snapshot and what was appended bit by bit make a platform that is like ``rig``."""
    snapshot = rig.state.snapshot()
    found, torn = journal.read(bytes(rig.file))
    assert not torn
    assert by_key(found) == by_key(snapshot)
    other = restored(rig, found)
    assert unlike(rig, other) == []
    assert by_key(other.state.snapshot()) == by_key(snapshot)
    return other


def test_every_protocol_is_asked() -> None:
    assert QUESTIONS.keys() == STANDARD.protocols.keys()


@pytest.mark.parametrize("seed", range(12))
def test_what_agents_did_is_still_done(seed: int) -> None:
    rig = Saving()
    mischief = Mischief(rig, random.Random(seed))
    for _ in range(12):
        mischief.some(50)
        check(rig)


@pytest.mark.parametrize("seed", range(12))
def test_whose_it_was_is_known_too(seed: int) -> None:
    """So resets of agents put back the same things, and tell the same agents of it."""
    rng = random.Random(seed)
    rig = Saving()
    mischief = Mischief(rig, rng)
    for _ in range(6):
        mischief.some(80)
        rig.platform._operations.clear()  # what is under way is not saved
        other = check(rig)
        for one in (rig, other):
            one.take()
        for agent in rng.sample(AGENTS, 2):
            flags = rng.randrange(2)
            told = []
            for one in (rig, other):
                one.ask(0x10, 0xB, words(agent, flags), 2)
                told.append(one.take())
            assert told[0] == told[1]
            assert unlike(rig, other) == []
