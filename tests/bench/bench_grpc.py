"""The SCMI command beside ``grpc.aio`` unary and the bare echo: all four in turns, in the same minute, pinned alike.

* ``rtt_…``: p50 of a round trip, one in flight. ``ratio``: to the bare echo's; ``of_grpc``: to grpc.aio's.
* ``rate_…``: round trips a second with 64 in flight. ``ratio`` and ``of_grpc`` again: more is better here.

``python -m tests.bench.bench_grpc [ROUNDS [COMMANDS]]``
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
import uvloop

from tests.bench import rig
from tests.bench.bench_mesh import PING, quantile, round_trips
from tests.bench.grpc_echo import METHOD, REPLY_BYTES, REQUEST

ROUNDS = 5
COMMANDS = 2000
WINDOW = 64
BARE, GRPC, POLLED, INTERRUPT = "bare_echo", "grpc_aio", "scmi_polled", "scmi_interrupt"

Ask = Callable[[], Awaitable[Any]]


async def rate(ask: Ask, count: int) -> float:
    """Round trips a second, ``WINDOW`` callers that each wait for theirs."""
    left = count

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(WINDOW)])
    return count / (time.perf_counter() - began)


def table(kind: str, unit: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds, and medians of each round's ratios."""

    def ratio(name: str, to: str) -> float:
        return round(statistics.median(one[name] / one[to] for one in rounds), 3)

    figures: dict[str, Any] = {}
    for name in rounds[0]:
        figures[f"{kind}_{name}"] = values = {unit: round(statistics.median(one[name] for one in rounds), 1)}
        if name != BARE:
            values["ratio"] = ratio(name, BARE)
        if name not in (BARE, GRPC):
            values["of_grpc"] = ratio(name, GRPC)
    return figures


async def main(rounds: int = ROUNDS, commands: int = COMMANDS) -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()  # before grpc makes its threads
    quiet = {"map_seconds": 0.0, "inv_seconds": 0.0}
    async with rig.mesh(**quiet) as service, rig.echo() as echo, rig.server("grpc_echo") as port:
        clock = service.guests[0].agent.clock
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(METHOD)
            assert len(await call(REQUEST)) == REPLY_BYTES
            others: dict[str, Ask] = {
                GRPC: lambda: call(REQUEST),
                POLLED: lambda: clock.rate_get(0, poll=True),
                INTERRUPT: lambda: clock.rate_get(0),
            }
            trips, rates = [], []
            for _ in range(rounds):
                trips.append({BARE: quantile(await round_trips(lambda: echo.ask(PING), commands), 0.5)})
                rates.append({BARE: await echo.rate(PING, WINDOW, min(commands / 5000, 1.0))})
                for name, ask in others.items():
                    trips[-1][name] = quantile(await round_trips(ask, commands), 0.5)
                    rates[-1][name] = await rate(ask, 2 * commands)
    return table("rtt", "p50_us", trips) | table(f"rate_{WINDOW}", "per_s", rates)


if __name__ == "__main__":
    json.dump(uvloop.run(main(*map(int, sys.argv[1:]))), sys.stdout, indent=2)
    print()
