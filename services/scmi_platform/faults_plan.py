"""What is to go wrong on purpose: ``[faults]`` of the SCMI platform, and the body of ``POST /faults``.

The plain settings come first, as they always did; ``rules`` say the same and more, each for some messages, some
agents, so often. Of several rules the first that holds, drops or doubles a message decides about it; those that change
its bytes come on top, in their order.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from common.errors import RemoteError
from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION
from services.scmi_platform.faults_only import Only, message_id, protocol_id
from services.scmi_platform.faults_time import MAX_LATE_SECONDS, Time

#: Largest size of a cmdq, entries; a command takes two.
MAX_NEVER: Final = 1024 // 2 - 1
#: Rules of one plan.
MAX_RULES: Final = 64
#: Bytes that a reply may be cut to, at most: no reply is longer.
MAX_LENGTH: Final = 132
#: Notifications of a storm at a time, and in a second.
MAX_BURST: Final = 65536
MAX_RATE: Final = 100_000.0

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
#: Which messages of the platform: replies to commands, delayed responses, notifications.
Of = Literal["response", "delayed_response", "notification"]

#: Header types whose names ``only`` may use.
KINDS: Final[dict[Of, tuple[int, ...]]] = {
    "response": (COMMAND,),
    "delayed_response": (COMMAND, DELAYED_RESPONSE),
    "notification": (NOTIFICATION,),
}


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True, tag_field="kind"):
    """What all rules about messages have."""

    #: messages or whole protocols; empty: all
    only: tuple[str, ...] = ()
    of: Of = "response"
    #: guests, by their name, or that or the number of their SCMI agent; empty: all
    agents: tuple[str, ...] = ()
    probability: Probability = 1.0
    #: so many times since the guest reset its device; 0: no end
    count: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        Only(self.only, KINDS[self.of])


class Delay(Rule, kw_only=True, frozen=True, tag="delay"):
    """The message is held for a ``time``."""

    time: Time


class Reorder(Rule, kw_only=True, frozen=True, tag="reorder"):
    """The response is held until ``passing`` later ones have gone (0: a number by chance), but not for long."""

    passing: Annotated[int, msgspec.Meta(ge=0, le=MAX_NEVER)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of != "response":
            raise ValueError("only responses overtake each other: a reorder is of = 'response'")


class Never(Rule, kw_only=True, frozen=True, tag="never"):
    """The message is never sent. ``count`` is wanted: of responses, fewer than the agent has messages."""

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_NEVER)]


class Twice(Rule, kw_only=True, frozen=True, tag="twice"):
    """The message is sent twice. Of a response the chain is used twice, which breaks the queue."""


class Silent(Rule, kw_only=True, frozen=True, tag="silent"):
    """The driver is not interrupted for the response: one that polls finds it, one that waits hears of it with the
    next interrupt. Only over vhost-user; in the mesh the port interrupts, and nothing is different."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of != "response":
            raise ValueError("only a polled response can do without its interrupt: a silent is of = 'response'")


class WrongToken(Rule, kw_only=True, frozen=True, tag="wrong_token"):
    """The token of the header is another: ``by`` is added to it, modulo 1024."""

    by: Annotated[int, msgspec.Meta(ge=1, le=1023)] = 512


class Truncate(Rule, kw_only=True, frozen=True, tag="truncate"):
    """The message is cut to ``length`` bytes, header included."""

    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]


class WrongProtocol(Rule, kw_only=True, frozen=True, tag="wrong_protocol"):
    """The header names another protocol, another message id, or both."""

    protocol: Byte | None = None
    message: Byte | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is None and self.message is None:
            raise ValueError("protocol or message is wanted")


class Storm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="storm"):
    """Notifications that nothing caused: ``burst`` of them at once, ``per_second``, or both."""

    #: name or number
    protocol: str | int
    #: name or number of the notification
    event: str | int = 0
    domain: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    burst: Annotated[int, msgspec.Meta(ge=0, le=MAX_BURST)] = 0
    per_second: Annotated[float, msgspec.Meta(ge=0, le=MAX_RATE)] = 0.0
    #: to agents that never asked for it, too
    unasked: bool = False
    #: what follows the header, hex; empty: agent 0, the domain, zeros up to the event's length
    payload: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2}){0,128}$")] = ""
    agents: tuple[str, ...] = ()
    #: so many in all since the guest reset its device; 0: no end
    count: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        self.ids()
        if not self.burst and not self.per_second:
            raise ValueError("burst or per_second is wanted")

    def ids(self) -> tuple[int, int]:
        """Numbers of protocol and notification."""
        protocol = protocol_id(str(self.protocol))
        return protocol, message_id(protocol, str(self.event), KINDS["notification"])


AnyRule = Delay | Reorder | Never | Twice | Silent | WrongToken | Truncate | WrongProtocol | Storm


class FaultPlan(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """``[faults]`` of ``ringmesh serve scmi``: what goes wrong, for each guest on its own. By default nothing does."""

    #: equal seeds give a guest equal faults
    seed: int = 0
    #: commands that are answered as they should be before faults begin: those of the agent's bring-up
    after: Annotated[int, msgspec.Meta(ge=0)] = 256
    #: probability that a response or a delayed response is held …
    late: Probability = 0.0
    #: … for up to so many seconds
    late_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATE_SECONDS)] = 1.0
    #: probability that a response is held until some later ones have gone
    reorder: Probability = 0.0
    #: probability that a delayed response is sent twice
    delayed_twice: Probability = 0.0
    #: commands that are never answered, in all; fewer than the messages of the agent (half the entries of its cmdq)
    never: Annotated[int, msgspec.Meta(ge=0, le=MAX_NEVER)] = 0
    #: of so many commands, on average, one is never answered until ``never`` have not been
    never_every: Annotated[int, msgspec.Meta(ge=1)] = 1000
    #: the command, counted from 1, whose chain is used twice, which breaks the queue; 0 for none
    double_used: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: faults of any kind, each for some messages and agents
    rules: Annotated[tuple[AnyRule, ...], msgspec.Meta(max_length=MAX_RULES)] = ()

    @property
    def any(self) -> bool:
        """Is there a fault in it?"""
        plain = self.late or self.reorder or self.delayed_twice or self.never or self.double_used
        return bool(plain or self.rules)

    def rules_for(self, names: frozenset[str]) -> tuple[AnyRule, ...]:
        """The rules for an agent that goes by any of ``names``."""
        return tuple(rule for rule in self.rules if not rule.agents or not names.isdisjoint(rule.agents))

    def check(self, size: int, kept: int = 0, names: frozenset[str] = frozenset()) -> None:
        """Raise RemoteError where a guest whose cmdq has ``size`` entries would be left without a message. ``kept`` of
        them it has lost already."""
        ruled = sum(rule.count for rule in self.rules_for(names) if isinstance(rule, Never) and rule.of == "response")
        if not self.never and not ruled:
            return
        if self.never + ruled + kept >= size // 2:
            field = "faults.rules.count" if ruled else "faults.never"
            limit = max(0, size // 2 - 1 - kept)
            raise RemoteError(field, self.never + ruled, limit, f"commands of a cmdq of {size} entries")
