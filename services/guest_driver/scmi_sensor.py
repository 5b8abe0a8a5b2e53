"""Sensor protocol 0x15 from the agent's side (DEN0056E §4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import sensor
from common.scmi.fields import unpack
from common.scmi.sensor import Command
from services.guest_driver.scmi_client import ProtocolClient, went_on
from services.guest_driver.scmi_notify import Callback


@dataclass(slots=True, frozen=True)
class SensorClient(ProtocolClient):
    """Sensors: what there are, readings, trip points."""

    protocol: ClassVar[int] = sensor.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> sensor.Attributes:
        """How many sensors, how many asynchronous readings may be pending."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=sensor.ATTRIBUTES_REPLY.size, poll=poll
        )
        return sensor.parse_attributes(reply)

    async def discover(self, *, poll: bool = False) -> list[sensor.Descriptor]:
        """Descriptors of all sensors, in the order of their ids."""
        found: list[sensor.Descriptor] = []
        while True:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.SENSOR_DESCRIPTION_GET,
                sensor.DESCRIPTION_GET.pack(len(found)),
                poll=poll,
            )
            part, remaining = sensor.parse_descriptors(reply)
            found += part
            if not went_on("SENSOR_DESCRIPTION_GET", len(part), remaining):
                return found

    async def axes(self, sensor_id: int, *, poll: bool = False) -> list[sensor.Descriptor]:
        """Descriptors of the axes of one sensor."""
        found: list[sensor.Descriptor] = []
        while True:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.SENSOR_AXIS_DESCRIPTION_GET,
                sensor.AXIS_GET.pack(sensor_id, len(found)),
                poll=poll,
            )
            part, remaining = sensor.parse_axes(reply)
            found += part
            if not went_on("SENSOR_AXIS_DESCRIPTION_GET", len(part), remaining):
                return found

    async def update_intervals(self, sensor_id: int, *, poll: bool = False) -> sensor.Intervals:
        found: list[tuple[int, int]] = []
        while True:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.SENSOR_LIST_UPDATE_INTERVALS,
                sensor.LIST_INTERVALS.pack(sensor_id, len(found)),
                poll=poll,
            )
            part = sensor.parse_intervals(reply)
            found += part.intervals
            if not went_on("SENSOR_LIST_UPDATE_INTERVALS", len(part.intervals), part.remaining):
                return sensor.Intervals(part.segmented, found, 0)

    async def reading_get(self, sensor_id: int, *, poll: bool = False) -> list[sensor.Reading]:
        """One reading an axis, one in all for a sensor without axes."""
        payload = sensor.READING_GET.pack(sensor_id, 0)
        reply = await self.agent.do_xfer(self.protocol, Command.SENSOR_READING_GET, payload, poll=poll)
        return sensor.parse_readings(reply)

    async def reading_get_async(self, sensor_id: int, *, timeout: float | None = None) -> list[sensor.Reading]:
        """As :meth:`reading_get`, from the delayed response of a sensor that takes its time."""
        payload = sensor.READING_GET.pack(sensor_id, sensor.READ_ASYNC)
        reply = await self.agent.do_xfer_with_response(
            self.protocol, Command.SENSOR_READING_GET, payload, timeout=timeout
        )
        return sensor.parse_reading_complete(reply)[1]

    async def config_get(self, sensor_id: int, *, poll: bool = False) -> int:
        """The config word: CONFIG_ENABLE, CONFIG_TIMESTAMP, update interval."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.SENSOR_CONFIG_GET,
            sensor.SENSOR_ID.pack(sensor_id),
            expect=sensor.CONFIG_REPLY.size,
            poll=poll,
        )
        return int(unpack(sensor.CONFIG_REPLY, reply, "SENSOR_CONFIG_GET")[0])

    async def config_set(self, sensor_id: int, config: int, *, poll: bool = False) -> None:
        payload = sensor.CONFIG_SET.pack(sensor_id, config)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_CONFIG_SET, payload, expect=0, poll=poll)

    async def name_get(self, sensor_id: int, *, poll: bool = False) -> str:
        """The name where it is longer than the descriptor can hold."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.SENSOR_NAME_GET,
            sensor.SENSOR_ID.pack(sensor_id),
            expect=sensor.NAME_REPLY.size,
            poll=poll,
        )
        return sensor.parse_name(reply)

    async def trip_point_config(
        self, sensor_id: int, trip_point: int, value: int, direction: int = sensor.TRIP_BOTH, *, poll: bool = False
    ) -> None:
        """``direction``: TRIP_POSITIVE, TRIP_NEGATIVE, TRIP_BOTH or TRIP_DISABLED; ``value`` in the sensor's units."""
        control = direction | trip_point << sensor.TRIP_ID_SHIFT
        payload = sensor.TRIP_POINT_CONFIG.pack(sensor_id, control, value)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_TRIP_POINT_CONFIG, payload, expect=0, poll=poll)

    async def notify_trip_points(self, sensor_id: int, enable: bool, *, poll: bool = False) -> None:
        """SENSOR_TRIP_POINT_NOTIFY: have the platform send SENSOR_TRIP_POINT_EVENT of this sensor."""
        payload = sensor.NOTIFY.pack(sensor_id, enable)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_TRIP_POINT_NOTIFY, payload, expect=0, poll=poll)

    async def notify_updates(self, sensor_id: int, enable: bool, *, poll: bool = False) -> None:
        """SENSOR_CONTINUOUS_UPDATE_NOTIFY: have the platform send SENSOR_UPDATE of this sensor."""
        payload = sensor.NOTIFY.pack(sensor_id, enable)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_CONTINUOUS_UPDATE_NOTIFY, payload, expect=0, poll=poll)

    def on_trip_point(self, callback: Callback, sensor_id: int | None = None) -> None:
        """Hear of SENSOR_TRIP_POINT_EVENT; parse its payload with :func:`common.scmi.sensor.parse_trip_event`."""
        self.agent.on_notification(self.protocol, sensor.Notification.SENSOR_TRIP_POINT_EVENT, callback, sensor_id)

    def on_update(self, callback: Callback, sensor_id: int | None = None) -> None:
        """Hear of SENSOR_UPDATE; parse its payload with :func:`common.scmi.sensor.parse_update`."""
        self.agent.on_notification(self.protocol, sensor.Notification.SENSOR_UPDATE, callback, sensor_id)
