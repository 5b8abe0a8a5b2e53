"""What the platform knows of one agent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from services.scmi_platform.protocol import Result
from services.scmi_platform.registry import Command

#: A row of a dispatch dict: bound handler, smallest and largest whole message, the command.
Entry = tuple[Callable[["Agent", bytes], Result], int, int, Command]


class View:
    """What an agent sees of the domains of one protocol: ``board[n]`` is the board's number of its domain ``n``,
    ``agent`` the way back."""

    __slots__ = ("agent", "board")

    def __init__(self, board: tuple[int, ...]) -> None:
        self.board = board
        self.agent = {number: own for own, number in enumerate(board)}


class Agent:
    """One agent.

    ``protocols`` are those that it is served, None for all. ``views`` has the protocols of which it sees domains of its
    own (the others: all of the board's). ``denied`` maps a protocol to the domains, by the board's numbers, that it may
    not use; it is derived from ``denied_devices``, the (device id, protocol id) that BASE_SET_DEVICE_PERMISSIONS and
    BASE_SET_PROTOCOL_PERMISSIONS recorded, protocol 0 meaning all of them.
    """

    __slots__ = (
        "denied",
        "denied_devices",
        "dispatch",
        "guest",
        "id",
        "name",
        "pending",
        "protocols",
        "reports",
        "trusted",
        "unsent",
        "versions",
        "views",
    )

    def __init__(self, number: int, name: str, trusted: bool) -> None:
        self.id = number
        self.name = name
        self.trusted = trusted
        #: the guest that is this agent, "" for none
        self.guest = ""
        self.views: dict[int, View] = {}
        self.protocols: frozenset[int] | None = None
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
