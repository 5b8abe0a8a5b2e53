"""Declaring scenarios."""

from __future__ import annotations

import pytest

from common.errors import LocalError
from services.lab.scenario import SCENARIOS, Checks, Scenario, Variant, find, register
from services.lab.world import LabWorld


def nothing(world: LabWorld) -> Checks:
    return Checks()


SHIPPED = Variant("shipped", "holds", nothing)


def test_shipped_must_exist_and_names_be_unique() -> None:
    with pytest.raises(LocalError, match="one variant is 'shipped'"):
        Scenario("x", "t", "a", (Variant("posted", "fails", nothing),))
    with pytest.raises(LocalError, match="names are unique"):
        Scenario("x", "t", "a", (SHIPPED, SHIPPED))


def test_register_and_find() -> None:
    scenario = Scenario("only-in-this-test", "t", "a", (SHIPPED,))
    try:
        assert register(scenario) is scenario
        assert find("only-in-this-test") is scenario
        assert scenario.variant("shipped") is SHIPPED
        with pytest.raises(LocalError, match="two scenarios"):
            register(scenario)
        with pytest.raises(LocalError, match="has no variant 'x'; it has shipped"):
            scenario.variant("x")
    finally:
        del SCENARIOS["only-in-this-test"]
    with pytest.raises(LocalError, match="no scenario 'only-in-this-test'"):
        find("only-in-this-test")


def test_nothing_more_to_check() -> None:
    assert Checks().final() is None
