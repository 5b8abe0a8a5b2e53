"""The admin routes of hold points: names in, reports out, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from common.errors import RemoteError
from services.guest_driver.hold_routes import Held, HoldRequest, HoldRoutes, MapRequest
from tests.services.guest_driver.test_port_holds import RigDriver
from tests.services.vdpa_nic.nic_rig import Rig


class Two:
    """Two guests."""

    def __init__(self) -> None:
        self.rigs = [Rig().start(), Rig().start()]
        self.up = True
        self.routes = HoldRoutes(
            {
                f"guest{i}": Held(rig.port, RigDriver(rig), self.changer(rig), lambda: 4)
                for i, rig in enumerate(self.rigs)
            },
            lambda: self.up,
        )

    @staticmethod
    def changer(rig: Rig) -> Callable[[], Awaitable[None]]:
        async def change_map() -> None:
            rig.set_map()
            rig.settle()

        return change_map


async def test_a_hold_is_armed_reached_and_reported() -> None:
    two = Two()
    assert two.routes.state() == {"guest0": {}, "guest1": {}}
    state = two.routes.arm(HoldRequest(guest="guest1", store="saved", kick="created"))
    assert state["guest0"] == {}
    assert state["guest1"]["tx0"]["state"] == "armed"
    assert await two.routes.change_map(MapRequest("guest0")) == {"guest": "guest0"}
    assert two.routes.state() == state, "the other guest's map"
    await two.routes.change_map(MapRequest("guest1"))
    (report,) = two.routes.state()["guest1"].values()
    assert (report["state"], report["stored"], report["rang"]) == ("done", 1, True)
    assert [rig.ledger.rx for rig in two.rigs] == [0, 1]


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (HoldRequest(guest="guest2", store="saved", kick="saved"), "guest0, guest1"),
        (HoldRequest(guest="guest0", queue="rx0", store="saved", kick="saved"), "tx0, tx1, tx2, tx3"),
        (HoldRequest(guest="guest0", queue="tx4", store="saved", kick="saved"), "tx4"),
        (HoldRequest(guest="guest0", store="saved", kick="sometime"), "mkey_created"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(request_: HoldRequest, named: str) -> None:
    two = Two()
    with pytest.raises(RemoteError, match=named):
        two.routes.arm(request_)
    assert two.routes.state() == {"guest0": {}, "guest1": {}}


async def test_nothing_is_done_before_the_guests_are_up() -> None:
    two = Two()
    two.up = False
    with pytest.raises(RemoteError, match="not up yet"):
        two.routes.arm(HoldRequest(guest="guest0", store="saved", kick="saved"))
    with pytest.raises(RemoteError, match="not up yet"):
        await two.routes.change_map(MapRequest("guest0"))
    with pytest.raises(RemoteError, match="guest9"):
        await two.routes.change_map(MapRequest("guest9"))
