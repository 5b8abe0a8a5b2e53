"""A short round of random and mutated messages, always the same; a long one runs as a script."""

from __future__ import annotations

from common.scmi import header
from common.scmi.names import message_name
from services.scmi_platform.protocols.standard import STANDARD
from tests.fuzz import fuzz_scmi_platform, scmi_requests


def test_a_valid_request_of_every_command_is_known() -> None:
    assert scmi_requests.missing() == []


def test_fuzz_scmi_platform() -> None:
    total = fuzz_scmi_platform.fuzz(40_000, 3)
    assert total["messages"] == 40_000
    # every command succeeded, every notification and delayed responses were sent, nearly every status was given
    commands = {row.name for table, _ in STANDARD.protocols.values() for row in table.commands.values()}
    assert not {name for name in commands - scmi_requests.NEVER if not total[f"success: {name}"]}
    assert total["sent: delayed response"] > 50
    sent = {
        message_name(table.protocol, one, header.NOTIFICATION)
        for table, _ in STANDARD.protocols.values()
        for one in table.notifications or ()
    }
    assert not {name for name in sent if not total[f"notification: {name}"]}
    statuses = ("comms_error", "denied", "dropped", "in_use", "invalid_parameters", "not_found", "not_supported",
                "out_of_range", "protocol_error", "success")  # fmt: skip
    assert not {name for name in statuses if not total[f"answer: {name}"]}
