"""Helper of the SCMI platform's tests: the platform with a clock that the test turns and a channel that it reads."""

from __future__ import annotations

import struct
from pathlib import Path

from common.scmi import header
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import ProfileName
from services.scmi_platform.platform import Platform
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import Registry

HERE = Path(__file__).parent
SMALL = HERE / "board_small.toml"
JUNO = HERE.parents[2] / "deploy" / "boards" / "juno-r2.toml"


def words(*values: int) -> bytes:
    """Little-endian 32-bit words; negative values in two's complement."""
    return b"".join(struct.pack("<I", value & 0xFFFF_FFFF) for value in values)


class Rig:
    """``ask`` sends one command and checks the header of its reply; what the platform sends unasked is in ``sent``."""

    def __init__(
        self,
        board: Path = SMALL,
        p2a: bool = True,
        max_payload: int = 128,
        profile: ProfileName = "scmi-3.2",
        registry: Registry = STANDARD,
    ) -> None:
        self.now = 100.0
        self.sent: list[tuple[int, bytes]] = []
        self.room = 1000
        self.refuse_once = 0
        self.has_p2a = p2a
        self.token = 0
        self.platform = Platform(
            Board.load(board).with_profile(profile),
            clock=lambda: self.now,
            emit=self.emit,
            p2a=lambda agent: self.has_p2a,
            max_payload=max_payload,
            registry=registry,
        )
        self.stats = self.platform.stats

    def emit(self, agent: int, message: bytes) -> bool:
        if agent == self.refuse_once:
            self.refuse_once = 0
            return False
        if len(self.sent) >= self.room:
            return False
        self.sent.append((agent, message))
        return True

    def ask(self, protocol: int, message: int, payload: bytes = b"", agent: int = 1, again: bool = False) -> bytes:
        """What follows the header of the reply: status word and return values."""
        self.token = (self.token + 1) % header.TOKENS
        request = header.command(protocol, message, self.token, payload)
        reply = self.platform.handle(agent, request, again)
        assert reply is not None
        assert reply[:4] == request[:4]
        assert len(reply) - 4 <= self.platform.max_payload
        return reply[4:]

    def advance(self, seconds: float) -> float | None:
        self.now += seconds
        return self.platform.tick(self.now)

    def take(self) -> list[tuple[int, header.Header, bytes]]:
        """What was sent since the last look: (agent, header, payload)."""
        out = [(agent, header.unpack(int.from_bytes(raw[:4], "little")), raw[4:]) for agent, raw in self.sent]
        self.sent.clear()
        return out
