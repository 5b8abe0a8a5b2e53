"""What a vendor's protocol raises ends nothing but its own command."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from common.errors import RemoteError
from common.runtime.metrics import Metrics
from common.scmi import header
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.host import PlatformHost
from services.scmi_platform.protocol import ProtocolServer
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import ProtocolTable
from services.scmi_platform.state import PlatformState
from services.scmi_platform.stats import Stats
from services.scmi_platform.vendor_guard import Guard
from tests.services.scmi_platform.scmi_rig import Rig, words

GENERIC_ERROR = -8
TABLE = ProtocolTable(0x80, (0x10000,))


class Command(IntEnum):
    FAIL = 0x3
    NOTHING = 0x4
    LATER = 0x5


class Broken(ProtocolServer):
    broken_tick = False

    @TABLE.command(Command.FAIL, section="acme")
    def fail(self, agent: Agent, request: bytes) -> Any:
        return 1 / 0

    @TABLE.command(Command.NOTHING, section="acme")
    def nothing(self, agent: Agent, request: bytes) -> Any:
        return None

    @TABLE.command(Command.LATER, section="acme")
    def later(self, agent: Agent, request: bytes) -> Any:
        return b"" if self.platform.later(agent, request, 1.0, lambda: self.fail(agent, request)) else Status.BUSY

    def tick(self, now: float) -> float | None:
        if self.broken_tick:
            raise KeyError("tick")
        return 200.0


@pytest.fixture
def rig() -> Rig:
    registry = STANDARD.copy()
    registry.serve(TABLE, Broken)
    return Rig(registry=registry)


def test_a_command_that_fails(rig: Rig) -> None:
    told: list[tuple[int, str]] = []
    rig.platform.guard.tell = lambda protocol, error: told.append((protocol, type(error).__name__))
    assert [rig.ask(0x80, message) for message in (0x3, 0x3, 0x4)] == [words(GENERIC_ERROR)] * 3
    assert rig.stats.vendor_failures == 3
    assert told == [(0x80, "ZeroDivisionError"), (0x80, "TypeError")]  # the first of each class
    assert rig.ask(0x80, 0x0) == words(0, 0x10000)
    assert rig.ask(0x14, 0x0)[:4] == words(0)


def test_an_asynchronous_operation_that_fails(rig: Rig) -> None:
    assert rig.ask(0x80, 0x5) == words(0)
    rig.advance(1.0)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.type, head.protocol, payload) == (1, 2, 0x80, words(GENERIC_ERROR))


def test_a_tick_that_fails(rig: Rig) -> None:
    assert rig.platform.tick(rig.now) == 200.0
    Broken.broken_tick = True
    try:
        assert rig.platform.tick(rig.now) is None
    finally:
        Broken.broken_tick = False
    assert rig.stats.vendor_failures == 1


class Forgetful(ProtocolServer):
    """Everything besides its commands fails, too."""

    state_type = int

    def saved(self) -> range:
        return range(3)

    def save(self, number: int) -> Any:
        if number == 1:
            raise KeyError(number)
        return object() if number == 2 else 5

    def load(self, number: int, state: int) -> None:
        raise RemoteError("state", state, None, "refused") if number == 0 else IndexError("no such number")

    def reset_agent(self, agent: Agent) -> None:
        raise ZeroDivisionError

    reset_permissions = agent_left = reset_agent


def test_hooks_that_fail() -> None:
    registry = STANDARD.copy()
    registry.serve(ProtocolTable(0x80, (0x10000,)), Forgetful)
    rig = Rig(registry=registry)
    told: list[str] = []
    rig.platform.guard.tell = lambda protocol, error: told.append(type(error).__name__)
    assert rig.ask(0x10, 0xB, words(2, 1), agent=2) == words(0)
    rig.platform.agent_left(1)
    assert rig.stats.vendor_failures == 3
    state = PlatformState(rig.platform)
    assert [entry for entry in state.snapshot() if entry[0] == 0x80] == [(0x80, 0, 5)]
    assert rig.stats.vendor_failures == 5
    refused = state.restore([(0x80, 0, 5), (0x80, 1, 5), (0x80, 2, "no number")])
    assert [why.partition(": ")[2][:8] for why in refused] == ["state = ", "state = ", "Expected"]
    assert rig.stats.vendor_failures == 6
    assert told == ["ZeroDivisionError", "KeyError", "TypeError", "IndexError"]


def test_numbers_that_are_none(rig: Rig) -> None:
    rig.platform.protocols[0x80].saved = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert PlatformState(rig.platform).snapshot() == []
    assert rig.stats.vendor_failures == 1


def test_the_standard_protocols_are_not_guarded() -> None:
    guard = Guard(Stats())

    def call(*_args: Any) -> bytes:
        return b""

    def tick(_now: float) -> None:
        return None

    assert guard.result(0x7F, call) is call
    assert guard.result(0x80, call) is not call
    assert guard.tick(0x7F, tick) is tick
    assert guard.tick(0x80, lambda now: 3)(1.0) == 3.0
    assert guard.tick(0x80, tick)(1.0) is None


def test_what_a_tick_returns_is_a_time() -> None:
    stats = Stats()
    assert Guard(stats).tick(0x80, lambda now: "soon")(1.0) is None  # type: ignore[arg-type, return-value]
    assert stats.vendor_failures == 1


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    def info(self, event: str, **fields: Any) -> None:
        """Not looked at."""


def test_a_service_logs_what_failed(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text(
        f"from {__name__} import TABLE, Broken\ndef register(registry):\n    registry.serve(TABLE, Broken)\n"
    )
    board = tmp_path / "board.toml"
    board.write_text(
        '[platform]\nvendor = "v"\nvendor_protocols = ["broken.py"]\n[[agents]]\nname = "a"\n', encoding="utf-8"
    )
    log = Log()
    host = PlatformHost(ScmiConfig(board=str(board)), Metrics("scmi"), log)
    for _ in range(2):
        assert host.agents.platform.handle(1, header.command(0x80, 0x3)) is not None
    ((event, fields),) = log.lines
    assert event == "a vendor's protocol failed"
    assert fields["protocol"] == "0x80"
    assert isinstance(fields["exc_info"], ZeroDivisionError)
