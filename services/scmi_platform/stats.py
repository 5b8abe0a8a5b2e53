"""Counters of the platform: plain ints, turned into metrics by whoever owns the platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.scmi.status import Status


@dataclass(slots=True)
class Stats:
    """One counter a status of the replies, then what was dropped, sent and refused."""

    success: int = 0
    not_supported: int = 0
    invalid_parameters: int = 0
    denied: int = 0
    not_found: int = 0
    out_of_range: int = 0
    busy: int = 0
    comms_error: int = 0
    generic_error: int = 0
    hardware_error: int = 0
    protocol_error: int = 0
    in_use: int = 0
    #: Messages without a whole header: nothing to answer.
    dropped_short: int = 0
    #: Notifications queued, and those that the transport had no room for.
    notifications: int = 0
    notifications_dropped: int = 0
    #: Delayed responses queued, and tries that had to be repeated for want of room.
    delayed_responses: int = 0
    delayed_retried: int = 0
    #: Commands of a killed service that were executed again, or answered with COMMS_ERROR instead.
    re_executed: int = 0
    refused_after_reset: int = 0
    #: Error reports that fitted in no BASE_ERROR_EVENT.
    error_reports_dropped: int = 0
    #: Exceptions that left code of a vendor's protocol.
    vendor_failures: int = 0

    def refused(self, status: Status) -> None:
        """Count a reply that did not succeed."""
        name = _FIELDS[status]
        setattr(self, name, getattr(self, name) + 1)


_FIELDS: Final = {status: status.name.lower() for status in Status}
