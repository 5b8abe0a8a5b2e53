"""Sensor protocol 0x15 from the agent's side (DEN0056E §4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import sensor
from common.scmi.fields import unpack
from common.scmi.sensor import Command
from services.guest_driver.notify_events import MAX_PAYLOAD, Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


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
        found, _ = await self.listed(
            Command.SENSOR_DESCRIPTION_GET,
            lambda skip: sensor.DESCRIPTION_GET.pack(skip),
            sensor.parse_descriptors,
            poll,
        )
        return found

    async def descriptor(self, sensor_id: int, *, poll: bool = False) -> sensor.Descriptor | None:
        """The descriptor of one sensor (ids are contiguous from 0, so they are indices); None where the platform has
        another one, or none, at that index."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.SENSOR_DESCRIPTION_GET, sensor.DESCRIPTION_GET.pack(sensor_id), poll=poll
        )
        part, _remaining = sensor.parse_descriptors(reply)
        return part[0] if part and part[0].id == sensor_id else None

    async def axes(self, sensor_id: int, *, poll: bool = False) -> list[sensor.Descriptor]:
        """Descriptors of the axes of one sensor."""
        found, _ = await self.listed(
            Command.SENSOR_AXIS_DESCRIPTION_GET,
            lambda skip: sensor.AXIS_GET.pack(sensor_id, skip),
            sensor.parse_axes,
            poll,
        )
        return found

    async def update_intervals(self, sensor_id: int, *, poll: bool = False) -> sensor.Intervals:
        return await self.listed(
            Command.SENSOR_LIST_UPDATE_INTERVALS,
            lambda skip: sensor.LIST_INTERVALS.pack(sensor_id, skip),
            sensor.parse_intervals,
            poll,
        )

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
        return await self.extended_name(Command.SENSOR_NAME_GET, sensor.SENSOR_ID.pack(sensor_id), poll)

    async def trip_point_config(
        self, sensor_id: int, trip_point: int, value: int, direction: int = sensor.TRIP_BOTH, *, poll: bool = False
    ) -> None:
        """``direction``: TRIP_POSITIVE, TRIP_NEGATIVE, TRIP_BOTH or TRIP_DISABLED; ``value`` in the sensor's units."""
        control = direction | trip_point << sensor.TRIP_ID_SHIFT
        payload = sensor.TRIP_POINT_CONFIG.pack(sensor_id, control, value)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_TRIP_POINT_CONFIG, payload, expect=0, poll=poll)

    async def notify_trip_points(self, sensor_id: int, enable: bool, *, poll: bool = False) -> None:
        """SENSOR_TRIP_POINT_NOTIFY: have the platform send SENSOR_TRIP_POINT_EVENT of this sensor.
        :meth:`on_trip_point` and :meth:`trip_points` send it where it is due."""
        payload = sensor.NOTIFY.pack(sensor_id, enable)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_TRIP_POINT_NOTIFY, payload, expect=0, poll=poll)

    async def notify_updates(self, sensor_id: int, enable: bool, *, poll: bool = False) -> None:
        """SENSOR_CONTINUOUS_UPDATE_NOTIFY: have the platform send SENSOR_UPDATE of this sensor. :meth:`on_update` and
        :meth:`updates` send it where it is due."""
        payload = sensor.NOTIFY.pack(sensor_id, enable)
        await self.agent.do_xfer(self.protocol, Command.SENSOR_CONTINUOUS_UPDATE_NOTIFY, payload, expect=0, poll=poll)

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.7, notifications. The sources are the sensors."""
        trip = Event(
            sensor.Notification.SENSOR_TRIP_POINT_EVENT,
            sensor.TRIP_POINT_EVENT.size,
            sensor.parse_trip_event,
            lambda report: int(report.sensor),
            self.notify_trip_points,
        )
        update = Event(
            sensor.Notification.SENSOR_UPDATE,
            MAX_PAYLOAD,
            sensor.parse_update,
            lambda report: int(report.sensor),
            self.notify_updates,
        )
        return ProtocolEvents(self.protocol, (trip, update), self._count)

    async def _count(self) -> int:
        return (await self.attributes()).sensors

    async def on_trip_point(self, handler: Handler, sensor_id: int | None = None) -> None:
        """Have ``handler`` hear of SENSOR_TRIP_POINT_EVENT of one sensor, or of all; its report is a
        :class:`common.scmi.sensor.TripEvent`."""
        event = sensor.Notification.SENSOR_TRIP_POINT_EVENT
        await self.agent.on_notification(self.protocol, event, handler, sensor_id)

    async def on_update(self, handler: Handler, sensor_id: int | None = None) -> None:
        """Have ``handler`` hear of SENSOR_UPDATE of one sensor, or of all that can; its report is a
        :class:`common.scmi.sensor.UpdateEvent`."""
        await self.agent.on_notification(self.protocol, sensor.Notification.SENSOR_UPDATE, handler, sensor_id)

    def trip_points(self, sensor_id: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """SENSOR_TRIP_POINT_EVENT of one sensor, or of all, to iterate over."""
        event = sensor.Notification.SENSOR_TRIP_POINT_EVENT
        return self.agent.notifications.stream(self.protocol, event, sensor_id, size=size)

    def updates(self, sensor_id: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """SENSOR_UPDATE of one sensor, or of all that can, to iterate over."""
        event = sensor.Notification.SENSOR_UPDATE
        return self.agent.notifications.stream(self.protocol, event, sensor_id, size=size)
