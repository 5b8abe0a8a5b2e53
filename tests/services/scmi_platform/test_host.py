"""One platform and the cores of its guests, without anything that carries their queues."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import ConfigError, RemoteError
from common.runtime.metrics import Metrics
from common.scmi import clock, header
from common.virtio.features import DESC_F_WRITE
from services.scmi_platform.boards.agent import MAX_AGENTS
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.core import CMDQ, EVENTQ, FEATURES
from services.scmi_platform.faults import FaultPlan
from services.scmi_platform.host import PlatformHost
from tests.services.scmi_platform.scmi_rig import SMALL, words

RATE_GET = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, 1, words(0))
RATE_SET = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_SET, 2, words(0, 0, 500, 0))
NOTIFY = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_NOTIFY, 3, words(0, 1))


class Line:
    """A DeviceQueue that keeps what it is told to send."""

    broken: bool = False
    again: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def complete(self, head: int, written: bytes) -> None:
        self.sent.append((head, written))

    complete_again = complete

    def hush(self) -> None: ...

    def flush(self) -> int:
        return 0


class Wire:
    """A Transport with two of them."""

    features = FEATURES

    def __init__(self) -> None:
        self.queues = [Line(), Line()]

    def live(self, queue: int) -> bool:
        return True

    def look(self, queue: int) -> None: ...


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, event: str, **_fields: Any) -> None:
        self.said.append(event)

    error = info = warning


def make(**settings: Any) -> tuple[PlatformHost, Metrics, Log]:
    metrics, log = Metrics("scmi"), Log()
    return PlatformHost(ScmiConfig(board=str(SMALL), **settings), metrics, log), metrics, log


def seen(_queue: int, _seconds: float) -> None: ...


def ask(core: Any, wire: Wire, request: bytes) -> bytes:
    core.on_chains(CMDQ, [(5, request, [(0, len(request), 0), (64, 64, DESC_F_WRITE)])])
    head, reply = wire.queues[CMDQ].sent.pop()
    assert head == 5
    return reply[4:]


def test_guests_share_the_platform() -> None:
    host, metrics, log = make()
    host.start()
    wires = [Wire(), Wire()]
    first, second = (host.core(name, wire, seen) for name, wire in zip(("OSPM", "BOSS"), wires, strict=True))
    assert (first.agent, second.agent) == (1, 2)
    assert host.cores == {"OSPM": first, "BOSS": second}
    assert ask(first, wires[0], NOTIFY) == words(0)
    first.on_chains(EVENTQ, [(7, b"", [(0, 64, DESC_F_WRITE)])])
    assert ask(second, wires[1], RATE_SET) == words(0)
    assert ask(first, wires[0], RATE_GET) == words(0, 500, 0)
    assert [head for head, _ in wires[0].queues[EVENTQ].sent] == [7]
    assert metrics.value("ringmesh_scmi_device_commands_total", guest="OSPM") == 2
    assert metrics.value("ringmesh_scmi_success_total") == 3
    assert log.said == []


def test_a_guest_that_comes_again_is_the_same_agent_and_begins_anew() -> None:
    host, metrics, _ = make()
    wire = Wire()
    core = host.core("OSPM", wire, seen)
    assert ask(core, wire, NOTIFY) == words(0)
    assert ask(core, wire, RATE_SET) == words(0)
    again = Wire()
    core = host.core("OSPM", again, seen)
    assert core.agent == 1
    assert ask(core, again, RATE_GET) == words(0, 500, 0)
    assert host.agents.platform.subscribed(clock.PROTOCOL, 0, 0) == set()
    assert metrics.value("ringmesh_scmi_device_commands_total", guest="OSPM") == 3, "counters never go back"


def test_more_guests_than_ids() -> None:
    host, _, _ = make()
    trusted = 1  # no stranger becomes the agent BOSS
    for n in range(MAX_AGENTS - trusted):
        host.core(f"guest{n}", Wire(), seen)
    with pytest.raises(RemoteError, match="agent id"):
        host.core("one more", Wire(), seen)


def test_faults_are_said_and_counted() -> None:
    host, metrics, log = make(faults=FaultPlan(after=0, never=1, never_every=1))
    host.start()
    assert log.said == ["faults on purpose"]
    wire = Wire()
    core = host.core("OSPM", wire, seen)
    core.on_chains(CMDQ, [(n, RATE_GET, [(0, 8, 0), (64, 64, DESC_F_WRITE)]) for n in range(2)])
    assert [head for head, _ in wire.queues[CMDQ].sent] == [1]
    assert metrics.value("ringmesh_scmi_faults_never_total", guest="OSPM") == 1


def test_a_board_that_is_not_there() -> None:
    with pytest.raises(ConfigError):
        PlatformHost(ScmiConfig(board="/no/such/board.toml"), Metrics("scmi"), Log())
