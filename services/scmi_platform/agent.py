"""What the platform knows of one agent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from services.scmi_platform.protocol import Result
from services.scmi_platform.registry import Command

#: A row of a dispatch dict: bound handler, smallest and largest whole message, the command.
Entry = tuple[Callable[["Agent", bytes], Result], int, int, Command]


class Agent:
    """One agent. ``denied`` maps a protocol to the domains that this agent may not use (empty: may use all).

    ``denied_devices`` holds (device id, protocol id), protocol 0 meaning all of them: what
    BASE_SET_DEVICE_PERMISSIONS and BASE_SET_PROTOCOL_PERMISSIONS recorded; ``denied`` is derived from it.
    """

    __slots__ = (
        "denied",
        "denied_devices",
        "dispatch",
        "id",
        "name",
        "pending",
        "reports",
        "trusted",
        "unsent",
        "versions",
    )

    def __init__(self, number: int, name: str, trusted: bool) -> None:
        self.id = number
        self.name = name
        self.trusted = trusted
        self.dispatch: dict[int, Entry] = {}
        self.versions: dict[int, int] = {}
        self.denied: dict[int, frozenset[int]] = {}
        self.denied_devices: set[tuple[int, int]] = set()
        #: Asynchronous operations under way, by protocol.
        self.pending: dict[int, int] = {}
        #: (header, status) of failed commands, waiting for the next BASE_ERROR_EVENT.
        self.reports: list[tuple[int, int]] = []
        #: (header of the command, whole delayed response) that the transport had no room for, oldest first.
        self.unsent: deque[tuple[int, bytes]] = deque()
