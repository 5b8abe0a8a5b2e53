"""The platform: one whole SCMI message in, the whole reply out; time and everything unasked through :meth:`tick`.

No I/O, no clock of its own: ``clock`` and ``emit`` are handed in. ``handle`` is one dict lookup on the header without
its token, a size check, and the bound handler; permissions, versions and profiles are folded into the agent's dispatch
dict when they change.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from common.errors import LocalError
from common.scmi import header
from common.scmi.fields import U32
from common.scmi.status import STATUS, STATUS_BYTES, ProtocolId, Status
from services.scmi_platform.agent import Agent, Entry, View
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import KINDS, AgentSection, protocol_number
from services.scmi_platform.boards.section import numbers
from services.scmi_platform.profile import PROFILES
from services.scmi_platform.protocol import ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, Command, Registry
from services.scmi_platform.stats import Stats
from services.scmi_platform.vendor_guard import Guard

Emit = Callable[[int, bytes], bool]
#: Saves what is set in these (protocol, domain), before anybody is told; False: it could not be written.
Save = Callable[[set[tuple[int, int]]], bool]
Finish = Callable[[], Result]

#: Largest payload after the header word, status included, where the transport says nothing else.
MAX_PAYLOAD: Final = 128
#: The longest single item that a reply must hold: status, flags, one axis name (DEN0056E §4.7.2).
LEAST_PAYLOAD: Final = 76
#: Asynchronous operations that one agent may have under way in one protocol: the *max async* of the attributes.
MAX_ASYNC: Final = 8
#: What a message id or protocol id that is not implemented is answered with (DEN0056E §4.1.4). NOT_FOUND is what
#: PROTOCOL_MESSAGE_ATTRIBUTES says of it; Arm's conformance suite looks at that alone.
UNKNOWN_COMMAND: Final = Status.NOT_SUPPORTED

_SUCCESS: Final = STATUS_BYTES[Status.SUCCESS]
_unpack_word: Final = header.HEADER.unpack_from
#: What a reply begins with: header, and SUCCESS, which is 0.
_pack_success: Final = struct.Struct("<I4x").pack
#: Statuses that tell of trouble in the platform; each is reported by BASE_ERROR_EVENT.
_TROUBLE: Final = frozenset((Status.COMMS_ERROR, Status.GENERIC_ERROR, Status.HARDWARE_ERROR, Status.PROTOCOL_ERROR))
_KEY_AND_RESERVED: Final = header.KEY_MASK | header.RESERVED_MASK
_ANSWERABLE: Final = header.TOKEN_MASK | header.KEY_MASK & ~header.TYPE_MASK


def _denied(agent: Agent, request: bytes) -> Result:
    """What every command of a protocol says that was taken from the agent altogether."""
    return Status.DENIED


class Platform:
    """An SCMI platform for one board.

    ``clock()`` is monotonic seconds. ``emit(agent, message)`` queues one whole notification or delayed response and
    returns False where there is no room: a notification is then dropped and counted, a delayed response kept and
    tried again at the next tick. ``p2a(agent)`` says whether that agent has a channel for either.
    ``registry`` has the protocols, see :mod:`services.scmi_platform.protocols.standard`.
    ``save(touched)`` writes down what must outlive a restart, see :meth:`commit`.
    ``max_payload`` bounds what follows the header word, status included, in everything sent.

    Agents have ids from 1 on, in the order of the board file; 0 is the platform itself (DEN0056E §4.2.2).
    """

    def __init__(
        self,
        board: Board,
        *,
        clock: Callable[[], float],
        emit: Emit,
        p2a: Callable[[int], bool],
        max_payload: int = MAX_PAYLOAD,
        registry: Registry,
        stats: Stats | None = None,
        save: Save = lambda touched: True,
    ) -> None:
        if max_payload < LEAST_PAYLOAD:
            raise LocalError(f"max_payload = {max_payload} is below {LEAST_PAYLOAD}")
        self.board = board
        self.profile = PROFILES[board.platform.profile]
        self.clock = clock
        self.p2a = p2a
        self.max_payload = max_payload
        self.stats = Stats() if stats is None else stats
        self.started = clock()
        self.max_async = MAX_ASYNC
        self.save = save
        self._emit = emit
        self._order = 0
        self._operations: list[tuple[float, int, Agent, int, Finish, bool]] = []
        self._subscribers: dict[tuple[int, int], dict[int, set[int]]] = {}
        self._listened: set[int] = set()
        #: (protocol, domain) whose settings have changed since somebody saved them; (0, agent) for an agent's own
        self.touched: set[tuple[int, int]] = set()
        self.agents = {number: self._agent(number, one) for number, one in enumerate(board.agents, start=1)}
        self.protocols: dict[int, ProtocolServer] = {
            number: server(self, table)
            for number, (table, server) in sorted(registry.protocols.items())
            if self.profile.versions(table) and server.present(board)
        }
        self.guard = Guard(self.stats)
        self._ticks = [self.guard.tick(number, server.tick) for number, server in self.protocols.items()]
        for agent in self.agents.values():
            self.rebuild(agent)

    def _agent(self, number: int, section: AgentSection) -> Agent:
        agent = Agent(number, section.name, section.trusted)
        if section.protocols is not None:
            agent.protocols = frozenset(protocol_number(name) for name in section.protocols)
        for protocol, kind in KINDS.items():
            names = section.sees.of(protocol)
            if names is not None:
                ids = numbers(getattr(self.board, kind))
                agent.views[protocol] = View(tuple(ids[name] for name in names))
        return agent

    def served(self, agent: Agent) -> list[ProtocolServer]:
        """The protocols that ``agent`` is served, by their ids."""
        allowed = agent.protocols
        return [
            one
            for number, one in self.protocols.items()
            if (allowed is None or number == ProtocolId.BASE or number in allowed) and one.visible(agent)
        ]

    def accessible(self, agent: Agent) -> list[ProtocolServer]:
        """Those of them that were not taken from it altogether: what it discovers (DEN0056E §4.2.2)."""
        return [one for one in self.served(agent) if not one.closed(agent)]

    # --- commands -----------------------------------------------------------------------------------------------------

    def handle(self, agent: int, request: bytes, again: bool = False) -> bytes | None:
        """Answer one whole message (header and payload) of ``agent``; None where there is no header to answer.

        ``again``: the command may have been executed before a reset of the service. A command that may not be
        executed twice is answered with COMMS_ERROR then. Raises LocalError for an agent that the board has not.
        """
        try:
            sender = self.agents[agent]
        except KeyError:
            raise LocalError(f"SCMI agent {agent} is not on the board") from None
        size = len(request)
        if size < PAYLOAD:
            self.stats.dropped_short += 1
            return None
        (word,) = _unpack_word(request)
        entry = sender.dispatch.get(word & _KEY_AND_RESERVED)
        if entry is None:
            return self._refuse(sender, word, self._why_unknown(word))
        call, least, most, row = entry
        if not least <= size <= most:
            return self._refuse(sender, word, Status.PROTOCOL_ERROR)
        if again:
            if not row.may_repeat(request):
                self.stats.refused_after_reset += 1
                return self._refuse(sender, word, Status.COMMS_ERROR)
            self.stats.re_executed += 1
        result = call(sender, request)
        if isinstance(result, bytes):
            self.stats.success += 1
            return _pack_success(word) + result
        return self._refuse(sender, word, result)

    @staticmethod
    def _why_unknown(word: int) -> Status:
        """Reserved bits or a type that no agent sends break the protocol; otherwise it is merely not implemented."""
        malformed = word & (header.RESERVED_MASK | header.TYPE_MASK)
        return Status.PROTOCOL_ERROR if malformed else UNKNOWN_COMMAND

    def _refuse(self, agent: Agent, word: int, status: Status) -> bytes:
        """The reply of a command that did not succeed: header and status only, reserved bits and type zero."""
        self.stats.refused(status)
        if status in _TROUBLE:
            self.report_error(agent, word, status)
        return header.HEADER.pack(word & _ANSWERABLE) + STATUS_BYTES[status]

    # --- dispatch -----------------------------------------------------------------------------------------------------

    def rebuild(self, agent: Agent) -> None:
        """Make ``agent``'s dispatch dict anew; call it whenever what the agent may call has changed."""
        dispatch: dict[int, Entry] = {}
        for server in self.served(agent):
            closed = server.closed(agent)
            for row in server.rows(agent).values():
                call = _denied if closed else getattr(server, row.method)
                call = self.guard.result(server.protocol, call)
                if row.p2a and not closed:
                    call = self._only_with_p2a(call)
                dispatch[header.key(server.protocol, row.message)] = (
                    call,
                    PAYLOAD + row.size,
                    PAYLOAD + row.max_size,
                    row,
                )
        agent.dispatch = dispatch

    def _only_with_p2a(self, call: Callable[[Agent, bytes], Result]) -> Callable[[Agent, bytes], Result]:
        def guarded(agent: Agent, request: bytes) -> Result:
            return call(agent, request) if self.p2a(agent.id) else Status.NOT_SUPPORTED

        return guarded

    def commands(self, agent: int) -> dict[int, Command]:
        """What ``agent`` may call now: ``header & KEY_MASK`` to row. For traces and documentation."""
        return {key: entry[3] for key, entry in self.agents[agent].dispatch.items()}

    def deny(self, agent: Agent, devices: set[tuple[int, int]]) -> None:
        """``agent`` may not use these (device, protocol; 0 for all) any more, and may use all others."""
        agent.denied_devices = devices
        agent.denied = {}
        for protocol, server in self.protocols.items():
            domains = frozenset(
                number
                for device, section in enumerate(self.board.devices)
                if (device, 0) in devices or (device, protocol) in devices
                for number in server.of_device(section)
            )
            if domains:
                agent.denied[protocol] = domains
        self.rebuild(agent)
        self.agent_touched(agent)

    # --- what the platform sends unasked ------------------------------------------------------------------------------

    def subscribe(self, agent: Agent, protocol: int, message: int, domain: int, enable: bool) -> None:
        """Turn one notification of one domain (of the board) on or off for ``agent``; either may be repeated."""
        self.agent_touched(agent)
        agents = self._subscribers.setdefault((protocol, message), {}).setdefault(domain, set())
        if enable:
            agents.add(agent.id)
            self._listened.add(protocol)
        else:
            agents.discard(agent.id)

    def subscribed(self, protocol: int, message: int, domain: int) -> set[int]:
        """Ids of the agents that want this notification."""
        return self._subscribers.get((protocol, message), {}).get(domain, set())

    def listened(self, protocol: int) -> bool:
        """Was any notification of this protocol ever asked for? Cheap: it lets an idle tick be short."""
        return protocol in self._listened

    def notify(
        self, protocol: int, message: int, domain: int, payload: bytes, but: int = 0, only: set[int] | None = None
    ) -> None:
        """Send a notification to every agent that wants it, in the order of their ids; not to the agent ``but``, and
        where ``only`` is given just to these.

        The second word of ``payload`` is the board's ``domain`` in every protocol that has domains; an agent with a
        view of its own reads its own number there. An agent from which the domain was taken hears nothing while that
        is so; what it asked for stands.
        """
        self.commit()
        wanted = self.subscribed(protocol, message, domain) - {but}
        for number in sorted(wanted if only is None else wanted & only):
            agent = self.agents[number]
            if agent.denied and domain in agent.denied.get(protocol, ()):
                continue
            view = agent.views.get(protocol)
            own = payload if view is None else payload[:4] + U32.pack(view.agent[domain]) + payload[8:]
            self._send_notification(number, header.notification(protocol, message, own))

    def _send_notification(self, agent: int, message: bytes) -> None:
        if self.p2a(agent) and self._emit(agent, message):
            self.stats.notifications += 1
        else:
            self.stats.notifications_dropped += 1

    def report_error(self, agent: Agent, word: int, status: Status) -> None:
        """Keep a failed command of ``agent`` for the next BASE_ERROR_EVENT, if anybody listens."""
        if not self.subscribed(ProtocolId.BASE, 0, 0):
            return
        if len(agent.reports) < (self.max_payload - 8) // 8:
            agent.reports.append((word, status))
        else:
            self.stats.error_reports_dropped += 1

    # --- asynchronous operations --------------------------------------------------------------------------------------

    def later(self, agent: Agent, request: bytes, seconds: float, finish: Finish, respond: bool = True) -> bool:
        """Run ``finish`` in ``seconds`` and send what it returns as the delayed response to ``request``.

        False (answer BUSY) where the agent has MAX_ASYNC operations of the protocol under way. Without ``respond``
        the agent wants no delayed response; a failure is then reported by BASE_ERROR_EVENT.
        """
        word = int.from_bytes(request[:PAYLOAD], "little")
        protocol = header.unpack(word).protocol
        pending = agent.pending.get(protocol, 0)
        if pending >= MAX_ASYNC:
            return False
        agent.pending[protocol] = pending + 1
        finish = self.guard.result(protocol, finish)
        self._order += 1
        heapq.heappush(self._operations, (self.clock() + seconds, self._order, agent, word, finish, respond))
        return True

    def tick(self, now: float) -> float | None:
        """Time is ``now``: finish what is due, look at sensors, send what waited for room.

        Returns the time at which there is something to do next, None for never. Calling late or often is safe.
        """
        for waiting in self.agents.values():
            if waiting.unsent:
                self._send_again(waiting)
        while self._operations and self._operations[0][0] <= now:
            _, _, agent, word, finish, respond = heapq.heappop(self._operations)
            result = finish()
            self.commit()
            self._finish(agent, word, result, respond)
        due = [tick(now) for tick in self._ticks]
        if self._operations:
            due.append(self._operations[0][0])
        return min((one for one in due if one is not None), default=None)

    def _finish(self, agent: Agent, word: int, result: Result, respond: bool) -> None:
        if isinstance(result, bytes):
            payload = _SUCCESS + result
        else:
            payload = STATUS.pack(result)
            if not respond or result in _TROUBLE:
                self.report_error(agent, word, result)
        message = header.HEADER.pack(header.as_delayed(word)) + payload
        if not respond:
            agent.pending[header.unpack(word).protocol] -= 1
        elif not agent.unsent and self._emit(agent.id, message):
            self._delivered(agent, word)
        else:
            # It still counts as pending, so MAX_ASYNC bounds what waits here; and nothing overtakes it.
            agent.unsent.append((word, message))

    def _send_again(self, agent: Agent) -> None:
        """Send what waited for room, in order, as far as there is room now. One agent never holds up another."""
        while agent.unsent:
            word, message = agent.unsent[0]
            if not self._emit(agent.id, message):
                self.stats.delayed_retried += 1
                return
            agent.unsent.popleft()
            self._delivered(agent, word)

    def _delivered(self, agent: Agent, word: int) -> None:
        self.stats.delayed_responses += 1
        agent.pending[header.unpack(word).protocol] -= 1

    # --- what outlives a restart of the service -----------------------------------------------------------------------

    def agent_touched(self, agent: Agent) -> None:
        """What ``agent`` may do, negotiated or asked to hear of has changed."""
        self.touched.add((0, agent.id))

    def commit(self) -> None:
        """Have saved what was set since the last call. Whoever sends answers calls it before they leave, once for all
        that leave together, so that a platform which is killed never loses what an agent was told is done."""
        if self.touched and self.save(self.touched):
            self.touched = set()

    def subscriptions(self, agent: Agent) -> list[tuple[int, int, int]]:
        """(protocol, notification, domain of the board) of all that ``agent`` asked to hear of."""
        return sorted(
            (protocol, message, domain)
            for (protocol, message), domains in self._subscribers.items()
            for domain, agents in domains.items()
            if agent.id in agents
        )

    # --- resets -------------------------------------------------------------------------------------------------------

    def reset_agent(self, agent: int, permissions: bool = False, settings: bool = True) -> None:
        """Forget what ``agent`` configured (DEN0056E §4.2.2, BASE_RESET_AGENT_CONFIGURATION).

        Subscriptions, negotiated versions, operations under way and the ``settings`` it made last are put back; with
        ``permissions`` what was denied to it as well. Without ``settings`` the agent merely begins anew: as on a real
        board a clock keeps the rate that a system set before it rebooted.
        """
        one = self.agents[agent]
        for domains in self._subscribers.values():
            for agents in domains.values():
                agents.discard(agent)
        self._operations = [item for item in self._operations if item[2] is not one]
        heapq.heapify(self._operations)
        one.unsent.clear()
        one.pending.clear()
        one.reports.clear()
        one.versions.clear()
        self.agent_touched(one)
        if permissions:
            self.deny(one, set())
            self._tell_protocols("reset_permissions", one)
        if settings:
            self._tell_protocols("reset_agent", one)
        self.rebuild(one)

    def agent_left(self, agent: int) -> None:
        """Another one may be ``agent`` next: it begins anew, and what it has to itself is free."""
        self.reset_agent(agent, settings=False)
        self._tell_protocols("agent_left", self.agents[agent])

    def _tell_protocols(self, hook: str, agent: Agent) -> None:
        for number, server in self.protocols.items():
            self.guard.hook(number, partial(getattr(server, hook), agent), None)
