"""What outlives a restart of the platform: the settings of every domain and what belongs to each agent, as entries.

An entry is ``(protocol, key, state)``: ``key`` is the domain's name, or its number in a protocol whose domains have no
names on the board; ``state`` is of the protocol's ``state_type``, None where all is as the board says. Protocol 0 is of
the agents, by their numbers. Entries come from a file that anybody may have written to, so restoring checks them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

from common.errors import RemoteError
from common.scmi.status import VENDOR_PROTOCOLS
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.agent import KINDS, MAX_AGENTS
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocol import ProtocolServer

#: Protocol of the entries that belong to agents.
AGENTS: Final = 0

Key = str | int
Entry = tuple[int, Key, Any]
_U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class AgentState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent. ``guest``: which guest it is, "" for none; ``subscriptions``: (protocol, notification, domain)."""

    name: Annotated[str, msgspec.Meta(max_length=15, pattern=r"^[ -~]*$")]
    guest: Annotated[str, msgspec.Meta(max_length=255)]
    versions: dict[_U8, _U32]
    denied_devices: list[tuple[_U16, _U8]]
    subscriptions: list[tuple[_U8, _U8, _U16]]


class PlatformState:
    """The state of ``platform`` as entries, and back."""

    def __init__(self, platform: Platform) -> None:
        self.platform: Final = platform
        board = platform.board
        self._names: Final = {protocol: [one.name for one in getattr(board, kind)] for protocol, kind in KINDS.items()}

    # --- to entries ---------------------------------------------------------------------------------------------------

    def entries(self, touched: Iterable[tuple[int, int]]) -> list[Entry]:
        """The entries of these (protocol, domain)."""
        return [(protocol, self._key(protocol, number), self._save(protocol, number)) for protocol, number in touched]

    def snapshot(self) -> list[Entry]:
        """All entries that are not as the board says."""
        platform = self.platform
        everything = [(AGENTS, number) for number in platform.agents]
        for protocol, server in platform.protocols.items():
            everything += [(protocol, number) for number in self._saved(protocol, server)]
        return [entry for entry in self.entries(everything) if entry[2] is not None]

    def _saved(self, protocol: int, server: ProtocolServer) -> list[int]:
        return self.platform.guard.hook(protocol, lambda: list(server.saved()), [])

    def _key(self, protocol: int, number: int) -> Key:
        names = self._names.get(protocol)
        return number if names is None else names[number]

    def _save(self, protocol: int, number: int) -> Any:
        if protocol != AGENTS:
            server = self.platform.protocols[protocol]
            if protocol < VENDOR_PROTOCOLS:
                return server.save(number)
            return self.platform.guard.hook(protocol, lambda: _writable(server.save(number)), None)
        agent = self.platform.agents[number]
        state = AgentState(
            agent.name,
            agent.guest,
            dict(agent.versions),
            sorted(agent.denied_devices),
            self.platform.subscriptions(agent),
        )
        own = number > len(self.platform.board.agents)  # an agent that the board has not is remembered anyway
        anything = own or state.guest or state.versions or state.denied_devices or state.subscriptions
        return state if anything else None

    # --- and back -----------------------------------------------------------------------------------------------------

    def restore(self, entries: Iterable[Entry]) -> list[str]:
        """Set everything as ``entries`` say, agents first. Returns why each entry that does not fit the board was left
        out. Tells nobody: agents that subscribed heard of the changes when they were made."""
        refused = []
        # a key that is no agent's number has no place in their order, and is refused wherever it comes
        ordered = sorted(entries, key=lambda one: (one[0], one[1] if one[0] == AGENTS and type(one[1]) is int else 0))
        for protocol, key, state in ordered:
            try:
                self._restore(protocol, key, state)
            except (RemoteError, msgspec.ValidationError) as error:
                refused.append(f"protocol {protocol:#x}, {key!r}: {error}")
        for agent in self.platform.agents.values():
            self.platform.rebuild(agent)
        self.platform.touched.clear()
        return refused

    def _restore(self, protocol: int, key: Key, state: Any) -> None:
        if protocol == AGENTS:
            self._restore_agent(key, msgspec.convert(state, AgentState))
            return
        server = self.platform.protocols.get(protocol)
        if server is None or server.state_type is None:
            raise RemoteError("protocol", protocol, None, "the board serves none that is saved")
        number = self._number(protocol, key)
        if number not in self._saved(protocol, server):
            raise RemoteError("domain", key, None, "not on the board")

        def load() -> bool:
            server.load(number, msgspec.convert(state, server.state_type))
            return True

        if not self.platform.guard.hook(protocol, load, False):
            raise RemoteError("state", key, None, "the vendor's protocol failed to load it")

    def _number(self, protocol: int, key: Key) -> int:
        names = self._names.get(protocol)
        if names is not None and key in names:
            return names.index(str(key))
        if names is not None or not isinstance(key, int):
            raise RemoteError("domain", key, None, "not on the board")
        return key

    def _restore_agent(self, key: Key, state: AgentState) -> None:
        platform = self.platform
        if not isinstance(key, int) or not 0 < key <= MAX_AGENTS:
            raise RemoteError("agent", key, MAX_AGENTS)
        agent = platform.agents.get(key)
        if agent is None:
            if key != len(platform.agents) + 1:
                raise RemoteError("agent", key, len(platform.agents), "agents of the board")
            agent = platform.agents[key] = Agent(key, state.name, trusted=False)
        elif agent.name != state.name and key <= len(platform.board.agents):
            raise RemoteError("agent", state.name, None, f"agent {key} is {agent.name!r} on the board")
        agent.guest = state.guest
        for protocol, version in state.versions.items():
            server = platform.protocols.get(protocol)
            if server is not None and version in server.versions:
                agent.versions[protocol] = version
        platform.deny(agent, set(state.denied_devices))
        for protocol, message, domain in state.subscriptions:
            if self._can_hear(agent, protocol, domain):
                platform.subscribe(agent, protocol, message, domain, True)

    def _can_hear(self, agent: Agent, protocol: int, domain: int) -> bool:
        """Does ``agent`` see this domain? The board may have changed since it subscribed."""
        server = self.platform.protocols.get(protocol)
        if isinstance(server, DomainServer):
            return domain < len(server.domains) and server.number(agent, domain) is not None
        return server is not None


def _writable(state: Any) -> Any:
    """``state``, if it can be written down; what msgspec raises otherwise."""
    msgspec.msgpack.encode(state)
    return state
