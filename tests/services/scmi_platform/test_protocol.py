"""A protocol that the platform has never heard of needs a class, a table and nothing else."""

from __future__ import annotations

from enum import IntEnum

from common.scmi import header
from services.scmi_platform.agent import Agent
from services.scmi_platform.board import Board
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocol import ProtocolServer, Result
from services.scmi_platform.registry import ProtocolTable, Registry
from tests.services.scmi_platform.scmi_rig import SMALL, words


class Message(IntEnum):
    ECHO = 0x3
    SHOUT = 0x4


ECHO = ProtocolTable(0x80, versions=(0x10000, 0x20000))


class EchoProtocol(ProtocolServer):
    @ECHO.command(Message.ECHO, section="vendor", max_size=8)
    def echo(self, agent: Agent, request: bytes) -> Result:
        return request[4:]

    @ECHO.command(Message.SHOUT, section="vendor", since=0x20000, repeatable=False)
    def shout(self, agent: Agent, request: bytes) -> Result:
        return b"!!!!"


def make() -> Platform:
    registry = Registry()
    registry.serve(ECHO, EchoProtocol)
    return Platform(
        Board.load(SMALL),
        clock=lambda: 0.0,
        emit=lambda agent, message: True,
        p2a=lambda agent: True,
        registry=registry,
    )


def ask(platform: Platform, message: int, payload: bytes = b"", again: bool = False) -> bytes:
    reply = platform.handle(1, header.command(0x80, message, 1, payload), again)
    assert reply is not None
    return reply[4:]


def test_generic_commands_come_for_free() -> None:
    platform = make()
    assert ask(platform, 0x0) == words(0, 0x20000)
    assert ask(platform, 0x1) == words(0, 0)
    assert ask(platform, 0x2, words(0x4)) == words(0, 0)
    assert ask(platform, 0x3, b"12345678") == words(0) + b"12345678"
    assert ask(platform, 0x4) == words(0) + b"!!!!"
    assert platform.tick(1.0) is None
    platform.reset_agent(1)


def test_negotiation_hides_what_came_later() -> None:
    platform = make()
    assert ask(platform, 0x10, words(0x10000)) == words(0)
    assert ask(platform, 0x4) == words(-1)
    assert ask(platform, 0x0) == words(0, 0x20000)  # the platform's version, not the agent's


def test_what_may_not_be_repeated_is_not() -> None:
    platform = make()
    assert ask(platform, 0x4, again=True) == words(-7)
    assert ask(platform, 0x3, again=True) == words(0)
