"""What each profile reports."""

from __future__ import annotations

import pytest

from common.scmi.status import ProtocolId
from services.scmi_platform.boards.agent import ProfileName
from services.scmi_platform.profile import PROFILES
from services.scmi_platform.registry import ProtocolTable
from tests.services.scmi_platform.scmi_rig import HERE, Rig, words


def test_versions_up_to_the_profile() -> None:
    table = ProtocolTable(ProtocolId.CLOCK, (0x10000, 0x20000, 0x30000))
    assert PROFILES["scmi-2.0"].versions(table) == (0x10000,)
    assert PROFILES["scmi-3.2"].versions(table) == (0x10000, 0x20000, 0x30000)


def test_what_a_profile_does_not_know_is_not_served() -> None:
    assert PROFILES["scmi-2.0"].versions(ProtocolTable(ProtocolId.POWERCAP, (0x10000,))) == ()


def test_vendor_protocols_are_in_every_profile() -> None:
    table = ProtocolTable(0x80, (0x12345,))
    assert all(profile.versions(table) == (0x12345,) for profile in PROFILES.values())


def test_every_protocol_of_the_newest_profile() -> None:
    assert set(PROFILES["scmi-3.2"].newest) == set(ProtocolId)


REPORTED: list[tuple[ProfileName, dict[int, int]]] = [
    (
        "scmi-2.0",
        {0x10: 0x20000, 0x11: 0x20000, 0x12: 0x10000, 0x13: 0x20000, 0x14: 0x10000, 0x15: 0x10000, 0x16: 0x10000},
    ),
    (
        "scmi-3.2",
        {0x10: 0x20001, 0x11: 0x30001, 0x12: 0x20000, 0x13: 0x40000, 0x14: 0x30000}
        | {0x15: 0x30001, 0x16: 0x30001, 0x17: 0x20000, 0x18: 0x20000, 0x19: 0x10000},
    ),
]


@pytest.mark.parametrize(("profile", "versions"), REPORTED)
def test_what_a_platform_with_everything_reports(profile: ProfileName, versions: dict[int, int]) -> None:
    rig = Rig(HERE / "board_whole.toml", profile=profile)
    listed = rig.ask(0x10, 0x6, words(0))
    assert [0x10, *listed[8 : 8 + listed[4]]] == sorted(versions)
    for protocol, version in versions.items():
        assert rig.ask(protocol, 0x0) == words(0, version)
        negotiated = rig.ask(protocol, 0x10, words(version))
        assert negotiated == words(0 if profile == "scmi-3.2" else -1)
        # of the oldest release there is nothing that came later
        newest = max(row.since for key, row in rig.platform.commands(1).items() if key >> 10 == protocol)
        assert newest <= version


def test_protocols_that_a_profile_has_not() -> None:
    rig = Rig(HERE / "board_whole.toml", profile="scmi-2.0")
    for protocol in (0x17, 0x18, 0x19):
        assert rig.ask(protocol, 0x0) == words(-1)
    assert rig.ask(0x10, 0xA, words(1, 0, 0x17, 0), agent=2) == words(-4)
