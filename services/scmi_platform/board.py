"""The board: what the platform manages, read from one TOML file and refused where it contradicts itself.

``Board.load(path)`` and ``Board.parse(text, source)`` raise ConfigError with the file, the dotted key and the reason.
Domain ids are positions in the file, from 0 on; agent ids too, from 1 on. Frequencies are Hz, latencies µs, sensor
values whole numbers of ``10**exponent`` units.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from common.scmi.sensor_types import SENSOR_TYPES

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
S64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
#: Names must leave room for the NUL of a 64-byte field.
Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[ -~]+$")]
#: Names that have no extended form: vendors and agents.
ShortName = Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[ -~]+$")]
#: Exponents are five bits, two's complement.
Exponent = Annotated[int, Meta(ge=-16, le=15)]
#: (mantissa, exponent) of an update interval in seconds.
Interval = tuple[Annotated[int, Meta(ge=1, le=0xFFFF)], Exponent]

#: Counts are 16 bits in the attributes messages; the agents' is 8.
MAX_DOMAINS = 0xFFFF
MAX_AGENTS = 0xFF
MAX_AXES = 63
#: "Remaining" of CLOCK_POSSIBLE_PARENTS_GET is 8 bits.
MAX_PARENTS = 0xFF


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Root of all sections: a key that nobody knows is refused."""


class PlatformSection(Section, frozen=True, kw_only=True):
    vendor: ShortName
    sub_vendor: ShortName = "ringmesh"
    implementation_version: U32 = 1


class AgentSection(Section, frozen=True, kw_only=True):
    """``trusted`` agents may set permissions and reset other agents."""

    name: ShortName
    trusted: bool = False


class DeviceSection(Section, frozen=True, kw_only=True):
    """A device for BASE_SET_DEVICE_PERMISSIONS: which domains belong to it, by name."""

    name: Name
    clocks: list[str] = []
    sensors: list[str] = []
    power_domains: list[str] = []
    performance_domains: list[str] = []


class RateRange(Section, frozen=True, kw_only=True):
    min: U64
    max: U64
    step: Annotated[int, Meta(ge=1, le=0x7FFF_FFFF_FFFF_FFFF)]


class ClockSection(Section, frozen=True, kw_only=True):
    """``rates``: ascending list, or a range. ``restricted``: what no agent may change. ``extended``: initial values
    of the extended configs that the clock has. ``rate_set_latency_us``: how long an asynchronous change takes."""

    name: Name
    rates: list[U64] | RateRange
    rate: U64
    enabled: bool = True
    enable_latency_us: U32 = 0
    rate_set_latency_us: U32 = 1000
    parents: list[str] = []
    parent: str = ""
    restricted: list[Literal["state", "parent", "rate"]] = []
    extended: dict[Literal["duty_cycle", "phase"], U32] = {}


class Signal(Section, frozen=True, kw_only=True):
    """What a sensor would measure: ``base + amplitude × shape((t / period) + phase)``, no noise.

    ``sine`` and ``triangle`` go from −1 to 1, ``ramp`` counts periods without end (energy), ``constant`` is 0.
    """

    shape: Literal["constant", "sine", "triangle", "ramp"] = "constant"
    base: S64
    amplitude: S64 = 0
    period: Annotated[float, Meta(gt=0)] = 60.0
    phase: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Resolution(Section, frozen=True, kw_only=True):
    """``mantissa × 10**exponent`` of the sensor's type; left out it is one step of the readings."""

    mantissa: Annotated[int, Meta(ge=0, le=0x07FF_FFFF)]
    exponent: Exponent


class AxisSection(Section, frozen=True, kw_only=True):
    name: Name
    type: str
    exponent: Exponent = 0
    resolution: Resolution | None = None
    min: S64
    max: S64
    signal: Signal


class TripPoint(Section, frozen=True, kw_only=True):
    """Initial setting of a trip point; its id is its position."""

    value: S64
    direction: Literal["disabled", "rising", "falling", "both"] = "disabled"


class IntervalRange(Section, frozen=True, kw_only=True):
    min: Interval
    max: Interval
    step: Interval


class SensorSection(Section, frozen=True, kw_only=True):
    """A scalar sensor has ``min``, ``max`` and ``signal``; one with ``axes`` has none of them.

    ``asynchronous`` sensors may be read with a delayed response, ``asynchronous_us`` later. ``power`` is µW.
    """

    name: Name
    type: str
    exponent: Exponent = 0
    resolution: Resolution | None = None
    min: S64 = 0
    max: S64 = 0
    signal: Signal | None = None
    axes: list[AxisSection] = []
    trip_points: list[TripPoint] = []
    update_intervals: list[Interval] | IntervalRange = []
    continuous: bool = True
    asynchronous: bool = False
    asynchronous_us: U32 = 1000
    timestamp_exponent: Exponent | None = None
    enabled: bool = True
    power: U32 = 0


class PowerDomainSection(Section, frozen=True, kw_only=True):
    name: Name
    parent: str = ""
    kind: Literal["core", "cluster", "device", "debug", "system"] = "device"
    on: bool = True
    transition_us: U32 = 0


class Opp(Section, frozen=True, kw_only=True):
    """An operating point: ``level`` is what the protocol calls it, ``frequency`` and ``voltage`` (µV) what it means."""

    level: U32
    frequency: U64 = 0
    voltage: U32 = 0
    power: U32 = 0
    latency_us: U16 = 0


class PerformanceDomainSection(Section, frozen=True, kw_only=True):
    name: Name
    opps: list[Opp]
    level: U32
    sustained_level: U32
    sustained_khz: U32 = 0
    power_unit: Literal["abstract", "mW", "uW"] = "mW"
    clock: str = ""


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Board(Section, frozen=True, kw_only=True):
    """Everything on the board; immutable. What changes lives in the protocols."""

    platform: PlatformSection
    agents: list[AgentSection]
    devices: list[DeviceSection] = []
    clocks: list[ClockSection] = []
    sensors: list[SensorSection] = []
    power_domains: list[PowerDomainSection] = []
    performance_domains: list[PerformanceDomainSection] = []

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
            raise ConfigError(source, at.rstrip("`").lstrip("."), reason) from None
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
    kinds: dict[str, Sequence[Named]] = {
        kind: getattr(board, kind)
        for kind in ("agents", "devices", "clocks", "sensors", "power_domains", "performance_domains")
    }
    for kind, items in kinds.items():
        _check_names(kind, items, refuse)
    for index, device in enumerate(board.devices):
        for kind in ("clocks", "sensors", "power_domains", "performance_domains"):
            _check_known(f"devices[{index}].{kind}", getattr(device, kind), kinds[kind], refuse)
    for index, clock in enumerate(board.clocks):
        _check_clock(f"clocks[{index}]", clock, board, refuse)
    for index, sensor in enumerate(board.sensors):
        _check_sensor(f"sensors[{index}]", sensor, refuse)
    for index, domain in enumerate(board.power_domains):
        if domain.parent:
            _check_known(f"power_domains[{index}].parent", [domain.parent], board.power_domains, refuse)
    _check_tree(board, refuse)
    for index, performance in enumerate(board.performance_domains):
        _check_performance(f"performance_domains[{index}]", performance, board, refuse)


Refuse = Callable[[str, str], None]


def _check_names(kind: str, items: Sequence[Named], refuse: Refuse) -> None:
    if len(items) > MAX_DOMAINS:
        refuse(kind, f"{len(items)} of them, at most {MAX_DOMAINS}")
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.name in seen:
            refuse(f"{kind}[{index}].name", f"{item.name!r} is there twice")
        seen.add(item.name)


def _check_tree(board: Board, refuse: Refuse) -> None:
    """Walking up from any power domain must end."""
    parents = {domain.name: domain.parent for domain in board.power_domains}
    for index, domain in enumerate(board.power_domains):
        seen, name = {domain.name}, domain.parent
        while name:
            if name in seen:
                refuse(f"power_domains[{index}].parent", f"{name!r} is its own ancestor")
            seen.add(name)
            name = parents[name]


def _check_known(key: str, names: Iterable[str], items: Sequence[Named], refuse: Refuse) -> None:
    known = {item.name for item in items}
    for name in names:
        if name not in known:
            refuse(key, f"{name!r} is not on the board")


def _check_ascending(key: str, values: Sequence[int], refuse: Refuse) -> None:
    if not values:
        refuse(key, "must not be empty")
    for index, (low, high) in enumerate(itertools.pairwise(values), start=1):
        if low >= high:
            refuse(f"{key}[{index}]", f"{high} after {low}: must be ascending")


def _check_clock(key: str, clock: ClockSection, board: Board, refuse: Refuse) -> None:
    if isinstance(clock.rates, RateRange):
        span = clock.rates
        if span.min > span.max:
            refuse(f"{key}.rates", f"min {span.min} is above max {span.max}")
        if not span.min <= clock.rate <= span.max or (clock.rate - span.min) % span.step:
            refuse(f"{key}.rate", f"{clock.rate} is not in {span.min}, {span.min + span.step} … {span.max}")
    else:
        _check_ascending(f"{key}.rates", clock.rates, refuse)
        if clock.rate not in clock.rates:
            refuse(f"{key}.rate", f"{clock.rate} is not one of the rates")
    if len(clock.parents) > MAX_PARENTS:
        refuse(f"{key}.parents", f"{len(clock.parents)} parents, at most {MAX_PARENTS}")
    _check_known(f"{key}.parents", clock.parents, board.clocks, refuse)
    if clock.name in clock.parents:
        refuse(f"{key}.parents", "a clock is not its own parent")
    if bool(clock.parents) != bool(clock.parent) or (clock.parent and clock.parent not in clock.parents):
        refuse(f"{key}.parent", f"{clock.parent!r} is not one of the parents")
    for name, limit in (("duty_cycle", 100), ("phase", 359)):
        if clock.extended.get(name, 0) > limit:  # type: ignore[call-overload]
            refuse(f"{key}.extended.{name}", f"above {limit}")


def _check_sensor(key: str, sensor: SensorSection, refuse: Refuse) -> None:
    if bool(sensor.axes) == (sensor.signal is not None):
        refuse(f"{key}.signal", "a sensor has either a signal or axes")
    if len(sensor.axes) > MAX_AXES:
        refuse(f"{key}.axes", f"{len(sensor.axes)} axes, at most {MAX_AXES}")
    if sensor.axes and sensor.trip_points:
        refuse(f"{key}.trip_points", "trip points are for sensors without axes")
    if len(sensor.trip_points) > 0xFF:
        refuse(f"{key}.trip_points", f"{len(sensor.trip_points)} trip points, at most 255")
    _check_names(f"{key}.axes", sensor.axes, refuse)
    _check_range(key, sensor, refuse)
    for index, axis in enumerate(sensor.axes):
        _check_range(f"{key}.axes[{index}]", axis, refuse)
    for index, trip in enumerate(sensor.trip_points):
        if not sensor.min <= trip.value <= sensor.max:
            refuse(f"{key}.trip_points[{index}].value", f"{trip.value} is outside {sensor.min} … {sensor.max}")
    intervals = sensor.update_intervals
    if isinstance(intervals, IntervalRange):
        if seconds(intervals.min) > seconds(intervals.max):
            refuse(f"{key}.update_intervals", "min is above max")
    elif any(seconds(low) >= seconds(high) for low, high in itertools.pairwise(intervals)):
        refuse(f"{key}.update_intervals", "must be ascending")


def _check_range(key: str, one: SensorSection | AxisSection, refuse: Refuse) -> None:
    if one.type not in SENSOR_TYPES:
        refuse(f"{key}.type", f"{one.type!r} is not a sensor type")
    if one.min > one.max:
        refuse(f"{key}.min", f"{one.min} is above max {one.max}")
    if one.signal is not None and not one.min <= one.signal.base <= one.max:
        refuse(f"{key}.signal.base", f"{one.signal.base} is outside {one.min} … {one.max}")


def _check_performance(key: str, domain: PerformanceDomainSection, board: Board, refuse: Refuse) -> None:
    levels = [opp.level for opp in domain.opps]
    _check_ascending(f"{key}.opps", levels, refuse)
    for name in ("level", "sustained_level"):
        if getattr(domain, name) not in levels:
            refuse(f"{key}.{name}", f"{getattr(domain, name)} is not the level of an OPP")
    if domain.clock:
        _check_known(f"{key}.clock", [domain.clock], board.clocks, refuse)


def seconds(interval: Interval) -> float:
    """An update interval in seconds."""
    return interval[0] * 10.0 ** interval[1]
