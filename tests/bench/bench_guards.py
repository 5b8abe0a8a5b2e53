"""What each guard against a wrapped index costs (``ringmesh lab run aba-wrap`` says which of them hold).

* ``guard_…``: ``poll_ns``: one look of a polling loop that finds nothing. ``command_ns``: the driver's half of a polled
  command: add, kick, snapshot, the look that finds something, get; the device's half is not timed. ``poll_ratio`` and
  ``command_ratio``: to ``index16``, which is no guard at all. ``command_share``: what the command costs more than with
  ``index16``, as a share of a round trip of the bare echo in the same minute.
* ``full_index`` is what the services run; ``full_index_cut`` the same without the barrier tests in ``poll()``, which
  the other three never had.
* The three that do not ship are the lab's classes, over a driver that keeps no full count: each pays for its own.
  The two counters override one method that calls what it overrides; ``index16_call`` makes such a call for nothing, so
  what they cost beyond it is what they would cost written into the driver.

``python -m tests.bench.bench_guards [ROUNDS]``
"""

from __future__ import annotations

import ast
import inspect
import json
import statistics
import sys
import time
from itertools import repeat
from typing import Any

import uvloop

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.virtio import split_driver
from common.virtio.split_device import SplitDevice
from common.virtio.split_layout import SplitLayout
from services.lab.scenarios import aba_wrap
from tests.bench import rig
from tests.bench.bench_mesh import PING, quantile, round_trips
from tests.bench.bench_seams import Cut

ROUNDS = 121
BEST_OF = 10
POLLS = 1000
COMMANDS = 64
SIZE = 256
ECHOES = 3000
BASE, SHIPPED = "index16", "full_index"
GUARDS = {BASE: "Index16", "avail_counter": "AvailCounter", "used_wraps": "UsedWraps"}


class _Uncounted(ast.NodeTransformer):
    """Removes ``self.consumed += …``."""

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        return None if isinstance(node.target, ast.Attribute) and node.target.attr == "consumed" else node


class _PollCut(ast.NodeTransformer):
    """Removes the barrier tests of ``poll()``."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return Cut().generic_visit(node) if node.name == "poll" else node


def _driver(cut: ast.NodeTransformer) -> Any:
    """SplitDriver without what ``cut`` removes."""
    tree = ast.fix_missing_locations(cut.visit(ast.parse(inspect.getsource(split_driver))))
    made: dict[str, Any] = {"__name__": split_driver.__name__}
    exec(compile(tree, split_driver.__name__, "exec"), made)
    return made["SplitDriver"]


def guards() -> dict[str, Any]:
    """Driver classes by name of their guard."""
    wanted = set(GUARDS.values())
    tree = ast.parse(inspect.getsource(aba_wrap))
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in wanted]
    lab: dict[str, Any] = {"__name__": aba_wrap.__name__, "SplitDriver": _driver(_Uncounted()), "Any": Any}
    exec(compile(tree, aba_wrap.__name__, "exec"), lab)
    index16: Any = lab[GUARDS[BASE]]

    class Index16Call(index16):  # type: ignore[misc]
        __slots__ = ()

        def get_buf(self) -> tuple[Any, int] | None:
            return super().get_buf()  # type: ignore[no-any-return]

    found = {guard: lab[name] for guard, name in GUARDS.items()}
    shipped = {SHIPPED: split_driver.SplitDriver, f"{SHIPPED}_cut": _driver(_PollCut())}
    return found | {f"{BASE}_call": Index16Call} | shipped


class Bench:
    """One ring, its driver of class ``cls``."""

    def __init__(self, cls: Any) -> None:
        world, memory, layout = AsyncWorld(), GuestMemory(1 << 20), SplitLayout.packed_at(0x1000, SIZE)
        self.driver = cls(world, memory, layout, event_idx=True)
        self.device = SplitDevice(world, memory, layout, event_idx=True, check=False)

    def poll(self) -> float:
        """Nanoseconds of a look that finds nothing."""
        poll, snapshot = self.driver.poll, self.driver.enable_cb_prepare()
        began = time.perf_counter_ns()
        for _ in repeat(None, POLLS):
            poll(snapshot)
        took = (time.perf_counter_ns() - began) / POLLS
        assert not poll(snapshot)
        return took

    def command(self) -> float:
        """Nanoseconds of the driver's half of a command."""
        driver, device = self.driver, self.device
        outs, ins, snapshots = ((0x8000, 8),), ((0x9000, 16),), []
        began = time.perf_counter_ns()
        for _ in repeat(None, COMMANDS):
            snapshots.append(driver.enable_cb_prepare())
            driver.add(outs, ins, 1)
            driver.kick_prepare()
        took = time.perf_counter_ns() - began
        for head, _, _ in device.pop_batch(COMMANDS):
            device.push(head, 16)
        began = time.perf_counter_ns()
        for snapshot in snapshots:
            if not driver.poll(snapshot):
                raise AssertionError("the reply is in the ring")
            driver.get_buf()
        return (took + time.perf_counter_ns() - began) / COMMANDS


async def bare_ns() -> float:
    """A round trip of the bare echo, p50."""
    async with rig.echo() as client:
        return quantile(await round_trips(lambda: client.ask(PING), ECHOES), 0.5) * 1000


def main(rounds: int = ROUNDS) -> dict[str, Any]:
    rig.pin_client()
    benches = {name: Bench(cls) for name, cls in guards().items()}
    samples: dict[str, dict[str, list[float]]] = {name: {"poll": [], "command": []} for name in benches}
    for turn in range(rounds):
        order = list(benches.items())
        for name, bench in order[turn % len(order) :] + order[: turn % len(order)]:
            samples[name]["poll"].append(min(bench.poll() for _ in range(BEST_OF)))
            samples[name]["command"].append(min(bench.command() for _ in range(BEST_OF)))
    bare = uvloop.run(bare_ns())
    median, figures = statistics.median, {}
    for name, mine in samples.items():
        values = {f"{what}_ns": round(median(times), 1) for what, times in mine.items()}
        for what, times in mine.items():
            base = samples[BASE][what]
            values[f"{what}_ratio"] = round(median(a / b for a, b in zip(times, base, strict=True)), 3)
        more = median(a - b for a, b in zip(mine["command"], samples[BASE]["command"], strict=True))
        figures[f"guard_{name}"] = values | {"command_share": round(more / bare, 5)}
    return figures


if __name__ == "__main__":
    json.dump(main(*map(int, sys.argv[1:])), sys.stdout, indent=2)
    print()
