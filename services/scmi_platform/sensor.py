"""Sensor protocol 0x15 (DEN0056E §4.7): readings, trip points, configuration. Descriptions: ``sensor_describe``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.errors import LocalError
from common.scmi import sensor as msg
from common.scmi.fields import U32
from common.scmi.sensor import Command, Notification
from common.scmi.status import Status
from services.scmi_platform import sensor_describe as describe
from services.scmi_platform.agent import Agent
from services.scmi_platform.protocol import ENABLE, ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, REGISTRY, Delayed, ProtocolTable
from services.scmi_platform.sensor_state import Sensor

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

_V3: Final = 0x30000
SENSOR: Final = ProtocolTable(msg.PROTOCOL, versions=(0x20000, _V3, msg.VERSION))
_SECTION: Final = "4.7.2"
_unpack_reading_get: Final = msg.READING_GET.unpack_from
_pack_reading: Final = msg.READING.pack


class SensorProtocol(ProtocolServer):
    __slots__ = ("count", "sensors")

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        super().__init__(platform, table)
        self.sensors = [Sensor(number, section) for number, section in enumerate(platform.board.sensors)]
        self.count = len(self.sensors)
        for sensor in self.sensors:
            # SENSOR_UPDATE is the longest message that carries all axes at once; it cannot be split.
            need = msg.UPDATE.size + len(sensor.readers) * msg.READING.size
            if need > platform.max_payload:
                raise LocalError(
                    f"sensor {sensor.section.name}: {len(sensor.readers)} axes need messages of {need} bytes, "
                    f"max_payload is {platform.max_payload}"
                )

    def attributes(self, agent: Agent) -> bytes:
        pending = self.platform.max_async if self.platform.p2a(agent.id) else 0
        return msg.ATTRIBUTES_REPLY.pack(self.count, pending, 0, 0, 0)

    def _usable(self, agent: Agent, sensor_id: int) -> Sensor | Status:
        """The sensor that a command names, if there is one and ``agent`` may use it."""
        if sensor_id >= self.count:
            return Status.NOT_FOUND
        if agent.denied and sensor_id in agent.denied.get(msg.PROTOCOL, ()):
            return Status.DENIED
        return self.sensors[sensor_id]

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_DESCRIPTION_GET, section=_SECTION, size=4)
    def description_get(self, agent: Agent, request: bytes) -> Result:
        (index,) = U32.unpack_from(request, PAYLOAD)
        if index >= self.count:
            return Status.INVALID_PARAMETERS
        names = agent.versions.get(msg.PROTOCOL, msg.VERSION) >= _V3
        p2a = self.platform.p2a(agent.id)
        packed = (describe.descriptor(sensor, p2a, names) for sensor in self.sensors[index:])
        return describe.packed_list(packed, self.count - index, self.platform.max_payload, remaining_shift=16)

    @SENSOR.command(Command.SENSOR_AXIS_DESCRIPTION_GET, section=_SECTION, size=8)
    def axis_description_get(self, agent: Agent, request: bytes) -> Result:
        names = agent.versions.get(msg.PROTOCOL, msg.VERSION) >= _V3
        return self._axes(request, lambda number, axis: describe.axis(number, axis, names))

    @SENSOR.command(Command.SENSOR_AXIS_NAME_GET, section=_SECTION, size=8, since=_V3)
    def axis_name_get(self, agent: Agent, request: bytes) -> Result:
        return self._axes(request, describe.axis_name)

    def _axes(self, request: bytes, pack: describe.PackAxis) -> Result:
        sensor_id, index = msg.AXIS_GET.unpack_from(request, PAYLOAD)
        if sensor_id >= self.count:
            return Status.NOT_FOUND
        axes = self.sensors[sensor_id].section.axes
        if not axes:
            return Status.NOT_SUPPORTED
        if index >= len(axes):
            return Status.INVALID_PARAMETERS
        packed = (pack(number, axes[number]) for number in range(index, len(axes)))
        return describe.packed_list(packed, len(axes) - index, self.platform.max_payload, remaining_shift=26)

    @SENSOR.command(Command.SENSOR_NAME_GET, section=_SECTION, size=4, since=_V3)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        (sensor_id,) = U32.unpack_from(request, PAYLOAD)
        if sensor_id >= self.count:
            return Status.NOT_FOUND
        return describe.name(self.sensors[sensor_id])

    @SENSOR.command(Command.SENSOR_LIST_UPDATE_INTERVALS, section=_SECTION, size=8)
    def list_update_intervals(self, agent: Agent, request: bytes) -> Result:
        sensor_id, index = msg.LIST_INTERVALS.unpack_from(request, PAYLOAD)
        if sensor_id >= self.count:
            return Status.NOT_FOUND
        sensor = self.sensors[sensor_id]
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
        if sensor_id >= self.count:
            return Status.NOT_FOUND
        if agent.denied and sensor_id in agent.denied.get(msg.PROTOCOL, ()):
            return Status.DENIED
        sensor = self.sensors[sensor_id]
        if flags:
            return self._read_later(agent, request, sensor, flags)
        if not sensor.enabled:
            return Status.GENERIC_ERROR
        return self._readings(sensor, self.platform.clock() - self.platform.started)

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
        finish = self._finish_reading(sensor)
        if not self.platform.later(agent, request, sensor.section.asynchronous_us / 1e6, finish):
            return Status.BUSY
        return b""

    def _finish_reading(self, sensor: Sensor) -> Callable[[], Result]:
        def finish() -> Result:
            if not sensor.enabled:
                return Status.GENERIC_ERROR
            now = self.platform.clock() - self.platform.started
            return msg.READING_COMPLETE.pack(sensor.id) + self._readings(sensor, now)

        return finish

    # --- configuration ------------------------------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_CONFIG_GET, section=_SECTION, size=4)
    def config_get(self, agent: Agent, request: bytes) -> Result:
        (sensor_id,) = U32.unpack_from(request, PAYLOAD)
        sensor = self._usable(agent, sensor_id)
        return U32.pack(sensor.config) if isinstance(sensor, Sensor) else sensor

    @SENSOR.command(Command.SENSOR_CONFIG_SET, section=_SECTION, size=8)
    def config_set(self, agent: Agent, request: bytes) -> Result:
        sensor_id, word = msg.CONFIG_SET.unpack_from(request, PAYLOAD)
        sensor = self._usable(agent, sensor_id)
        if not isinstance(sensor, Sensor):
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
        self._look_soon(sensor)
        return b""

    @SENSOR.command(Command.SENSOR_TRIP_POINT_CONFIG, section=_SECTION, size=16)
    def trip_point_config(self, agent: Agent, request: bytes) -> Result:
        sensor_id, control, value = msg.TRIP_POINT_CONFIG.unpack_from(request, PAYLOAD)
        sensor = self._usable(agent, sensor_id)
        if not isinstance(sensor, Sensor):
            return sensor
        number = control >> msg.TRIP_ID_SHIFT & 0xFF
        if control & ~msg.TRIP_MASK or number >= len(sensor.trips):
            return Status.INVALID_PARAMETERS
        trip = sensor.trips[number]
        trip.direction = control & 3
        trip.value = value
        sensor.owner = agent.id
        self._look_soon(sensor)
        return b""

    # --- notifications ------------------------------------------------------------------------------------------------

    @SENSOR.command(Command.SENSOR_TRIP_POINT_NOTIFY, section=_SECTION, size=8, p2a=True)
    def trip_point_notify(self, agent: Agent, request: bytes) -> Result:
        return self._subscribe(agent, request, Notification.SENSOR_TRIP_POINT_EVENT)

    @SENSOR.command(Command.SENSOR_CONTINUOUS_UPDATE_NOTIFY, section=_SECTION, size=8, p2a=True)
    def continuous_update_notify(self, agent: Agent, request: bytes) -> Result:
        return self._subscribe(agent, request, Notification.SENSOR_UPDATE)

    def _subscribe(self, agent: Agent, request: bytes, event: Notification) -> Result:
        sensor_id, enable = msg.NOTIFY.unpack_from(request, PAYLOAD)
        sensor = self._usable(agent, sensor_id)
        if not isinstance(sensor, Sensor):
            return sensor
        if event == Notification.SENSOR_UPDATE and not sensor.section.continuous:
            return Status.NOT_SUPPORTED
        if enable & ~ENABLE:
            return Status.INVALID_PARAMETERS
        self.platform.subscribe(agent, msg.PROTOCOL, event, sensor_id, bool(enable))
        self._look_soon(sensor)
        return b""

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
        for sensor in self.sensors:
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
        if not 0 <= sensor < self.count:
            raise LocalError(f"sensor {sensor} is not on the board")
        self.sensors[sensor].override(value, axis)

    def reset_agent(self, agent: Agent) -> None:
        for sensor in self.sensors:
            if sensor.owner == agent.id:
                sensor.reset()
                self._look_soon(sensor)


REGISTRY.serve(SENSOR, SensorProtocol)
