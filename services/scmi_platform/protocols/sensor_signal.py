"""What a sensor measures at a time: deterministic, noise-free, so that a test or a replay sees the same values."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sin

from services.scmi_platform.boards.sensor import Signal


def reader(signal: Signal, lowest: int, highest: int) -> Callable[[float], int]:
    """A function from seconds to whole readings within ``lowest … highest``."""
    if signal.shape == "constant" or not signal.amplitude:
        return lambda now: signal.base

    base, amplitude, period, phase, shape = (
        signal.base,
        signal.amplitude,
        signal.period,
        signal.phase,
        SHAPES[signal.shape],
    )

    def read(now: float) -> int:
        value = round(base + amplitude * shape(now / period + phase))
        return lowest if value < lowest else highest if value > highest else value

    return read


def _sine(turns: float) -> float:
    return sin(2 * pi * turns)


def _triangle(turns: float) -> float:
    """−1 … 1 with the zero crossings of the sine."""
    return 1 - 4 * abs((turns + 0.25) % 1 - 0.5)


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda turns: 0.0,
    "sine": _sine,
    "triangle": _triangle,
    "ramp": lambda turns: turns,
}
