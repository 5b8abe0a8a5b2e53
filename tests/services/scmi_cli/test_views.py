"""The list of protocols: found by name and number, complete."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.guest_driver.scmi_client import ProtocolClient
from services.scmi_cli.view import protocol_name
from services.scmi_cli.views import VIEWS, view_of


def test_by_name_and_number() -> None:
    assert view_of("clock") is view_of("CLOCK") is view_of("0x14") is view_of("20")
    assert view_of("perf") is view_of("performance")
    assert view_of("pinctrl") is view_of("pin_control")
    assert view_of("power") is view_of("power_domain")
    for view in VIEWS:
        assert view_of(view.name) is view
        assert protocol_name(view.protocol) == view.name


@pytest.mark.parametrize("wanted", ["", "clocks", "0x80", "-1"])
def test_what_there_is_is_said(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"clock \(0x14\)"):
        view_of(wanted)


def test_every_protocol_that_the_agent_has_a_client_for_is_there() -> None:
    assert {view.protocol for view in VIEWS} == {client.protocol for client in ProtocolClient.__subclasses__()}
    assert len({view.protocol for view in VIEWS}) == len(VIEWS)


def test_what_can_be_set_says_how() -> None:
    for view in VIEWS:
        for one in view.attributes:
            assert one.get is not None or one.set is not None
            assert (one.set is None) == (not one.values)
