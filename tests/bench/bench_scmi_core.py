"""Microseconds a command in the SCMI platform core: ``python tests/bench/bench_scmi_core.py``. Not collected by pytest.

One function a case; each prints the best of five rounds, which is the figure least disturbed by the machine.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from pathlib import Path

from common.scmi import clock, header, sensor
from services.scmi_platform.board import Board
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocols.standard import STANDARD

BOARD = Path(__file__).resolve().parents[2] / "deploy" / "boards" / "juno-r2.toml"
NUMBER = 100_000


def make() -> Platform:
    return Platform(
        Board.load(BOARD),
        clock=lambda: 1.0,
        emit=lambda agent, message: True,
        p2a=lambda agent: True,
        registry=STANDARD,
    )


def measure(name: str, run: Callable[[], object]) -> float:
    best = min(timeit.repeat(run, number=NUMBER, repeat=5)) / NUMBER * 1e6
    print(f"{name:32} {best:6.2f} µs")
    return best


def bench(name: str, request: bytes) -> float:
    platform = make()
    return measure(name, lambda: platform.handle(1, request))


def clock_rate_get() -> float:
    return bench("CLOCK_RATE_GET", header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, 5, bytes(4)))


def clock_rate_set() -> float:
    payload = clock.RATE_SET.pack(0, 0, 600_000_000)
    return bench("CLOCK_RATE_SET", header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_SET, 5, payload))


def clock_attributes() -> float:
    return bench("CLOCK_ATTRIBUTES", header.command(clock.PROTOCOL, clock.Command.CLOCK_ATTRIBUTES, 5, bytes(4)))


def sensor_reading_get() -> float:
    payload = sensor.READING_GET.pack(3, 0)
    return bench(
        "SENSOR_READING_GET (sine)", header.command(sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET, 5, payload)
    )


def not_found() -> float:
    payload = sensor.READING_GET.pack(999, 0)
    return bench(
        "SENSOR_READING_GET, NOT_FOUND", header.command(sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET, 5, payload)
    )


def idle_tick() -> float:
    platform = make()
    return measure("tick, nobody subscribed", lambda: platform.tick(1.0))


if __name__ == "__main__":
    for case in (clock_rate_get, clock_rate_set, clock_attributes, sensor_reading_get, not_found, idle_tick):
        case()
