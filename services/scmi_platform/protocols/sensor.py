"""Sensor protocol 0x15 (DEN0056E §4.7): readings, trip points, configuration. Descriptions: ``sensor_describe``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.errors import LocalError
from common.scmi import sensor as msg
from common.scmi.fields import U32
from common.scmi.sensor import Command, Notification
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.lists import packed_list
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols import sensor_describe as describe
from services.scmi_platform.protocols.sensor_state import Sensor, SensorState
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

_V1: Final = 0x10000
_V2: Final = 0x20000
_V3: Final = 0x30000
SENSOR: Final = ProtocolTable(msg.PROTOCOL, (_V1, _V2, _V3, msg.VERSION), Notification)
_SECTION: Final = "4.7.2"
_unpack_reading_get: Final = msg.READING_GET.unpack_from
_pack_reading: Final = msg.READING.pack


class SensorProtocol(DomainServer[Sensor]):
    __slots__ = ()

    kind = "sensors"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections = platform.board.sensors
        always_on = platform.profile.versions(table)[-1] < _V2
        super().__init__(platform, table, [Sensor(number, one, always_on) for number, one in enumerate(sections)])
        for sensor in self.domains:
            # SENSOR_UPDATE is the longest message that carries all axes at once; it cannot be split.
            need = msg.UPDATE.size + len(sensor.readers) * msg.READING.size
            if need > platform.max_payload:
                raise LocalError(
                    f"sensor {sensor.section.name}: {len(sensor.readers)} axes need messages of {need} bytes, "
                    f"max_payload is {platform.max_payload}"
                )

    def attributes(self, agent: Agent) -> bytes:
        pending = self.platform.max_async if self.platform.p2a(agent.id) else 0
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), pending, 0, 0, 0)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_DESCRIPTION_GET, section=_SECTION, size=4)
    def description_get(self, agent: Agent, request: bytes) -> Result:
        (index,) = U32.unpack_from(request, PAYLOAD)
        seen = self.seen(agent)
        if index >= len(seen):
            return Status.INVALID_PARAMETERS
        p2a, version = self.platform.p2a(agent.id), self.version(agent)
        if version < _V2:
            packed = (describe.descriptor_v1(number, seen[number], p2a) for number in range(index, len(seen)))
        else:
            names = version >= _V3
            packed = (describe.descriptor(number, seen[number], p2a, names) for number in range(index, len(seen)))
        return packed_list(packed, len(seen) - index, self.platform.max_payload, remaining_shift=16)

    @SENSOR.command(Command.SENSOR_AXIS_DESCRIPTION_GET, section=_SECTION, size=8, since=_V2)
    def axis_description_get(self, agent: Agent, request: bytes) -> Result:
        names = self.version(agent) >= _V3
        return self._axes(agent, request, lambda number, axis: describe.axis(number, axis, names))

    @SENSOR.command(Command.SENSOR_AXIS_NAME_GET, section=_SECTION, size=8, since=_V3)
    def axis_name_get(self, agent: Agent, request: bytes) -> Result:
        return self._axes(agent, request, describe.axis_name)

    def _axes(self, agent: Agent, request: bytes, pack: describe.PackAxis) -> Result:
        sensor_id, index = msg.AXIS_GET.unpack_from(request, PAYLOAD)
        sensor = self.find(agent, sensor_id)
        if sensor is None:
            return Status.NOT_FOUND
        axes = sensor.section.axes
        if not axes:
            return Status.NOT_SUPPORTED
        if index >= len(axes):
            return Status.INVALID_PARAMETERS
        packed = (pack(number, axes[number]) for number in range(index, len(axes)))
        return packed_list(packed, len(axes) - index, self.platform.max_payload, remaining_shift=26)

    @SENSOR.command(Command.SENSOR_NAME_GET, section=_SECTION, size=4, since=_V3)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    @SENSOR.command(Command.SENSOR_LIST_UPDATE_INTERVALS, section=_SECTION, size=8, since=_V2)
    def list_update_intervals(self, agent: Agent, request: bytes) -> Result:
        sensor_id, index = msg.LIST_INTERVALS.unpack_from(request, PAYLOAD)
        sensor = self.find(agent, sensor_id)
        if sensor is None:
            return Status.NOT_FOUND
        if not sensor.intervals:
            return Status.NOT_SUPPORTED
        segmented = not isinstance(sensor.section.update_intervals, list)
        if index >= len(sensor.intervals) or (segmented and index):
            return Status.INVALID_PARAMETERS
        return describe.intervals(sensor.intervals[index:], segmented, self.platform.max_payload)

    # --- readings -----------------------------------------------------------------------------------------------------

    @SENSOR.command(
        Command.SENSOR_READING_GET, section=_SECTION, size=8, delayed=Delayed(4, msg.READ_ASYNC, msg.READ_ASYNC)
    )
    def reading_get(self, agent: Agent, request: bytes) -> Result:
        sensor_id, flags = _unpack_reading_get(request, PAYLOAD)
        sensor = self.usable(agent, sensor_id)
        if not isinstance(sensor, Sensor):
            return sensor
        if flags:
            return self._read_later(agent, request, sensor, flags)
        return self._readings_for(agent, sensor)

    def _readings_for(self, agent: Agent, sensor: Sensor) -> Result:
        """What ``sensor`` reads now, in the layout of the version that ``agent`` speaks."""
        if not sensor.enabled:
            return Status.PROTOCOL_ERROR
        platform = self.platform
        now = platform.clock() - platform.started
        # as version(), without the call: readings are asked for all the time
        if agent.versions.get(self.protocol, self.versions[-1]) < _V2:
            return msg.READING_V1.pack(sensor.readers[0](now))
        return self._readings(sensor, now)

    def _readings(self, sensor: Sensor, now: float) -> bytes:
        """All axes of ``sensor`` at ``now`` seconds after the start."""
        timestamp = int(now * sensor.ticks_per_second) if sensor.timestamped else 0
        readers = sensor.readers
        if len(readers) == 1:
            return _pack_reading(readers[0](now), timestamp)
        return b"".join([_pack_reading(read(now), timestamp) for read in readers])

    def _read_later(self, agent: Agent, request: bytes, sensor: Sensor, flags: int) -> Result:
        if flags & ~msg.READ_ASYNC:
            return Status.INVALID_PARAMETERS
        if not sensor.section.asynchronous or not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        (number,) = U32.unpack_from(request, PAYLOAD)
        finish = self._finish_reading(agent, number, sensor)
        if not self.platform.later(agent, request, sensor.section.asynchronous_us / 1e6, finish):
            return Status.BUSY
        return b""

    def _finish_reading(self, agent: Agent, number: int, sensor: Sensor) -> Callable[[], Result]:
        def finish() -> Result:
            readings = self._readings_for(agent, sensor)
            return readings if isinstance(readings, Status) else msg.READING_COMPLETE.pack(number) + readings

        return finish

    # --- configuration ------------------------------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_CONFIG_GET, section=_SECTION, size=4, since=_V2)
    def config_get(self, agent: Agent, request: bytes) -> Result:
        (sensor_id,) = U32.unpack_from(request, PAYLOAD)
        sensor = self.usable(agent, sensor_id)
        return sensor if isinstance(sensor, Status) else U32.pack(sensor.config)

    @SENSOR.command(Command.SENSOR_CONFIG_SET, section=_SECTION, size=8, since=_V2)
    def config_set(self, agent: Agent, request: bytes) -> Result:
        sensor_id, word = msg.CONFIG_SET.unpack_from(request, PAYLOAD)
        sensor = self.usable(agent, sensor_id)
        if isinstance(sensor, Status):
            return sensor
        rounding = word >> msg.CONFIG_ROUND_SHIFT & 3
        wanted = word >> msg.CONFIG_INTERVAL_SHIFT
        timestamped = bool(word & msg.CONFIG_TIMESTAMP)
        if word & ~msg.CONFIG_MASK or rounding > msg.ROUND_AUTO:
            return Status.INVALID_PARAMETERS
        if timestamped and sensor.section.timestamp_exponent is None:
            return Status.INVALID_PARAMETERS
        interval: int | None = sensor.interval
        if wanted >> 5:
            interval = sensor.round_interval(wanted, rounding)
        if interval is None:
            return Status.INVALID_PARAMETERS
        sensor.set_interval(interval)
        sensor.timestamped = timestamped
        sensor.enabled = bool(word & msg.CONFIG_ENABLE)
        sensor.owner = agent.id
        self.touch(sensor.id)
        self._look_soon(sensor)
        return b""

    @SENSOR.command(Command.SENSOR_TRIP_POINT_CONFIG, section=_SECTION, size=16)
    def trip_point_config(self, agent: Agent, request: bytes) -> Result:
        sensor_id, control, value = msg.TRIP_POINT_CONFIG.unpack_from(request, PAYLOAD)
        sensor = self.usable(agent, sensor_id)
        if isinstance(sensor, Status):
            return sensor
        number = control >> msg.TRIP_ID_SHIFT & 0xFF
        if control & ~msg.TRIP_MASK or number >= len(sensor.trips):
            return Status.INVALID_PARAMETERS
        trip = sensor.trips[number]
        trip.direction = control & 3
        trip.value = value
        sensor.owner = agent.id
        self.touch(sensor.id)
        self._look_soon(sensor)
        return b""

    # --- notifications ------------------------------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_TRIP_POINT_NOTIFY, section=_SECTION, size=8, p2a=True)
    def trip_point_notify(self, agent: Agent, request: bytes) -> Result:
        return self._subscribe(agent, request, Notification.SENSOR_TRIP_POINT_EVENT)

    @SENSOR.command(Command.SENSOR_CONTINUOUS_UPDATE_NOTIFY, section=_SECTION, size=8, since=_V2, p2a=True)
    def continuous_update_notify(self, agent: Agent, request: bytes) -> Result:
        return self._subscribe(agent, request, Notification.SENSOR_UPDATE)

    def _subscribe(self, agent: Agent, request: bytes, event: Notification) -> Result:
        (number,) = U32.unpack_from(request, PAYLOAD)
        sensor = self.usable(agent, number)
        if isinstance(sensor, Status):
            return sensor
        if event == Notification.SENSOR_UPDATE and not sensor.section.continuous:
            return Status.NOT_SUPPORTED
        self._look_soon(sensor)
        return self.subscribe(agent, request, event)

    def _look_soon(self, sensor: Sensor) -> None:
        """Something about ``sensor`` changed: note where it stands now, and look again within one interval (a look that
        is due sooner stays: agents that keep changing things must not put it off for ever)."""
        now = self.platform.clock()
        sensor.previous = sensor.readers[0](now - self.platform.started) if sensor.trips and sensor.enabled else None
        if not now < sensor.due <= now + sensor.period:
            sensor.due = now + sensor.period

    def tick(self, now: float) -> float | None:
        """Look at every sensor that is due and that somebody wants to hear of."""
        due: list[float] = []
        if not self.platform.listened(msg.PROTOCOL):
            return None
        for sensor in self.domains:
            trips = self.platform.subscribed(msg.PROTOCOL, Notification.SENSOR_TRIP_POINT_EVENT, sensor.id)
            updates = self.platform.subscribed(msg.PROTOCOL, Notification.SENSOR_UPDATE, sensor.id)
            if not sensor.enabled or not (trips or updates):
                continue
            if now >= sensor.due:
                # A late tick is one look, not several: values that nobody saw pass are merged.
                sensor.due = now + sensor.period
                if trips:
                    self._trip(sensor, now)
                if updates:
                    payload = msg.UPDATE.pack(0, sensor.id) + self._readings(sensor, now - self.platform.started)
                    self.platform.notify(msg.PROTOCOL, Notification.SENSOR_UPDATE, sensor.id, payload)
            due.append(sensor.due)
        return min(due, default=None)

    def _trip(self, sensor: Sensor, now: float) -> None:
        for number, rising in sensor.crossings(sensor.readers[0](now - self.platform.started)):
            word = number | (msg.TRIP_RISING if rising else 0)
            payload = msg.TRIP_POINT_EVENT.pack(0, sensor.id, word)
            self.platform.notify(msg.PROTOCOL, Notification.SENSOR_TRIP_POINT_EVENT, sensor.id, payload)

    def override(self, sensor: int, value: int | None, axis: int = 0) -> None:
        """Force a reading (a test's thumb on the scale); None goes back to the board's signal."""
        if not 0 <= sensor < len(self.domains):
            raise LocalError(f"sensor {sensor} is not on the board")
        self.domains[sensor].override(value, axis)

    def reset_agent(self, agent: Agent) -> None:
        for sensor in self.domains:
            if sensor.owner == agent.id:
                sensor.reset()
                self.touch(sensor.id)
                self._look_soon(sensor)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = SensorState
