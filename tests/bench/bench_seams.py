"""What the seams between algorithm and world cost the services.

The same modules are loaded twice: as they ship, and with every seam cut out of their syntax trees (barrier tests,
spinlocks, reference counts as atomics). Both run in turns in the same process; the ratio of the medians is the cost.

* ``ring``: one command's ring cycle: add two descriptors, kick, pop, push, interrupt test, get.
* ``ring_batch``: the same in batches of 64 single descriptors.
* ``agent``: one polled SCMI command from the agent's call to its checked reply, the device answering in the doorbell:
  the densest use of locks and barriers that there is, with nothing around it.
* ``service``: the same cost as a share of what a polled command costs the guest's *service* in processor time, port,
  link and event loop included, measured on the running mesh.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import structlog
import uvloop

from tests.bench import rig

ROUNDS = 121
COMMANDS = 4000
FENCES = {"_wmb", "_rmb", "_mb"}
LOCKS = {"lock", "free_lock", "pending_lock", "poll_lock", "_lock"}

#: commands, or descriptors, that one call of a cycle does
CYCLES = {"ring_cycle": 64, "ring_batch": 64, "agent_command": 32}

#: every module that holds a seam, in the order in which they import each other
SEAMED = (
    "common.virtio.split_driver",
    "common.virtio.split_device",
    "common.workqueue",
    "services.guest_driver.scmi_message",
    "services.guest_driver.scmi_channel",
    "services.guest_driver.scmi_virtio",
    "services.guest_driver.scmi_xfer",
    "services.guest_driver.scmi_response",
    "services.guest_driver.scmi_agent",
)


class Cut(ast.NodeTransformer):
    """Removes ``if self._wmb is not None: self._wmb()`` and unwraps ``with lock:``."""

    def visit_If(self, node: ast.If) -> Any:
        test = node.test
        if isinstance(test, ast.BoolOp):  # `count and self._rmb is not None`
            test = test.values[-1]
        if isinstance(test, ast.Compare) and isinstance(test.left, ast.Attribute) and test.left.attr in FENCES:
            return None
        return self.generic_visit(node)

    def visit_With(self, node: ast.With) -> Any:
        self.generic_visit(node)
        context = node.items[0].context_expr
        if isinstance(context, ast.Attribute) and context.attr in LOCKS:
            return node.body
        return node


def _filled(tree: ast.Module) -> ast.Module:
    """A body that lost its last statement gets a ``pass``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.For | ast.While | ast.FunctionDef | ast.With) and not node.body:
            node.body = [ast.Pass()]
    return ast.fix_missing_locations(tree)


@contextmanager
def cut() -> Iterator[dict[str, ModuleType]]:
    """The seamed modules without their seams, importable under their own names inside the block."""
    shipped = {name: importlib.import_module(name) for name in SEAMED}
    made: dict[str, ModuleType] = {}
    try:
        for name in SEAMED:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            with open(spec.origin, encoding="utf-8") as file:
                tree = _filled(Cut().visit(ast.parse(file.read())))
            module = ModuleType(name)
            module.__file__ = spec.origin
            sys.modules[name] = made[name] = module
            exec(compile(tree, spec.origin, "exec"), module.__dict__)
        yield made
    finally:
        sys.modules.update(shipped)


def ring_cycle(modules: dict[str, ModuleType]) -> Callable[[], None]:
    from common.memory import GuestMemory
    from common.runtime.world import AsyncWorld
    from common.virtio.split_layout import SplitLayout

    world, memory, layout = AsyncWorld(), GuestMemory(1 << 20), SplitLayout.packed_at(0x1000, 256)
    driver = modules["common.virtio.split_driver"].SplitDriver(world, memory, layout, event_idx=True)
    device = modules["common.virtio.split_device"].SplitDevice(world, memory, layout, event_idx=True, check=False)
    outs, ins = ((0x8000, 64),), ((0x9000, 64),)

    def cycle() -> None:
        for _ in range(64):
            driver.add(outs, ins, 1)
            driver.kick_prepare()
            device.push(device.pop()[0], 64)
            device.need_interrupt()
            driver.get_buf()

    return cycle


def ring_batch(modules: dict[str, ModuleType]) -> Callable[[], None]:
    from common.memory import GuestMemory
    from common.runtime.world import AsyncWorld
    from common.virtio.split_layout import SplitLayout

    world, memory, layout = AsyncWorld(), GuestMemory(1 << 20), SplitLayout.packed_at(0x1000, 256)
    driver = modules["common.virtio.split_driver"].SplitDriver(world, memory, layout, event_idx=True)
    device = modules["common.virtio.split_device"].SplitDevice(world, memory, layout, event_idx=True, check=False)
    buffers = [(0x8000, 64, 1)] * 64

    def cycle() -> None:
        driver.add_batch(buffers, 0)
        driver.kick_prepare()
        device.push_batch([(head, 64) for head, _, _ in device.pop_batch(256)])
        device.need_interrupt()
        driver.get_bufs(256)

    return cycle


def agent_command(modules: dict[str, ModuleType]) -> Callable[[], None]:
    from common.memory import GuestMemory
    from common.runtime.world import AsyncWorld
    from common.virtio.split_layout import SplitLayout
    from services.guest_driver.layout import Layout

    world, memory = AsyncWorld(), GuestMemory(1 << 20)
    at = SplitLayout.packed_at(0x1000, 256)
    layout = Layout(0x10000, 0xE0000)
    ring = modules["common.virtio.split_driver"].SplitDriver(world, memory, at, event_idx=True)
    device = modules["common.virtio.split_device"].SplitDevice(world, memory, at, event_idx=True, check=False)
    agent = modules["services.guest_driver.scmi_agent"].ScmiAgent(world, print)
    queue = modules["common.workqueue"].WorkQueue(world)

    def doorbell() -> None:
        head, segments, _ = device.pop()
        memory.write(segments[1][0], memory.read(segments[0][0], 4) + bytes(12))
        device.push(head, 16)
        device.enable_notify()

    channel = modules["services.guest_driver.scmi_virtio"].TxChannel(
        world, memory, ring, layout, doorbell, agent.rx_callback, queue
    )
    agent.attach(channel)

    def cycle() -> None:
        for _ in range(32):
            command = agent.clock.rate_get(0, poll=True)
            try:
                command.send(None)
            except StopIteration:
                continue
            raise AssertionError("the reply is in the ring before the first look")

    return cycle


def compare(make: Callable[[dict[str, ModuleType]], Callable[[], None]]) -> dict[str, float]:
    """Median over rounds of (as shipped) / (seams cut), turn by turn, and what the seams cost in µs a cycle."""
    shipped = make({name: importlib.import_module(name) for name in SEAMED})
    with cut() as modules:
        bare = make(modules)
    clock = time.perf_counter
    ratios, costs = [], []
    for turn in range(ROUNDS):
        times = {}
        for side in (shipped, bare) if turn % 2 else (bare, shipped):
            best = float("inf")
            for _ in range(10):
                began = clock()
                side()
                best = min(best, clock() - began)
            times[side] = best
        ratios.append(times[shipped] / times[bare])
        costs.append((times[shipped] - times[bare]) / CYCLES[make.__name__] * 1e6)
    return {"ratio": round(statistics.median(ratios), 3), "us": round(statistics.median(costs), 3)}


async def service_cpu() -> float:
    """Processor time of the guest's service for one polled command, in µs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()
    async with rig.mesh(map_seconds=0.0, inv_seconds=0.0) as service:
        clock = service.guests[0].agent.clock
        before = time.process_time()
        for _ in range(COMMANDS):
            await clock.rate_get(0, poll=True)
        return (time.process_time() - before) / COMMANDS * 1e6


def main() -> dict[str, Any]:
    figures = {f"seams_{make.__name__}": compare(make) for make in (ring_cycle, ring_batch, agent_command)}
    cpu = uvloop.run(service_cpu())
    cost = figures["seams_agent_command"]["us"]
    figures["seams_service"] = {"ratio": round(cpu / (cpu - cost), 3), "us": cost, "of_us": round(cpu, 1)}
    return figures


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=2)
    print()
