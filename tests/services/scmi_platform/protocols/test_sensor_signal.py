"""Signals are deterministic and stay within their range."""

from __future__ import annotations

from typing import Literal

import pytest

from services.scmi_platform.boards.sensor import Signal
from services.scmi_platform.protocols.sensor_signal import reader


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("constant", [100, 100, 100, 100, 100]),
        ("sine", [100, 150, 100, 50, 100]),
        ("triangle", [100, 150, 100, 50, 100]),
        ("ramp", [100, 112, 125, 138, 150]),
    ],
)
def test_one_period(shape: Literal["constant", "sine", "triangle", "ramp"], values: list[int]) -> None:
    read = reader(Signal(shape=shape, base=100, amplitude=50, period=8.0), 0, 200)
    assert [read(now) for now in (0.0, 2.0, 4.0, 6.0, 8.0)] == values


def test_clamped_and_shifted() -> None:
    read = reader(Signal(shape="sine", base=100, amplitude=500, period=8.0, phase=0.25), 0, 200)
    assert [read(now) for now in (0.0, 4.0)] == [200, 0]


def test_triangle_is_straight_between_its_corners() -> None:
    read = reader(Signal(shape="triangle", base=0, amplitude=100, period=4.0), -100, 100)
    assert [read(now / 2) for now in range(9)] == [0, 50, 100, 50, 0, -50, -100, -50, 0]


def test_no_amplitude_is_constant() -> None:
    assert reader(Signal(shape="sine", base=7), 0, 9)(1.0) == 7
