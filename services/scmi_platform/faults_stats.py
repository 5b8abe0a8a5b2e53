"""What was done on purpose, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FaultStats:
    """Each is a counter of one guest: ``ringmesh_scmi_faults_<field>_total``."""

    #: responses held for a time
    late: int = 0
    #: responses held for others to pass, and of these the ones that at least one other went out before meanwhile
    held_back: int = 0
    overtaken: int = 0
    #: commands that will never be answered
    never: int = 0
    #: delayed responses held for a time, and never sent
    delayed_late: int = 0
    delayed_never: int = 0
    #: second copies of delayed responses
    delayed_twice: int = 0
    #: responses without their interrupt
    silent: int = 0
    #: chains used twice
    double_used: int = 0
    #: notifications held for a time, never sent, sent twice
    notifications_late: int = 0
    notifications_never: int = 0
    notifications_twice: int = 0
    #: messages of any type with another token, cut, with another protocol or message id
    wrong_token: int = 0
    truncated: int = 0
    wrong_protocol: int = 0
    #: notifications of storms: that found a buffer, and that found none
    storm: int = 0
    storm_dropped: int = 0
