"""The rules of a plan, as they stand for one agent: which of them strike a message, and what becomes of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.scmi.header import HEADER, PROTOCOL_SHIFT, TOKEN_MASK, TOKEN_SHIFT, TOKENS
from services.scmi_platform.faults_only import Only
from services.scmi_platform.faults_plan import (
    KINDS,
    AnyRule,
    Delay,
    Never,
    Of,
    Reorder,
    Rule,
    Silent,
    Storm,
    Truncate,
    Twice,
    WrongProtocol,
    WrongToken,
)
from services.scmi_platform.faults_stats import FaultStats

#: What decides when a message goes out, and how often.
Fate = Delay | Reorder | Never | Twice | Silent


class Armed:
    """One rule about messages. ``done``: how often it struck since the guest reset its device."""

    __slots__ = ("_only", "done", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule: Final = rule
        self.done = 0
        self._only: Final = Only(rule.only, KINDS[rule.of])

    def strikes(self, word: int, dice: Callable[[], float]) -> bool:
        """Does the rule strike a message with header ``word``? Counts it. Rolls only where it depends on chance."""
        rule = self.rule
        if (rule.count and self.done >= rule.count) or word not in self._only:
            return False
        if rule.probability < 1 and dice() >= rule.probability:
            return False
        self.done += 1
        return True

    def reset(self) -> None:
        self.done = 0


class Rules:
    """All rules about messages, by which messages they are of."""

    __slots__ = ("_by_type", "_dice", "_stats")

    def __init__(self, armed: list[Armed], dice: Callable[[], float], stats: FaultStats) -> None:
        self._by_type: Final[dict[Of, list[Armed]]] = {of: [one for one in armed if one.rule.of == of] for of in KINDS}
        self._dice: Final = dice
        self._stats: Final = stats

    def strike(self, of: Of, message: bytes) -> tuple[bytes, Fate | None]:
        """The bytes to be sent for ``message``, and what decides when and how often. It is matched by the header that
        it came with."""
        armed = self._by_type[of]
        if not armed:
            return message, None
        fate: Fate | None = None
        word = int.from_bytes(message[: HEADER.size], "little")
        for one in armed:
            rule = one.rule
            if isinstance(rule, Fate):
                if fate is None and one.strikes(word, self._dice):
                    fate = rule
            elif one.strikes(word, self._dice):
                message = self._change(rule, message)
        return message, fate

    def _change(self, rule: Rule, message: bytes) -> bytes:
        stats = self._stats
        if isinstance(rule, Truncate):
            stats.truncated += 1
            return message[: rule.length]
        word = int.from_bytes(message[: HEADER.size], "little")
        if isinstance(rule, WrongToken):
            stats.wrong_token += 1
            token = ((word & TOKEN_MASK) >> TOKEN_SHIFT) + rule.by
            word = word & ~TOKEN_MASK | token % TOKENS << TOKEN_SHIFT
        elif isinstance(rule, WrongProtocol):
            stats.wrong_protocol += 1
            if rule.protocol is not None:
                word = word & ~(0xFF << PROTOCOL_SHIFT) | rule.protocol << PROTOCOL_SHIFT
            if rule.message is not None:
                word = word & ~0xFF | rule.message
        # one that an earlier rule cut within its header keeps that length
        return HEADER.pack(word)[: len(message)] + message[HEADER.size :]


def messages_of(rules: tuple[AnyRule, ...]) -> list[Rule]:
    """The rules that are about messages, in their order."""
    return [rule for rule in rules if not isinstance(rule, Storm)]


def storms_of(rules: tuple[AnyRule, ...]) -> list[Storm]:
    """The others."""
    return [rule for rule in rules if isinstance(rule, Storm)]
