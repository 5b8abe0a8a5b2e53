"""docs/boards.md has every key of the format, with its default, and no other; the boards that ship are in it."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec
import pytest

from services.scmi_platform.board import Board
from services.scmi_platform.boards import agent, clock, performance, pinctrl, power, powercap, reset, sensor, voltage
from services.scmi_platform.boards.section import Section
from tests.deploy.deployment import PROJECT

TEXT: Final = (PROJECT / "docs" / "boards.md").read_text(encoding="utf-8")
#: heading: what its table describes
TABLES: Final[dict[str, type[Section]]] = {
    "[platform]": agent.PlatformSection,
    "[[agents]]": agent.AgentSection,
    "sees": agent.Domains,
    "[[devices]]": agent.DeviceSection,
    "[[power_domains]]": power.PowerDomainSection,
    "[system_power]": power.SystemPowerSection,
    "[[performance_domains]]": performance.PerformanceDomainSection,
    "opps": performance.Opp,
    "[[clocks]]": clock.ClockSection,
    "rates": clock.RateRange,
    "[[sensors]]": sensor.SensorSection,
    "axes": sensor.AxisSection,
    "signal": sensor.Signal,
    "resolution": sensor.Resolution,
    "trip_points": sensor.TripPoint,
    "update_intervals": sensor.IntervalRange,
    "[[reset_domains]]": reset.ResetDomainSection,
    "[[voltage_domains]]": voltage.VoltageDomainSection,
    "levels": voltage.LevelRange,
    "[[powercap_domains]]": powercap.PowercapDomainSection,
    "caps": powercap.Span,
    "[pin_control]": pinctrl.PinControlSection,
    "pins": pinctrl.PinSection,
    "configs": pinctrl.PinConfig,
    "groups": pinctrl.PinGroupSection,
    "functions": pinctrl.PinFunctionSection,
}


def default(field: msgspec.structs.FieldInfo) -> str:
    """How the table writes it: TOML, or that there is none."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "–" if value is None or isinstance(value, Section) else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("heading", TABLES)
def test_keys_and_defaults(heading: str) -> None:
    section = TEXT.split(f"### `{heading}`\n")[1].split("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", section, re.MULTILINE))
    assert rows == {field.name: default(field) for field in msgspec.structs.fields(TABLES[heading])}


def test_every_section_has_a_table() -> None:
    def below(kind: type[Section]) -> set[type[Section]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert below(Section) - {Section, Board} == set(TABLES.values())
    assert re.findall(r"^### `(.+)`$", TEXT, re.MULTILINE) == list(TABLES)


def test_every_board_is_listed() -> None:
    shipped = {path.name for path in (PROJECT / "deploy" / "boards").glob("*.toml")}
    assert set(re.findall(r"^\| `([\w-]+\.toml)` \|", TEXT, re.MULTILINE)) == shipped


def test_the_example_is_a_board() -> None:
    assert Board.parse(TEXT.split("```toml\n")[1].split("```")[0]).clocks[0].rate == 24_000_000
