"""One counter a status."""

from __future__ import annotations

import pytest

from common.scmi.status import Status
from services.scmi_platform.stats import Stats


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_counter(status: Status) -> None:
    stats = Stats()
    stats.refused(status)
    assert getattr(stats, status.name.lower()) == 1
