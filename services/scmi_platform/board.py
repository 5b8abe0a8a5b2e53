"""The board: what the platform manages, read from one TOML file and refused where it contradicts itself.

``Board.load(path)`` and ``Board.parse(text, source)`` raise ConfigError with the file, the dotted key and the reason.
Domain ids are positions in the file, from 0 on; agent ids too, from 1 on. Each section has a file in
:mod:`services.scmi_platform.boards`, which says its units.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from common.choices import with_choices
from common.errors import ConfigError
from services.scmi_platform.boards.agent import (
    KINDS,
    MAX_AGENTS,
    AgentSection,
    DeviceSection,
    PlatformSection,
    ProfileName,
    check_agent,
    check_domains,
)
from services.scmi_platform.boards.clock import ClockSection, check_clock
from services.scmi_platform.boards.performance import PerformanceDomainSection, check_performance
from services.scmi_platform.boards.pinctrl import PinControlSection, check_pinctrl
from services.scmi_platform.boards.power import (
    PowerDomainSection,
    SystemPowerSection,
    check_power_domain,
    check_system_power,
)
from services.scmi_platform.boards.powercap import PowercapDomainSection, check_powercap
from services.scmi_platform.boards.reset import ResetDomainSection, check_reset_domain
from services.scmi_platform.boards.section import Parts, Refuse, Section, check_names
from services.scmi_platform.boards.sensor import SensorSection, check_sensor
from services.scmi_platform.boards.voltage import VoltageDomainSection, check_voltage

#: What refuses one section of each list: ``check(key, section, parts, refuse)``.
_CHECKS: Final[dict[str, Callable[[str, Any, Parts, Refuse], None]]] = {
    "agents": check_agent,
    "devices": check_domains,
    "clocks": check_clock,
    "sensors": check_sensor,
    "power_domains": check_power_domain,
    "performance_domains": check_performance,
    "powercap_domains": check_powercap,
    "reset_domains": check_reset_domain,
    "voltage_domains": check_voltage,
}


class Board(Section, frozen=True, kw_only=True):
    """Everything on the board; immutable. What changes lives in the protocols."""

    platform: PlatformSection
    agents: list[AgentSection]
    devices: list[DeviceSection] = []
    clocks: list[ClockSection] = []
    sensors: list[SensorSection] = []
    power_domains: list[PowerDomainSection] = []
    performance_domains: list[PerformanceDomainSection] = []
    reset_domains: list[ResetDomainSection] = []
    voltage_domains: list[VoltageDomainSection] = []
    powercap_domains: list[PowercapDomainSection] = []
    system_power: SystemPowerSection | None = None
    pin_control: PinControlSection | None = None
    #: what vendors' protocols read; what it means they know
    vendor: dict[str, Any] = {}

    def with_profile(self, profile: ProfileName) -> Board:
        """The same board, its platform showing another release of SCMI."""
        return msgspec.structs.replace(self, platform=msgspec.structs.replace(self.platform, profile=profile))

    @staticmethod
    def load(path: str | Path) -> Board:
        """Read and check a board file. Raises ConfigError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), "", str(error)) from None
        return Board.parse(text, str(path))

    @staticmethod
    def parse(text: str, source: str = "board") -> Board:
        """Check a board given as text. Raises ConfigError naming ``source``."""
        try:
            raw: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(source, "", str(error)) from None
        try:
            board = msgspec.convert(raw, Board)
        except msgspec.ValidationError as error:
            reason, _, at = str(error).partition(" - at `$")
            key = at.rstrip("`").lstrip(".")
            raise ConfigError(source, key, with_choices(reason, Board, key)) from None
        check(board, source)
        return board


def check(board: Board, source: str) -> None:
    """Raise ConfigError for the first thing that the types alone cannot refuse."""

    def refuse(key: str, reason: str) -> None:
        raise ConfigError(source, key, reason)

    if not board.agents:
        refuse("agents", "there must be at least one agent besides the platform")
    if len(board.agents) > MAX_AGENTS:
        refuse("agents", f"{len(board.agents)} agents, at most {MAX_AGENTS}")
    parts: Parts = {kind: getattr(board, kind) for kind in ("agents", "devices", *KINDS.values())}
    for kind, sections in parts.items():
        check_names(kind, sections, refuse)
    for kind, check_one in _CHECKS.items():
        for index, section in enumerate(parts[kind]):
            check_one(f"{kind}[{index}]", section, parts, refuse)
    if board.system_power is not None:
        check_system_power("system_power", board.system_power, parts, refuse)
    if board.pin_control is not None:
        check_pinctrl("pin_control", board.pin_control, refuse)
