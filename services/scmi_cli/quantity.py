"""Numbers with units, exactly: what is printed can be typed again and means the same."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from common.errors import ConfigError
from common.scmi.sensor_types import SENSOR_TYPES

_PREFIXES: Final = (("T", 12), ("G", 9), ("M", 6), ("k", 3))
_POWERS: Final = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12}
_SYMBOLS: Final = {
    "degrees_c": "°C", "degrees_f": "°F", "degrees_k": "K", "volts": "V", "amps": "A", "watts": "W", "joules": "J",
    "hertz": "Hz", "seconds": "s", "percentage": "%", "pascals": "Pa", "radians_per_second": "rad/s",
    "meters_per_second": "m/s", "meters_per_second_squared": "m/s²", "none": "", "unspecified": "",
}  # fmt: skip
_TYPES: Final = {number: name for name, number in SENSOR_TYPES.items()}
_VOLTS: Final = {"": 0, "uV": 0, "µV": 0, "mV": 3, "V": 6}
_NUMBER: Final = re.compile(r"([-+]?[0-9][0-9_]*(?:\.[0-9]+)?) ?(\D*)")


def hertz(rate: int) -> str:
    """``148.5 MHz`` for 148500000; never rounded."""
    for prefix, power in _PREFIXES:
        if abs(rate) >= 10**power:
            return f"{_plain(Decimal(rate).scaleb(-power).normalize())} {prefix}Hz"
    return f"{rate} Hz"


def parse_hertz(text: str) -> int:
    """Hz from ``600000000``, ``600_000_000``, ``600M``, ``148.5MHz``. Raises ConfigError."""
    found = _NUMBER.fullmatch(text)
    power = _POWERS.get(found[2].removesuffix("Hz")) if found else None
    if found is None or power is None:
        raise ConfigError("rate", "", f"{text!r} is not a frequency such as 600000000 or 148.5MHz")
    value = Decimal(found[1]).scaleb(power)
    if value != int(value) or not 0 <= value < 1 << 64:
        raise ConfigError("rate", "", f"{text!r} is not a whole number of Hz below 2^64")
    return int(value)


def volts(level: int) -> str:
    """``900 mV`` for 900000 µV; never rounded."""
    for prefix, power in (("", 6), ("m", 3)):
        if abs(level) >= 10**power:
            return f"{_plain(Decimal(level).scaleb(-power).normalize())} {prefix}V"
    return f"{level} µV"


def parse_volts(text: str) -> int:
    """µV from ``900000``, ``900mV``, ``0.9V``, ``-5V``. Raises ConfigError."""
    found = _NUMBER.fullmatch(text)
    power = _VOLTS.get(found[2]) if found else None
    if found is None or power is None:
        raise ConfigError("level", "", f"{text!r} is not a voltage such as 900000, 900mV or 0.9V")
    value = Decimal(found[1]).scaleb(power)
    if value != int(value) or not -(1 << 31) <= value < 1 << 31:
        raise ConfigError("level", "", f"{text!r} is not a whole number of µV of 32 bits")
    return int(value)


def type_name(number: int) -> str:
    """The name of a sensor type, as board files spell it."""
    return _TYPES.get(number, f"type {number}")


def unit(number: int) -> str:
    """What readings of a sensor type are counted in."""
    name = type_name(number)
    return _SYMBOLS.get(name, name)


def reading(value: int, exponent: int, kind: int) -> str:
    """A reading in the unit of its type: ``38.250 °C`` for 38250 with exponent −3."""
    return f"{_plain(Decimal(value).scaleb(exponent))} {unit(kind)}".rstrip()


def parse_reading(text: str, exponent: int, kind: int) -> int:
    """A bare whole number counts the sensor's own steps (``45000``); one with its unit is converted (``45°C``, also
    ``45C``). Raises ConfigError for another unit, or for a value between two steps."""
    symbol = unit(kind)
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] and found[2].removeprefix("°") != symbol.removeprefix("°")):
        raise ConfigError("value", "", f"{text!r} is not a reading such as 45000 or 45{symbol}")
    value = Decimal(found[1])
    if found[2]:
        value = value.scaleb(-exponent)
    if value != int(value) or not -(1 << 63) <= value < 1 << 63:
        raise ConfigError("value", "", f"{text!r} is no whole number of steps of 10^{exponent} {symbol}".rstrip())
    return int(value)


def seconds(interval: tuple[int, int]) -> str:
    """An update interval (mantissa, exponent): ``0.1 s``."""
    return f"{_plain(Decimal(interval[0]).scaleb(interval[1]).normalize())} s"


def parse_seconds(text: str) -> tuple[int, int]:
    """(mantissa, exponent) of ``0.1``, ``100ms`` or ``2s``. Raises ConfigError for what an update interval cannot be:
    a u16 times a power of ten from 10⁻¹⁶ to 10¹⁵."""
    found = _NUMBER.fullmatch(text)
    power = {"": 0, "s": 0, "ms": -3, "us": -6}.get(found[2]) if found else None
    if found is None or power is None:
        raise ConfigError("interval", "", f"{text!r} is not an interval such as 0.1 or 100ms")
    try:
        _, digits, exponent = Decimal(found[1]).scaleb(power).normalize().as_tuple()
    except InvalidOperation:
        digits, exponent = (), "F"
    mantissa = int("".join(map(str, digits)) or "0")
    if not isinstance(exponent, int) or not 0 < mantissa < 1 << 16 or not -16 <= exponent <= 15 or "-" in found[1]:
        raise ConfigError("interval", "", f"{text!r}: 1 to 65535 times a power of ten from -16 to 15 is wanted")
    return mantissa, exponent


def _plain(value: Decimal) -> str:
    """Without an exponent."""
    return f"{value:f}"
