"""Which messages a fault is for: ``clock``, ``performance/level_set``, ``0x13/0x7``.

Protocols and messages have the specification's names in any case, messages with or without the protocol's name in
front of them, or their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from common.scmi.header import PROTOCOL_SHIFT
from common.scmi.names import NAMES
from common.scmi.status import ProtocolId

#: What protocols are called for short, besides the names of ProtocolId.
_SHORT: Final = {
    "POWER": ProtocolId.POWER_DOMAIN,
    "SYSTEM": ProtocolId.SYSTEM_POWER,
    "RESET": ProtocolId.RESET_DOMAIN,
    "PINCTRL": ProtocolId.PIN_CONTROL,
}
_MESSAGE: Final = 0xFF


class Only:
    """A set of messages, tested with a header word. An empty list means all of them.

    ``kinds`` are the header types whose names count. Raises ValueError for a name that no message bears, or more than
    one.
    """

    __slots__ = ("_all", "_messages", "_protocols")

    def __init__(self, names: Iterable[str], kinds: tuple[int, ...]) -> None:
        self._protocols: set[int] = set()
        self._messages: set[tuple[int, int]] = set()
        for name in names:
            first, slash, rest = name.partition("/")
            protocol = protocol_id(first)
            if slash:
                self._messages.add((protocol, message_id(protocol, rest, kinds)))
            else:
                self._protocols.add(protocol)
        self._all = not self._protocols and not self._messages

    def __contains__(self, word: int) -> bool:
        if self._all:
            return True
        protocol = word >> PROTOCOL_SHIFT & 0xFF
        return protocol in self._protocols or (protocol, word & _MESSAGE) in self._messages


def protocol_id(name: str) -> int:
    """The number of a protocol. Raises ValueError where there is none of that name."""
    number = _number(name)
    if number is not None:
        return number
    upper = name.upper()
    if upper in _SHORT:
        return _SHORT[upper]
    try:
        return ProtocolId[upper]
    except KeyError:
        raise ValueError(f"there is no SCMI protocol {name!r}") from None


def message_id(protocol: int, name: str, kinds: tuple[int, ...]) -> int:
    """The number of a message of ``protocol`` whose header type is one of ``kinds``. Raises ValueError where none, or
    more than one, bears that name."""
    number = _number(name)
    if number is not None:
        return number
    upper = name.upper()
    named = {full: message for (owner, message, kind), full in NAMES.items() if owner == protocol and kind in kinds}
    if upper in named:
        return named[upper]
    found = {message for full, message in named.items() if full.endswith(f"_{upper}")}
    if len(found) != 1:
        raise ValueError(f"{'more than one' if found else 'no'} message of protocol {protocol:#x} is called {name!r}")
    return found.pop()


def _number(text: str) -> int | None:
    """A byte, in decimal or after 0x; None for what does not begin like a number."""
    if not text[:1].isdigit():
        return None
    number = int(text, 0)
    if number > 0xFF:
        raise ValueError(f"{text} is above 0xff")
    return number
