"""The standard protocols are all there, each once."""

from __future__ import annotations

from common.scmi.status import ProtocolId
from services.scmi_platform.protocols.standard import STANDARD


def test_every_standard_protocol_is_served() -> None:
    assert set(STANDARD.protocols) == set(ProtocolId)
    assert all(table.protocol == number for number, (table, _) in STANDARD.protocols.items())
