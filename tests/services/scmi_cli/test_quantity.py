"""Quantities: exact both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.scmi.sensor_types import SENSOR_TYPES
from services.scmi_cli.quantity import (
    hertz,
    parse_hertz,
    parse_reading,
    parse_seconds,
    parse_volts,
    reading,
    seconds,
    type_name,
    unit,
    volts,
)

CELSIUS = SENSOR_TYPES["degrees_c"]


@given(st.integers(0, (1 << 64) - 1))
def test_a_rate_that_was_printed_can_be_typed(rate: int) -> None:
    assert parse_hertz(hertz(rate)) == rate


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0 Hz"), (999, "999 Hz"), (1000, "1 kHz"), (148_500_000, "148.5 MHz"), (148_500_001, "148.500001 MHz"),
     (1_000_000_000, "1 GHz"), (10**13, "10 THz")],
)  # fmt: skip
def test_rates_are_never_rounded(rate: int, text: str) -> None:
    assert hertz(rate) == text


@pytest.mark.parametrize(
    "text", ["600000000", "600_000_000", "600M", "600MHz", "600 MHz", "0.6G", "600000k", "600000kHz"]
)
def test_ways_to_say_600_mhz(text: str) -> None:
    assert parse_hertz(text) == 600_000_000


@pytest.mark.parametrize(
    "text", ["", "abc", "1e9", "600 M Hz", "-1", "0.5", "1.2345k", "600mHz", "99999999999999999999", "²"]
)
def test_what_is_no_frequency(text: str) -> None:
    with pytest.raises(ConfigError, match="rate: "):
        parse_hertz(text)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-16, 15))
def test_a_reading_that_was_printed_can_be_typed(value: int, exponent: int) -> None:
    assert parse_reading(reading(value, exponent, CELSIUS), exponent, CELSIUS) == value


def test_readings() -> None:
    assert reading(38250, -3, CELSIUS) == "38.250 °C"
    assert reading(-40000, -3, CELSIUS) == "-40.000 °C"
    assert reading(5, 2, SENSOR_TYPES["rpm"]) == "500 rpm"
    assert reading(7, 0, SENSOR_TYPES["none"]) == "7"
    assert parse_reading("45000", -3, CELSIUS) == parse_reading("45C", -3, CELSIUS) == 45000
    assert parse_reading("-40000", -3, CELSIUS) == parse_reading("-40 °C", -3, CELSIUS) == -40000


@pytest.mark.parametrize("text", ["", "hot", "45V", "45.5", "45.0005C", "9223372036854775808"])
def test_what_is_no_reading(text: str) -> None:
    with pytest.raises(ConfigError, match="value: "):
        parse_reading(text, -3, CELSIUS)


def test_units() -> None:
    assert unit(SENSOR_TYPES["volts"]) == "V"
    assert unit(SENSOR_TYPES["rpm"]) == "rpm"
    assert type_name(200) == "type 200"


@given(st.integers(1, 65535), st.integers(-16, 6))
def test_an_interval_that_was_printed_can_be_typed(mantissa: int, exponent: int) -> None:
    got = parse_seconds(seconds((mantissa, exponent)))
    assert got[0] * 10 ** (got[1] + 16) == mantissa * 10 ** (exponent + 16)


def test_intervals() -> None:
    assert seconds((1, -1)) == "0.1 s"
    assert parse_seconds("100ms") == (1, -1)
    assert parse_seconds("1.5s") == (15, -1)
    assert parse_seconds("250us") == (25, -5)
    assert parse_seconds("20") == (2, 1)


@pytest.mark.parametrize("text", ["", "0", "soon", "-1", "1.23456", "65537", "1h"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ConfigError, match="interval: "):
        parse_seconds(text)


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_a_voltage_that_was_printed_can_be_typed(level: int) -> None:
    assert parse_volts(volts(level)) == level


@pytest.mark.parametrize(
    ("level", "text"),
    [(0, "0 µV"), (999, "999 µV"), (900_000, "900 mV"), (1_100_000, "1.1 V"), (-3_300_001, "-3.300001 V")],
)
def test_voltages_are_never_rounded(level: int, text: str) -> None:
    assert volts(level) == text


@pytest.mark.parametrize("text", ["950000", "950_000", "950mV", "950 mV", "0.95V", "950000uV", "950000 µV"])
def test_ways_to_say_950_millivolts(text: str) -> None:
    assert parse_volts(text) == 950_000


@pytest.mark.parametrize("text", ["", "V", "1e3", "0.5", "0.0005mV", "1kV", "2147.483648V", "-2147483649", "1 A"])
def test_what_is_no_voltage(text: str) -> None:
    with pytest.raises(ConfigError, match="level: "):
        parse_volts(text)
