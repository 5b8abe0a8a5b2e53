"""The benchmarks beside grpc.aio, of the guards, of notifications, of the NIC and of the ITS: a short round of each, in
its own process."""

from __future__ import annotations

from typing import Any

import pytest

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.lab.scenario import SCENARIOS
from tests.bench.bench_guards import BASE, GUARDS, SHIPPED, guards
from tests.bench.bench_nic import SHAPES, WINDOWS, longest_gap
from tests.bench.run import run


def test_every_variant_of_the_wrap_guard_is_measured() -> None:
    posted = {one.name.replace("-", "_") for one in SCENARIOS["aba-wrap"].variants if one.name != "shipped"}
    assert posted == set(GUARDS)
    assert guards()[SHIPPED] is SplitDriver


def test_the_cut_driver_lacks_the_barrier_tests_of_poll_and_no_others() -> None:
    cut = guards()[f"{SHIPPED}_cut"]
    for fence in ("_mb", "_rmb"):
        assert fence in SplitDriver.poll.__code__.co_names
        assert fence not in cut.poll.__code__.co_names
        assert fence in cut.get_buf.__code__.co_names


@pytest.mark.parametrize("name", guards())
def test_a_guard_sees_what_came_and_only_the_shipped_one_pays_for_the_full_count(name: str) -> None:
    world, memory, layout = AsyncWorld(), GuestMemory(1 << 16), SplitLayout.packed_at(0x1000, 4)
    driver: Any = guards()[name](world, memory, layout, event_idx=True)
    device = SplitDevice(world, memory, layout, event_idx=True, check=False)
    snapshot = driver.enable_cb_prepare()
    head = driver.add((), ((0x2000, 4),), "mine")
    assert not driver.poll(snapshot)
    assert device.pop() is not None
    device.push(head, 4)
    assert driver.poll(snapshot)
    assert driver.get_buf() == ("mine", 4)
    assert driver.consumed == name.startswith(SHIPPED)


def test_guards() -> None:
    figures = run("bench_guards", "3")
    assert set(figures) == {f"guard_{name}" for name in guards()}
    for values in figures.values():
        assert values["command_ns"] > values["poll_ns"] > 0
        assert values["command_share"] < 1
    assert figures[f"guard_{BASE}"]["poll_ratio"] == figures[f"guard_{BASE}"]["command_ratio"] == 1


@pytest.mark.mesh
def test_grpc() -> None:
    figures = run("bench_grpc", "1", "100")
    sides = ("bare_echo", "grpc_aio", "scmi_polled", "scmi_interrupt")
    assert list(figures) == [f"{kind}_{side}" for kind in ("rtt", "rate_64") for side in sides]
    for row, values in figures.items():
        assert values["p50_us" if row.startswith("rtt") else "per_s"] > 0
        assert ("ratio" in values, "of_grpc" in values) == ("bare" not in row, "scmi" in row)


@pytest.mark.mesh
def test_notifications() -> None:
    figures = run("bench_notify", "1", "200")
    assert set(figures) == {"notify_64", "notify_256", "notify_overload"}
    for values in figures.values():
        assert values["per_s"] > 0
        assert 0 <= values["platform_dropped"] + values["fifo_dropped"] < 1
    # a platform that waits for buffers drops nothing, and 64 notifications fit in the agent's fifo
    assert figures["notify_64"]["platform_dropped"] == figures["notify_64"]["fifo_dropped"] == 0
    assert figures["notify_overload"]["platform_dropped"] > 0


def test_the_longest_gap_is_one_that_touches_the_change() -> None:
    stamps = [0.0, 5.0, 6.0, 8.0, 8.5, 20.0]
    assert longest_gap(stamps, 5.5, 7.0) == 2.0
    assert longest_gap(stamps, 6.5, 6.5) == 2.0
    assert longest_gap(stamps, 4.0, 5.5) == 5.0
    assert longest_gap(stamps, 8.2, 8.4) == 0.5
    for start, stop in ((-1.0, 1.0), (8.6, 21.0)):
        with pytest.raises(ValueError, match="both sides"):
            longest_gap(stamps, start, stop)


@pytest.mark.mesh
def test_nic() -> None:
    figures = run("bench_nic", "1", "0.1", "3")
    assert list(figures) == [f"batch_{n}" for n in WINDOWS] + [f"map_{regions}x{queues}" for regions, queues in SHAPES]
    for row, values in figures.items():
        if row.startswith("batch"):
            assert values["ratio"] > 0
            assert values["p99_us"] >= values["p50_us"] > 0
        else:
            assert values["silence_max_us"] >= values["silence_us"] > 0
            assert values["set_map_us"] > 0
            assert values["usual_us"] > 0


def test_a_short_round_of_the_its() -> None:
    figures = run("bench_its", "0.3", "1")
    kvm, qemu = figures["kvm"], figures["qemu"]
    assert kvm.keys() == qemu.keys() >= {"INT", "MAPTI", "INV", "INVALL", "MOVALL", "msi"}
    assert all(rate > 0 for rate in kvm.values())
    assert figures["memory"]["mapped_bytes"] < figures["memory"]["used_bytes"]
    assert figures["mesh_msi_per_s"]["rate"] > 0
    for kind in ("mesh_INT", "mesh_MAPTI", "mesh_MOVI"):
        assert figures[kind]["commands_per_s"] > 0
        assert figures[kind]["p99_ratio"] > 0
