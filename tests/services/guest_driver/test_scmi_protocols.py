"""The clients that are made when they are asked for."""

from __future__ import annotations

from services.guest_driver.scmi_client import ProtocolClient
from services.guest_driver.scmi_protocols import ProtocolClients
from services.scmi_cli.views import VIEWS
from tests.services.guest_driver.scmi_loop import Loop


async def test_every_protocol_has_its_property() -> None:
    loop = Loop()
    made = [getattr(loop.agent, name) for name, one in vars(ProtocolClients).items() if isinstance(one, property)]
    assert all(isinstance(one, ProtocolClient) and one.agent is loop.agent for one in made)
    held = [loop.agent.base, loop.agent.clock, loop.agent.sensor]
    assert {one.protocol for one in made + held} == {one.protocol for one in ProtocolClient.__subclasses__()}
    await loop.world.close()


async def test_all_notifications_are_registered() -> None:
    loop = Loop()
    tables = loop.agent.event_tables()
    events = {(table.protocol, event.event) for table in tables for event in table.events}
    assert {(view.protocol, one.number) for view in VIEWS for one in view.events} <= events
    assert len({table.protocol for table in tables}) == len(tables)
    await loop.world.close()


def test_no_client_is_kept() -> None:
    assert ProtocolClients.__slots__ == ()
