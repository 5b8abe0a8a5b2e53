"""Which guest is which SCMI agent, and the platform's way from an agent to its device.

All guests share one platform, as the machines of one board share its firmware. An agent of the board that bears a
guest's name is that guest's; otherwise it gets the first agent of the board that is neither trusted nor taken; and
where the board has no more, the platform learns of another agent, untrusted, with the guest's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from common.errors import RemoteError
from services.scmi_platform.agent import Agent
from services.scmi_platform.board import MAX_AGENTS, Board
from services.scmi_platform.platform import Platform

#: Bytes of an agent's name that BASE_DISCOVER_AGENT can carry.
_NAME: Final = 15


class Channel(Protocol):
    """What an agent's device offers the platform."""

    @property
    def p2a(self) -> bool:
        """Can messages be sent to the agent?"""
        ...

    def emit(self, message: bytes) -> bool:
        """Send a notification or a delayed response; False where there is no room."""
        ...


class Agents:
    """One platform for ``board`` and the agents that guests are. ``clock()`` is monotonic seconds."""

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self.platform: Final = Platform(board, clock=clock, emit=self._emit, p2a=self._p2a)
        self._ids: dict[str, int] = {}
        self._channels: dict[int, Channel] = {}

    def allot(self, guest: str) -> int:
        """The agent id of ``guest``: the same whenever it comes again. Raises RemoteError when all ids are taken."""
        number = self._ids.get(guest)
        if number is None:
            number = self._ids[guest] = self._choose(guest)
        return number

    def _choose(self, guest: str) -> int:
        agents = self.platform.agents
        taken = frozenset(self._ids.values())
        free = [agent for agent in agents.values() if agent.id not in taken]
        for agent in free:
            if agent.name == guest:
                return agent.id
        for agent in free:
            if not agent.trusted:
                return agent.id
        if len(agents) >= MAX_AGENTS:
            raise RemoteError("guests", len(agents) + 1, MAX_AGENTS, "every SCMI agent id is taken")
        number = len(agents) + 1
        agents[number] = Agent(number, guest[:_NAME], trusted=False)
        self.platform.rebuild(agents[number])
        return number

    def attach(self, agent: int, channel: Channel) -> None:
        """``channel`` is the agent's from now on. An agent that comes with a new one begins anew;
        what it had set stays."""
        if agent in self._channels:
            self.platform.reset_agent(agent, settings=False)
        self._channels[agent] = channel

    def _p2a(self, agent: int) -> bool:
        channel = self._channels.get(agent)
        return channel is not None and channel.p2a

    def _emit(self, agent: int, message: bytes) -> bool:
        channel = self._channels.get(agent)
        return channel is not None and channel.emit(message)
