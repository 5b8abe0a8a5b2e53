"""Random streams: they are what they promise, and two machines that differ in one thing are told apart by them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, decode, encode
from tests.services.gic_its import streams
from tests.services.gic_its.oracle import Oracle
from tests.services.gic_its.stream_differences import Difference, differences
from tests.services.gic_its.stream_player import EXTRAS, RARE, Move, plan, run_stream
from tests.services.gic_its.streams import describe, hostile_stream, valid_stream

PROFILES = ("qemu", "kvm")
ALL = tuple(EXTRAS | RARE)


def test_a_seed_gives_the_same_stream() -> None:
    for make in (valid_stream, hostile_stream):
        one, other = (list(make(random.Random(5), 300)) for _ in range(2))
        assert one == other
        assert {len(command) for command in one} == {COMMAND_SIZE}
        assert len(one) == 300


def test_a_valid_stream_has_every_command_and_operands_in_range() -> None:
    commands = [decode(data) for data in valid_stream(random.Random(1), 2000, 4)]
    assert {command.op for command in commands} == set(op.SPEC)
    assert all(
        encode(command) == data for command, data in zip(commands, valid_stream(random.Random(1), 2000, 4), strict=True)
    )
    assert all(command.rdbase < 4 and command.rdbase2 < 4 for command in commands)
    assert {command.valid for command in commands if command.op == op.MAPC} == {0, 1}
    kept = [decode(data) for data in valid_stream(random.Random(1), 2000, 4, orphans=False)]
    assert {command.valid for command in kept if command.op == op.MAPC} == {1}


def test_a_hostile_stream_breaks_the_rules() -> None:
    data = list(hostile_stream(random.Random(1), 4000, 4, nowhere=True, wide_pes=True))
    commands = [decode(one) for one in data]
    assert any(command.op not in op.SPEC for command in commands)
    assert any(encode(command) != one for command, one in zip(commands, data, strict=True) if command.op in op.SPEC)
    assert any(command.device > 0xFFFF for command in commands)
    assert any(command.rdbase >= 4 for command in commands)
    assert any(command.itt == streams.NOWHERE for command in commands)
    assert any(command.op == op.MAPC and command.rdbase >> 32 for command in commands)
    tame = [decode(one) for one in hostile_stream(random.Random(1), 4000, 4)]
    assert not any(command.itt == streams.NOWHERE for command in tame)


def test_itts_do_not_overlap() -> None:
    taken = [
        (streams.itt_of(device, place), 12 << 1 + (streams.WIDE_SIZE if device == streams.WIDE else max(streams.SIZES)))
        for device in (*streams.DEVICE_IDS, streams.WIDE)
        for place in range(2)
    ]
    taken += [(streams.itt_of(device, 0), 12 << 1 + max(streams.SIZES)) for device in streams.EDGE_IDS]
    taken.append((streams.OWN_ITT, 12 << 4))
    taken.sort()
    assert all(start + size <= after for (start, size), (after, _) in pairwise(taken))


def test_moves_hold_the_whole_stream_in_order() -> None:
    commands = list(valid_stream(random.Random(3), 700))
    moves = plan(commands, random.Random(3), batch=(3, 9), extras=ALL)
    assert [command for move in moves if move.kind == "run" for command in move.commands] == commands
    assert {move.kind for move in moves} == {"run", *ALL}
    assert {move.kind for move in plan(commands, random.Random(3), extras=())} == {"run"}


def test_commands_and_moves_are_readable() -> None:
    mapti = Command(op.MAPTI, device=2, event=20, intid=8195, icid=3)
    assert describe(encode(mapti)) == "MAPTI device=0x2 event=20 intid=8195 icid=3"
    assert describe(b"\x7f" + bytes(31)).startswith("0x7f? 7f00")
    assert "reserved bits" in describe(bytes([op.SYNC, 1]) + bytes(30))
    text = str(Difference(3, "pending 1", [], [8192], (Move("ack", cpu=2, value=1), Move("run", (encode(mapti),)))))
    assert "seed 3: after 2 moves pending 1 differs" in text
    assert "vCPU 2 takes 1\n    MAPTI device=0x2" in text


def test_of_two_tables_only_the_place_is_shown() -> None:
    text = str(Difference(0, "ITT", "00" * 40, "00" * 20 + "ff" * 20, ()))
    assert "from byte 0x14 on" in text


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("hostile", [False, True])
def test_the_model_agrees_with_itself(profile: str, hostile: bool) -> None:
    """Also where it migrates at other times: what migrates is all that matters."""
    found = differences(
        lambda: Oracle(4, profile), lambda: Restless(4, profile),
        seed=1, n=600, profile=profile, hostile=hostile, nowhere=profile == "qemu", wide_pes=True, extras=ALL,
    )  # fmt: skip
    assert found is None, found


class Restless(Oracle):
    """Moves to another machine whenever somebody looks whether commands are done."""

    def drain(self) -> None:
        self.migrate()


Part = Callable[[Oracle], list[Any]]


def machine(oracle: Oracle) -> list[Any]:
    return [oracle]


def commands(oracle: Oracle) -> list[Any]:
    return [oracle.commands]


def redistributors(oracle: Oracle) -> list[Any]:
    return list(oracle.redistributors)


def nothing(*_: object) -> None:
    """In place of a method."""


def takes_the_last(self: Any) -> int:
    """Of those with the best priority the one with the highest INTID."""
    ready = [(self.config.get(n, 0) & 0xFC, -n) for n in self.pending if self.config.get(n, 0) & 1]
    if not self.enabled or not ready:
        return 1023
    intid: int = -min(ready)[1]
    self.clear(intid)
    return intid


#: (profile, what is broken of the machine, method, what stands in its place: called with the part, then as the method).
MUTANTS: dict[str, tuple[str, Part, str, Callable[[Any], Callable[..., object]]]] = {
    "a move leaves the source pending": (
        "qemu", redistributors, "move_to", lambda part: lambda other, n: n in part.pending and other.take(n)),
    "the last of equals first": ("qemu", redistributors, "acknowledge", lambda part: partial(takes_the_last, part)),
    "INVALL does nothing": ("kvm", commands, "_invall", lambda part: nothing),
    "INV does nothing": ("kvm", commands, "_inv", lambda part: nothing),
    "pending where LPIs are off": ("kvm", redistributors, "set_pending", lambda part: part.take),
    "off forgets what is pending": ("qemu", redistributors, "_save_pending", lambda part: nothing),
    "DISCARD only clears": ("qemu", commands, "_discard", lambda part: part._clear),
    "a chain is not mended": ("kvm", commands, "_write_devices", lambda part: nothing),
    "a collection is not removed": ("kvm", commands, "_drop_collection", lambda part: nothing),
    "MAPTI goes anywhere": ("kvm", commands, "_make_collection", lambda part: lambda icid: icid in part.collections),
    "a migration forgets": ("kvm", commands, "restore", lambda part: part.reset),
    "an MSI comes through though the ITS is off": ("qemu", machine, "msi", lambda part: part.commands.translate),
    "a queue of 4 KiB only": ("qemu", machine, "_queue_bytes", lambda part: lambda: 4096),
}  # fmt: skip


def size(difference: Difference) -> int:
    return sum(len(move.commands) or 1 for move in difference.moves)


def found(name: str, shrink: int = 0) -> Difference | None:
    profile, where, method, make = MUTANTS[name]

    def broken() -> Oracle:
        oracle = Oracle(4, profile)
        for part in where(oracle):
            setattr(part, method, make(part))
        return oracle

    return differences(
        lambda: Oracle(4, profile), broken, seed=2, n=3000, profile=profile, extras=ALL, shrink=shrink
    )  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_one_thing_broken_is_found(name: str) -> None:
    assert found(name)


def test_a_difference_is_made_small() -> None:
    name = "a move leaves the source pending"
    whole, small = found(name), found(name, shrink=300)
    assert whole
    assert small
    assert size(whole) > 50
    assert [decode(move.commands[0]).op for move in small.moves[-2:]] == [op.INT, op.MOVI]
    assert size(small) <= 6


def test_an_error_says_in_which_move() -> None:
    class Falls(Oracle):
        def msi(self, devid: int, data: int) -> None:
            raise RuntimeError("fell")

    moves = [Move("run"), Move("msi", device=7, event=2)]
    with pytest.raises(RuntimeError, match="fell") as raised:
        list(run_stream(Falls(), moves))
    assert raised.value.__notes__ == ["in move 1: MSI of device 0x7, event 2"]


def test_looks_come_as_often_as_asked_for() -> None:
    moves = [Move("ack", cpu=1, value=1)] * 7
    assert [index for index, _ in run_stream(Oracle(), moves, check_every=3)] == [2, 5, 6]
    assert [seen["shown"] for _, seen in run_stream(Oracle(), moves, check_every=4)] == [[1023] * 4, [1023] * 3]
