"""The core against the model that shares nothing with it, on random command streams: valid and hostile ones, in both
profiles, with tables of every layout, with guests that wait for each write and with guests that do not.

RINGMESH_ITS_COMMANDS is how many commands are played in all; ``RINGMESH_ITS_COMMANDS=1000000 pytest`` for a long run.
"""

from __future__ import annotations

import os
import random
from dataclasses import fields
from typing import Any, Final

import pytest

from common.gic.commands import COMMANDS
from services.gic_its.adapter import CaseAdapter
from services.gic_its.stats import ErrorStats
from tests.services.gic_its.case_steps import Adapter
from tests.services.gic_its.late_adapter import LateAdapter
from tests.services.gic_its.oracle import Oracle
from tests.services.gic_its.stream_differences import Make, differences
from tests.services.gic_its.stream_player import EXTRAS, RARE, plan, run_stream
from tests.services.gic_its.stream_tables import KVM_SHAPES, SHAPES
from tests.services.gic_its.streams import hostile_stream, valid_stream

TOTAL: Final = int(os.environ.get("RINGMESH_ITS_COMMANDS", "108000"))
CPUS: Final = 4
CASE: Final = {"config": {"cpus": CPUS}}
ALL: Final = (*EXTRAS, *RARE)
STAYS: Final = tuple(kind for kind in ALL if kind != "migrate")

HOSTILE: Final[dict[str, Any]] = {"hostile": True, "wide_pes": True}
#: What of a stream can be said beside its seed. An ITT that lies nowhere can not be saved where the ITS holds tables.
KINDS: Final[dict[str, dict[str, Any]]] = {
    "valid": {},
    "hostile": HOSTILE,
    "ITTs nowhere": HOSTILE | {"nowhere": True},
    "one by one": HOSTILE | {"batch": (1, 1), "check_every": 20, "extras": ("msi", "ack", "inv")},
    "full queue": HOSTILE | {"batch": (90, 100), "check_every": 2},
    "long queue": {"batch": (1, 100), "queue_pages": 16, "check_every": 3},
}
#: The same, of a guest that does not wait.
LATE: Final[dict[str, dict[str, Any]]] = {
    "posted": {"writes": 7},
    "posted, hostile": HOSTILE | {"writes": 40, "batch": (1, 100), "check_every": 3},
}
STREAMS: Final = [
    *((profile, kind, "flat") for profile in ("kvm", "qemu") for kind in KINDS | LATE),
    *(
        (profile, kind, shape)
        for profile, shapes in (("kvm", KVM_SHAPES), ("qemu", tuple(SHAPES)))
        for at, shape in enumerate(shapes)
        if shape != "flat"
        for kind in [("hostile", "posted, hostile", "valid")[at % 3]]
    ),
]
#: Commands of a test; of one stream; and a hang guard for them, in seconds.
EACH: Final = -(-TOTAL // len(STREAMS))
STREAM: Final = 3000
GUARD: Final = 300 + EACH // 50


@pytest.mark.timeout(GUARD)
@pytest.mark.parametrize(("profile", "kind", "shape"), STREAMS)
def test_core_and_model_show_the_same(profile: str, kind: str, shape: str) -> None:
    options: dict[str, Any] = {"check_every": 6, "extras": ALL} | (KINDS | LATE)[kind]
    if profile == "kvm" and "nowhere" in options:
        options["extras"] = STAYS
    left, seed = EACH, 100_000 * STREAMS.index((profile, kind, shape))
    while left > 0:
        found = differences(
            core(profile, kind in LATE, seed),
            lambda: Oracle(CPUS, profile),
            seed,
            min(left, STREAM),
            profile=profile,
            cpus=CPUS,
            shape=SHAPES[shape],
            **options,
        )
        assert found is None, f"a: core, b: model; {found}"
        left, seed = left - STREAM, seed + 1


def core(profile: str, late: bool, seed: int) -> Make:
    def make() -> Adapter:
        return LateAdapter(CASE, profile, seed) if late else CaseAdapter(CASE, profile)

    return make


def test_there_are_enough_of_them() -> None:
    assert len(STREAMS) * EACH >= TOTAL
    assert {shape for _, _, shape in STREAMS} == set(SHAPES)


def stats_of(profile: str, hostile: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Commands and errors by name that a stream leads to."""
    rng = random.Random(3)
    machine = CaseAdapter(CASE, profile)
    make: Any = hostile_stream if hostile else valid_stream
    list(run_stream(machine, plan(make(rng, 4000), rng), profile=profile, check_every=1000))
    its = machine.its
    counts = [
        {field.name: getattr(stats, field.name) for field in fields(stats)} for stats in (its.commands, its.errors)
    ]
    machine.close()
    return counts[0], counts[1]


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
def test_streams_reach_every_command_and_every_error(profile: str) -> None:
    commands, errors = stats_of(profile, hostile=True)
    assert len(commands) == len(COMMANDS)
    assert min(commands.values()) > 20
    #: What takes a guest with many devices, or memory that is not there.
    rare = {"unreadable", "table_fault", "mapd_limit", "mapc_limit", "mapti_limit"}
    held = {"mapc_collection_oor", "invall_unmapped_collection"} if profile == "qemu" else set()
    missed = {field.name for field in fields(ErrorStats) if not errors[field.name]}
    assert missed <= rare | held, missed


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
def test_most_commands_of_a_valid_stream_do_something(profile: str) -> None:
    commands, errors = stats_of(profile, hostile=False)
    assert sum(errors.values()) < sum(commands.values()) * 0.6


def test_a_guest_that_does_not_wait_overlaps() -> None:
    rng = random.Random(1)
    machine = LateAdapter(CASE, "kvm")
    list(run_stream(machine, plan(valid_stream(rng, 500), rng), profile="kvm", check_every=1000, writes=7))
    assert machine.overlapped > 50
    machine.close()
