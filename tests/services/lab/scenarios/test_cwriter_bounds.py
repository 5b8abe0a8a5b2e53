"""cwriter-bounds: the scenario's own claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gic_its.profile import KVM, QEMU
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.cwriter_bounds import INPUTS, SCENARIO, Bad, Posted, Shipped, build
from services.lab.scenarios.its_rig import Rig
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "cwriter-bounds.md"


def test_the_posted_check_fails_and_replays() -> None:
    failure = fails(SCENARIO.variant("as-posted"), PAGE)
    assert failure.detail == "a command of the lap before runs: CREADR 0x0 never meets CWRITER 0x1000"


class Endless(Posted):
    """Nobody minds that old commands run."""

    __slots__ = ()

    def on_lpi(self, vcpu: int, intid: int, number: int) -> None:
        Rig.on_lpi(self, vcpu, intid, number)


def test_what_is_posted_never_comes_to_rest() -> None:
    """Ten laps of 128 commands, and no end."""
    result = explore(build(Endless, INPUTS[:1]), Settings(preemptions=0, limit=50_000))
    assert result.failure is not None
    assert result.failure.kind == "livelock"


@pytest.mark.parametrize("given", INPUTS[1:3], ids=lambda given: given.name)
def test_what_is_beyond_the_end_is_dropped_as_posted(given: Bad) -> None:
    """The posted check is wrong for one value only."""
    holds(build(Posted, (given,)))


def test_shipped_holds() -> None:
    holds_at_first(SCENARIO.variant("shipped"), 200)
    holds(SCENARIO.variant("shipped").build, runs=200)


def test_every_value_is_written_in_both_profiles() -> None:
    values = [0x1000, 0x1020, 0xFFFE0]
    assert [(given.profile, given.bad) for given in INPUTS] == [(p, v) for p in (KVM, QEMU) for v in values]


class Deaf(Shipped):
    """Reads CWRITER in the other profile's way."""

    __slots__ = ()

    def register(self, name: str) -> int:
        return super().register(name) + 32


def test_commands_that_are_left_over_are_seen() -> None:
    result = explore(build(Deaf, INPUTS[:1]), Settings(preemptions=0))
    assert result.failure is not None
    assert result.failure.detail.startswith("CREADR, CWRITER are")


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("as-posted"), PAGE)
