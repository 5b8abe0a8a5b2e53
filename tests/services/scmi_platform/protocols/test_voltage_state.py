"""What is set in a voltage domain, and what a saved state may not say."""

from __future__ import annotations

import msgspec
import pytest

from common.errors import RemoteError
from services.scmi_platform.boards.voltage import LevelRange, VoltageDomainSection
from services.scmi_platform.protocols.voltage_state import VoltageDomain, VoltageState

RANGE = VoltageDomainSection(
    name="v", levels=LevelRange(min=-20, max=25, step=10), level=0, vendor_modes=[8], mode=8
)  # fmt: skip
LIST = VoltageDomainSection(name="l", levels=[-5, 0, 7], level=7, mode="off")


def test_levels_of_a_range() -> None:
    domain = VoltageDomain(0, RANGE)
    assert [level for level in range(-40, 40) if domain.supports(level)] == [-20, -10, 0, 10, 20]


def test_levels_of_a_list() -> None:
    domain = VoltageDomain(0, LIST)
    assert [level for level in range(-10, 10) if domain.supports(level)] == [-5, 0, 7]


def test_starts_as_the_board_says() -> None:
    domain = VoltageDomain(3, RANGE)
    assert (domain.id, domain.level, domain.mode, domain.owner) == (3, 0, 8, 0)
    assert VoltageDomain(0, LIST).mode == 0
    assert domain.save() is None


def test_load() -> None:
    domain = VoltageDomain(0, RANGE)
    domain.load(VoltageState(-10, 7, 2))
    assert (domain.level, domain.mode, domain.owner) == (-10, 7, 2)
    assert domain.save() == VoltageState(-10, 7, 2)
    domain.reset()
    assert (domain.level, domain.mode, domain.save()) == (0, 8, None)


@pytest.mark.parametrize(
    ("state", "field"), [(VoltageState(-11, 7, 2), "level"), (VoltageState(-10, 9, 2), "mode")]
)  # fmt: skip
def test_states_that_the_board_does_not_allow(state: VoltageState, field: str) -> None:
    domain = VoltageDomain(0, RANGE)
    with pytest.raises(RemoteError) as error:
        domain.load(state)
    assert error.value.field == field
    assert (domain.level, domain.mode, domain.owner) == (0, 8, 0)


@pytest.mark.parametrize("raw", [[1 << 31, 0, 0], [0, 16, 0], [0, -1, 0], [0, 0, 256], [0, 0, -1]])
def test_states_that_no_domain_has(raw: list[int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(dict(zip(("level", "mode", "owner"), raw, strict=True)), VoltageState)
