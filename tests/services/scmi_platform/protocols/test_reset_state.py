"""One reset domain."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from services.scmi_platform.boards.reset import ResetDomainSection
from services.scmi_platform.protocols.reset_state import ResetDomain, ResetState


def test_who_holds_it() -> None:
    domain = ResetDomain(0, ResetDomainSection(name="d", states=[0x8000_0002]))
    assert domain.states == {0, 0x8000_0002}
    assert not domain.held_by_another(1)
    assert domain.save() is None
    domain.owner = 1
    assert not domain.held_by_another(1)
    assert domain.held_by_another(2)
    assert domain.save() == ResetState(1)


def test_only_what_can_be_held_is_loaded() -> None:
    domain = ResetDomain(0, ResetDomainSection(name="d"))
    domain.load(ResetState(2))
    assert domain.owner == 2
    fixed = ResetDomain(0, ResetDomainSection(name="d", explicit=False))
    with pytest.raises(RemoteError, match="no agent can hold"):
        fixed.load(ResetState(2))
    assert fixed.owner == 0
