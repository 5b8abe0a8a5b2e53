"""The mutants themselves: one place changed, everything else as it was."""

from __future__ import annotations

from typing import Final

import pytest

from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.mutation import mutate

STEP: Final = 2


class Base:
    """What ``super()`` must still reach."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 1

    def grow(self) -> int:
        return 100


class Counter(Base):
    __slots__ = ("name",)

    name: Final[str]

    def __init__(self) -> None:
        super().__init__()
        self.name = "counter"

    @property
    def double(self) -> int:
        return self.count * 2

    def grow(self) -> int:
        self.count += STEP
        return super().grow() + self.count

    async def wait(self) -> int:
        return self.count


def test_one_place_is_changed_and_super_is_kept() -> None:
    mutant = mutate(Counter, "grow", "self.count += STEP", "self.count -= STEP")
    assert mutant().grow() == 100 + 1 - STEP
    assert Counter().grow() == 100 + 1 + STEP
    assert mutant is not Counter
    assert issubclass(mutant, Counter)
    assert mutant.__name__ == "Counter"
    assert mutant.__init__ is Counter.__init__


def test_a_mutant_may_be_mutated_again() -> None:
    once = mutate(Counter, "grow", "self.count += STEP", "self.count += 5")
    twice = mutate(once, "grow", "+ self.count", "- self.count")
    both = mutate(once, "double", "* 2", "* 3")
    assert (twice().grow(), once().grow(), both().grow(), both().double) == (100 - 6, 106, 106, 3)


def test_several_lines_and_coroutines() -> None:
    mutant = mutate(Counter, "grow", "    self.count += STEP\n    return", "    self.count = STEP\n    return 1 +")
    assert mutant().grow() == 1 + 100 + STEP
    waiting = mutate(Counter, "wait", "return self.count", "return -self.count")().wait()
    with pytest.raises(StopIteration) as end:
        waiting.send(None)
    assert end.value.value == -1


@pytest.mark.parametrize(("old", "new"), [("self.count", "x"), ("nothing", "x"), ("STEP", "STEP")])
def test_a_snippet_that_is_not_there_once_is_refused(old: str, new: str) -> None:
    with pytest.raises(AssertionError, match=r"Counter\.grow"):
        mutate(Counter, "grow", old, new)
    with pytest.raises(AttributeError, match="shrink"):
        mutate(Counter, "shrink", old, new)


def test_worlds_make_mutants_and_watch_their_fields() -> None:
    run = Run(Replay([]), 100)
    world = LabWorld(run)
    made = world.new(mutate(Counter, "grow", "self.count += STEP", "self.count = 7"))
    assert made.grow() == 107
    assert isinstance(vars(type(made))["count"], property)
    assert made.name == "counter"
