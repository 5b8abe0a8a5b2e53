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
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import MAX_AGENTS
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import Registry

#: Bytes of an agent's name that BASE_DISCOVER_AGENT can carry.
_NAME: Final = 15


#: Guests with such names are connections to the raw port.
CONNECTION: Final = "raw:"


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
    """One platform for ``board`` and the agents that guests are. ``clock()`` is monotonic seconds; ``registry`` has the
    protocols."""

    def __init__(self, board: Board, clock: Callable[[], float], registry: Registry = STANDARD) -> None:
        self.platform: Final = Platform(board, clock=clock, emit=self._emit, p2a=self._p2a, registry=registry)
        self._ids: dict[str, int] = {}
        #: agents that the board has not, whose guests have gone
        self._spare: set[int] = set()
        self._channels: dict[int, Channel] = {}

    def allot(self, guest: str, wanted: str = "") -> int:
        """The agent id of ``guest``: the same whenever it comes again; the first time that of the agent ``wanted``, if
        nobody has it. Raises RemoteError when all ids are taken."""
        number = self._ids.get(guest)
        if number is None:
            number = self._ids[guest] = self._choose(guest, wanted or guest)
            agent = self.platform.agents[number]
            agent.guest = guest
            self.platform.agent_touched(agent)
        return number

    def restored(self) -> None:
        """The platform has agents of an earlier run: their guests may come back, the others are spare, and connections
        ended with that run."""
        for agent in self.platform.agents.values():
            if agent.guest:
                self._ids[agent.guest] = agent.id
            elif agent.id > len(self.platform.board.agents):
                self._spare.add(agent.id)
        for guest in [one for one in self._ids if one.startswith(CONNECTION)]:
            self.release(guest)

    def _choose(self, guest: str, wanted: str) -> int:
        agents = self.platform.agents
        taken = self._spare.union(self._ids.values())
        free = [agent for agent in agents.values() if agent.id not in taken]
        for agent in free:
            if agent.name == wanted:
                return agent.id
        for agent in free:
            if not agent.trusted:
                return agent.id
        if self._spare:
            number = min(self._spare)
            self._spare.remove(number)
            agents[number].name = guest[:_NAME]
            return number
        if len(agents) >= MAX_AGENTS:
            raise RemoteError("guests", len(agents) + 1, MAX_AGENTS, "every SCMI agent id is taken")
        number = len(agents) + 1
        agents[number] = Agent(number, guest[:_NAME], trusted=False)
        self.platform.rebuild(agents[number])
        return number

    def release(self, guest: str) -> None:
        """``guest`` does not come again: its agent begins anew and is free for another. What it had set stays, what it
        had to itself (pins, resets that it asserted) is given up."""
        number = self._ids.pop(guest)
        self._channels.pop(number, None)
        self.platform.agents[number].guest = ""
        self.platform.agent_left(number)
        if number > len(self.platform.board.agents):
            self._spare.add(number)

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
