"""Pin control protocol 0x19, version 0x10000: layouts (DEN0056E §4.11).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word). Pins, groups and functions are numbered each from 0 on: an identifier means something only together with
its :class:`Selector`. Identifiers are 16 bits; the upper half of their word is ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack, unpack_many
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.PIN_CONTROL
VERSION: Final = 0x10000


class Command(IntEnum):
    """DEN0056E §4.11.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    PINCTRL_ATTRIBUTES = 0x3
    PINCTRL_LIST_ASSOCIATIONS = 0x4
    PINCTRL_SETTINGS_GET = 0x5
    PINCTRL_SETTINGS_CONFIGURE = 0x6
    PINCTRL_REQUEST = 0x7
    PINCTRL_RELEASE = 0x8
    PINCTRL_NAME_GET = 0x9
    PINCTRL_SET_PERMISSIONS = 0xA
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """There are none."""


class Selector(IntEnum):
    """What an identifier names; 3 is reserved."""

    PIN = 0
    GROUP = 1
    FUNCTION = 2


SELECTOR_MASK: Final = 0x3
IDENTIFIER_MASK: Final = 0xFFFF
#: In the place of a function: none.
NO_FUNCTION: Final = 0xFFFF_FFFF


class ConfigType(IntEnum):
    """What of a pin can be configured; 21 to 191 are reserved, 192 to 255 belong to vendors."""

    DEFAULT = 0
    BIAS_BUS_HOLD = 1
    BIAS_DISABLE = 2
    BIAS_HIGH_IMPEDANCE = 3
    BIAS_PULL_UP = 4
    BIAS_PULL_DEFAULT = 5
    BIAS_PULL_DOWN = 6
    DRIVE_OPEN_DRAIN = 7
    DRIVE_OPEN_SOURCE = 8
    DRIVE_PUSH_PULL = 9
    DRIVE_STRENGTH = 10
    """mA"""
    INPUT_DEBOUNCE = 11
    """µs"""
    INPUT_MODE = 12
    PULL_MODE = 13
    INPUT_VALUE = 14
    INPUT_SCHMITT = 15
    LOW_POWER_MODE = 16
    OUTPUT_MODE = 17
    OUTPUT_VALUE = 18
    POWER_SOURCE = 19
    """mV"""
    SLEW_RATE = 20


VENDOR_CONFIGS: Final = range(192, 256)
_VENDOR_NAMES: Final = {f"vendor_{number}": number for number in VENDOR_CONFIGS}
#: What board files and the command line call each type.
CONFIG_NAMES: Final[dict[str, int]] = {one.name.lower(): one.value for one in ConfigType} | _VENDOR_NAMES
_NAMES_OF: Final = {number: name for name, number in CONFIG_NAMES.items()}


def config_name(kind: int) -> str:
    """``drive_strength`` for 10, ``vendor_192`` for 192, ``type 99`` for what the specification reserves."""
    return _NAMES_OF.get(kind, f"type {kind}")


# --- requests ---------------------------------------------------------------------------------------------------------

#: PINCTRL_ATTRIBUTES, _REQUEST, _RELEASE, _NAME_GET: identifier, flags (selector 1:0).
IDENTIFIED: Final = struct.Struct("<II")
#: PINCTRL_LIST_ASSOCIATIONS: identifier, flags (selector 1:0), index of the first one wanted.
LIST_ASSOCIATIONS: Final = struct.Struct("<III")
#: PINCTRL_SETTINGS_GET: identifier, attributes (config flag 19:18, selector 17:16, configs to skip 15:8, type 7:0).
SETTINGS_GET: Final = struct.Struct("<II")
GET_RESERVED: Final = 0xFFF0_0000
GET_FLAG_SHIFT: Final = 18
GET_SELECTOR_SHIFT: Final = 16
GET_SKIP_SHIFT: Final = 8


class GetFlag(IntEnum):
    """What PINCTRL_SETTINGS_GET asks for; 3 is reserved."""

    ONE = 0
    ALL = 1
    FUNCTION = 2


#: PINCTRL_SETTINGS_CONFIGURE: identifier, function id, attributes (function valid 10, configs 9:2, selector 1:0); then
#: as many pairs of type and value.
SETTINGS_CONFIGURE: Final = struct.Struct("<III")
CONFIGURE_RESERVED: Final = 0xFFFF_F800
CONFIGURE_FUNCTION: Final = 1 << 10
CONFIGURE_COUNT_SHIFT: Final = 2
MAX_CONFIGS: Final = 0xFF
CONFIG: Final = struct.Struct("<II")
#: PINCTRL_SET_PERMISSIONS: agent id, identifier, flags (allowed 2, selector 1:0).
SET_PERMISSIONS: Final = struct.Struct("<III")
PERMIT: Final = 1 << 2

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: pins (15:0), groups (31:16); functions (15:0), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<HHHH")
#: PINCTRL_ATTRIBUTES: attributes, 16-byte name.
PIN_ATTRIBUTES_REPLY: Final = struct.Struct("<I16s")
ATTR_COUNT_MASK: Final = 0xFFFF
#: A function that single pins have, not groups: its count is of pins.
ATTR_PIN_ONLY: Final = 1 << 16
ATTR_GPIO: Final = 1 << 17
ATTR_EXTENDED_NAME: Final = 1 << 31
#: PINCTRL_LIST_ASSOCIATIONS: flags word (returned 11:0, remaining 31:16), then 16-bit identifiers.
MAX_LISTED: Final = 0xFFF
#: PINCTRL_SETTINGS_GET: function selected, configs (returned 7:0, remaining 31:24), then pairs of type and value.
SETTINGS_REPLY: Final = struct.Struct("<II")

#: A config: type and value.
Config = tuple[int, int]
_U16: Final = struct.Struct("<H")


class Attributes(NamedTuple):
    pins: int
    groups: int
    functions: int


class PinAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``)."""

    attributes: int
    name: str

    @property
    def members(self) -> int:
        """Pins of a group; groups of a function, or pins where it is pin-only; 1 of a pin."""
        return self.attributes & ATTR_COUNT_MASK


class Associations(NamedTuple):
    """One reply of the iteration over a group's pins or a function's groups."""

    identifiers: list[int]
    remaining: int


class Settings(NamedTuple):
    """One reply of the iteration. ``function``: the one selected, or None."""

    function: int | None
    configs: list[Config]
    remaining: int


def settings_get(identifier: int, selector: int, flag: int, *, kind: int = 0, skip: int = 0) -> bytes:
    """Payload of PINCTRL_SETTINGS_GET. Raises struct.error where a field does not fit a word."""
    word = flag << GET_FLAG_SHIFT | selector << GET_SELECTOR_SHIFT | skip << GET_SKIP_SHIFT | kind
    return SETTINGS_GET.pack(identifier, word)


def settings_configure(
    identifier: int, selector: int, configs: Sequence[Config] = (), function: int | None = None
) -> bytes:
    """Payload of PINCTRL_SETTINGS_CONFIGURE. ``function`` None: the function stays; NO_FUNCTION: there is none."""
    word = selector | len(configs) << CONFIGURE_COUNT_SHIFT
    chosen = NO_FUNCTION if function is None else function
    if function is not None:
        word |= CONFIGURE_FUNCTION
    return SETTINGS_CONFIGURE.pack(identifier, chosen, word) + b"".join(CONFIG.pack(*one) for one in configs)


def parse_attributes(payload: bytes) -> Attributes:
    pins, groups, functions, _ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(pins, groups, functions)


def parse_pin_attributes(payload: bytes) -> PinAttributes:
    attributes, name = unpack(PIN_ATTRIBUTES_REPLY, payload, "PINCTRL_ATTRIBUTES")
    return PinAttributes(attributes, name_of(name))


def build_associations(identifiers: Sequence[int], remaining: int) -> bytes:
    """Return values of PINCTRL_LIST_ASSOCIATIONS."""
    return struct.pack(f"<I{len(identifiers)}H", len(identifiers) | remaining << 16, *identifiers)


def parse_associations(payload: bytes) -> Associations:
    (flags,) = unpack(U32, payload, "PINCTRL_LIST_ASSOCIATIONS")
    items = unpack_many(_U16, payload, flags & MAX_LISTED, "PINCTRL_LIST_ASSOCIATIONS", 4)
    return Associations([item for (item,) in items], flags >> 16)


def build_settings(function: int | None, configs: Sequence[Config], remaining: int) -> bytes:
    """Return values of PINCTRL_SETTINGS_GET."""
    head = SETTINGS_REPLY.pack(NO_FUNCTION if function is None else function, len(configs) | remaining << 24)
    return head + b"".join(CONFIG.pack(*one) for one in configs)


def parse_settings(payload: bytes) -> Settings:
    function, flags = unpack(SETTINGS_REPLY, payload, "PINCTRL_SETTINGS_GET")
    configs = unpack_many(CONFIG, payload, flags & MAX_CONFIGS, "PINCTRL_SETTINGS_GET", SETTINGS_REPLY.size)
    return Settings(
        None if function == NO_FUNCTION else function, [(kind, value) for kind, value in configs], flags >> 24
    )
