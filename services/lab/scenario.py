"""How a race is declared: a scenario with variants, each with the settings for which its verdict is claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from common.errors import LocalError
from services.lab.world import LabWorld

Expect = Literal["fails", "holds"]


def nothing_more() -> str | None:
    """The final check of a scenario that only watches for deadlocks and exceptions."""
    return None


@dataclass(slots=True, frozen=True)
class Checks:
    """What a scenario looks at. Each returns None, or what is wrong.

    ``final`` runs when every actor is done; ``step`` after every step, so it must be cheap.
    """

    final: Callable[[], str | None] = nothing_more
    step: Callable[[], str | None] | None = None


Build = Callable[[LabWorld], Checks]
"""Set-up: makes the shared objects, spawns the actors. The same world gives the same set-up."""


@dataclass(slots=True, frozen=True)
class Settings:
    """How to search. ``runs`` bounds the number of schedules (0: only the strategy ends), ``limit`` their steps."""

    strategy: str = "exhaustive"
    preemptions: int = 2
    runs: int = 0
    seed: int = 1
    memory: str = "sc"
    limit: int = 2000


@dataclass(slots=True, frozen=True)
class Variant:
    """One form of the algorithm: as posted, or as shipped."""

    name: str
    expect: Expect
    build: Build
    about: str = ""
    settings: Settings = field(default_factory=Settings)
    #: what the thread calls it, where that is not its name
    alias: str = ""


@dataclass(slots=True, frozen=True)
class Scenario:
    """A race from a thread. ``thread`` says where it was argued: subject, people, month."""

    name: str
    thread: str
    about: str
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        names = self.names
        if "shipped" not in names or len(set(names)) != len(names):
            raise LocalError(f"scenario {self.name}: one variant is 'shipped', names are unique; has {names}")

    @property
    def names(self) -> list[str]:
        """Every name that a variant goes by."""
        return [name for v in self.variants for name in (v.alias, v.name) if name]

    def variant(self, name: str) -> Variant:
        """By name or alias. Raises LocalError that says which exist."""
        for variant in self.variants:
            if name and name in (variant.name, variant.alias):
                return variant
        raise LocalError(f"{self.name} has no variant {name!r}; it has {', '.join(self.names)}")


SCENARIOS: Final[dict[str, Scenario]] = {}


def register(scenario: Scenario) -> Scenario:
    """Add to :data:`SCENARIOS`; raises LocalError for a name that is taken."""
    if scenario.name in SCENARIOS:
        raise LocalError(f"two scenarios of the name {scenario.name!r}")
    SCENARIOS[scenario.name] = scenario
    return scenario


def find(name: str) -> Scenario:
    """Raises LocalError that says which exist."""
    found = SCENARIOS.get(name)
    if found is None:
        raise LocalError(f"no scenario {name!r}; there are {', '.join(sorted(SCENARIOS))}")
    return found
