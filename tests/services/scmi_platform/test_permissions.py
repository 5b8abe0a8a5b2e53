"""What BASE_SET_DEVICE_PERMISSIONS and BASE_SET_PROTOCOL_PERMISSIONS take away and give back (DEN0056E §4.2.2), in
every protocol that has domains (board_whole.toml)."""

from __future__ import annotations

import pytest

from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

WHOLE = HERE / "board_whole.toml"
BASE, POWER, SYSTEM, PERFORMANCE, CLOCK, SENSOR, RESET, VOLTAGE, POWERCAP, PIN_CONTROL = range(0x10, 0x1A)
NOT_SUPPORTED, DENIED, NOT_FOUND = -1, -3, -4
ALL, BOSS, VIEW, FEW = 1, 2, 3, 4
CPU, GPU, NOTHING, SHARES = range(4)
DENY, ALLOW = 0, 1

Kind = tuple[int, int, tuple[int, ...], int, int | None, int]
#: A command that only who may use the domain may give: protocol, message, what follows the domain; then the domain of
#: device "cpu", what agent VIEW calls it (None: it does not see it), and a domain that is not of "cpu".
KINDS: list[Kind] = [
    (POWER, 0x5, (), 0, None, 1),  # POWER_STATE_GET
    (PERFORMANCE, 0x8, (), 0, 1, 1),  # PERFORMANCE_LEVEL_GET
    (CLOCK, 0x6, (), 0, 1, 1),  # CLOCK_RATE_GET
    (SENSOR, 0x6, (0,), 0, 1, 1),  # SENSOR_READING_GET
    (RESET, 0x5, (1,), 1, 0, 0),  # RESET_NOTIFY
    (VOLTAGE, 0x8, (), 0, None, 1),  # VOLTAGE_LEVEL_GET
    (POWERCAP, 0x4, (), 1, 0, 0),  # POWERCAP_CAP_GET
]
PROTOCOLS = [kind[0] for kind in KINDS]


def permit(rig: Rig, agent: int, device: int, flags: int, protocol: int = 0) -> None:
    """By the agent that may."""
    payload = words(agent, device, protocol, flags) if protocol else words(agent, device, flags)
    assert rig.ask(BASE, 0xA if protocol else 0x9, payload, agent=BOSS) == words(0)


def use(rig: Rig, kind: Kind, number: int, agent: int = ALL) -> int:
    protocol, message, rest, *_ = kind
    return int.from_bytes(rig.ask(protocol, message, words(number, *rest), agent=agent)[:4], "little", signed=True)


def listed(rig: Rig, agent: int) -> list[int]:
    """What the agent discovers; the count of PROTOCOL_ATTRIBUTES says the same."""
    reply = rig.ask(BASE, 0x6, words(0), agent=agent)
    count = reply[4]
    assert rig.ask(BASE, 0x1, agent=agent)[4] == count
    return list(reply[8 : 8 + count])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: hex(kind[0]))
def test_a_device_takes_its_domains_along(kind: Kind) -> None:
    rig = Rig(WHOLE)
    *_, domain, own, other = kind
    assert use(rig, kind, domain) == 0
    permit(rig, ALL, CPU, DENY)
    permit(rig, ALL, CPU, DENY)  # twice is as good as once
    assert use(rig, kind, domain) == DENIED
    assert use(rig, kind, other) == 0
    if own is not None:
        assert use(rig, kind, own, agent=VIEW) == 0  # another agent
        permit(rig, VIEW, CPU, DENY)
        assert use(rig, kind, own, agent=VIEW) == DENIED  # by its own number
    permit(rig, ALL, CPU, ALLOW)
    assert use(rig, kind, domain) == 0


@pytest.mark.parametrize("denied", PROTOCOLS)
def test_a_protocol_of_a_device(denied: int) -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, CPU, DENY, denied)
    assert [kind[0] for kind in KINDS if use(rig, kind, kind[3]) == DENIED] == [denied]
    permit(rig, ALL, CPU, ALLOW, denied)
    assert all(use(rig, kind, kind[3]) == 0 for kind in KINDS)


def test_what_belongs_to_no_device_cannot_be_denied() -> None:
    rig = Rig(WHOLE)
    for device in (CPU, GPU, NOTHING, SHARES):
        permit(rig, ALL, device, DENY)
    assert rig.ask(CLOCK, 0x6, words(3)) == words(0, 2, 1)
    assert rig.ask(SENSOR, 0x9, words(2)) == words(0, 0)
    for protocol in (SYSTEM, PIN_CONTROL):  # they have no domains
        permit(rig, ALL, CPU, DENY, protocol)
        assert rig.ask(protocol, 0x0)[:4] == words(0)


def test_a_device_without_domains_is_a_device() -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, NOTHING, DENY)
    assert all(use(rig, kind, kind[3]) == 0 for kind in KINDS)


def test_a_domain_of_two_devices_needs_both() -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, SHARES, DENY)
    assert rig.ask(CLOCK, 0x6, words(0)) == words(DENIED)
    permit(rig, ALL, CPU, DENY)
    permit(rig, ALL, SHARES, ALLOW)
    assert rig.ask(CLOCK, 0x6, words(0)) == words(DENIED)
    permit(rig, ALL, CPU, ALLOW)
    assert rig.ask(CLOCK, 0x6, words(0))[:4] == words(0)


def test_device_and_protocol_are_two_permissions() -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, CPU, DENY)
    permit(rig, ALL, CPU, ALLOW, CLOCK)
    assert rig.ask(CLOCK, 0x6, words(0)) == words(DENIED)  # the device is still denied
    permit(rig, ALL, CPU, DENY, SENSOR)
    permit(rig, ALL, CPU, ALLOW)  # in every protocol
    assert rig.ask(CLOCK, 0x6, words(0))[:4] == words(0)
    assert rig.ask(SENSOR, 0x6, words(0, 0))[:4] == words(0)


def test_a_protocol_with_nothing_left_is_gone() -> None:
    """Not discovered, and DENIED in every command, as Arm's conformance suite has it (test_b012, test_b014)."""
    rig = Rig(WHOLE)
    before = listed(rig, ALL)
    assert before == [*range(POWER, PIN_CONTROL + 1)]
    permit(rig, ALL, CPU, DENY, RESET)
    assert listed(rig, ALL) == before
    permit(rig, ALL, GPU, DENY, RESET)
    assert listed(rig, ALL) == [one for one in before if one != RESET]
    assert listed(rig, BOSS) == before
    for message, payload in ((0x0, b""), (0x1, b""), (0x2, words(3)), (0x3, words(0)), (0x5, words(0, 1))):
        assert rig.ask(RESET, message, payload) == words(DENIED)
    assert rig.ask(RESET, 0x7F) == words(NOT_SUPPORTED)  # there is none in any case
    permit(rig, ALL, GPU, ALLOW, RESET)
    assert listed(rig, ALL) == before
    assert rig.ask(RESET, 0x0) == words(0, 0x30001)


def test_what_an_agent_does_not_see_counts_for_nothing() -> None:
    rig = Rig(WHOLE)
    assert RESET in listed(rig, VIEW)
    permit(rig, VIEW, CPU, DENY, RESET)  # of the reset domains it sees "uart" alone
    assert RESET not in listed(rig, VIEW)


def test_agents_with_protocols_of_their_own() -> None:
    rig = Rig(WHOLE)
    assert listed(rig, FEW) == [SYSTEM, CLOCK, SENSOR]
    permit(rig, FEW, CPU, DENY, RESET)  # it has none
    assert rig.ask(RESET, 0x0, agent=FEW) == words(NOT_SUPPORTED)
    permit(rig, FEW, CPU, DENY, CLOCK)
    assert rig.ask(CLOCK, 0x6, words(0), agent=FEW) == words(DENIED)
    assert listed(rig, FEW) == [SYSTEM, CLOCK, SENSOR]


def test_notifications_stop_and_go_on() -> None:
    """The specification does not say what becomes of a subscription; hearing of a domain is using it."""
    rig = Rig(WHOLE)
    for agent in (ALL, FEW):
        assert rig.ask(CLOCK, 0x9, words(2, 1), agent=agent) == words(0)
    permit(rig, ALL, GPU, DENY)
    rig.ask(CLOCK, 0x5, words(0, 2, 200, 0), agent=BOSS)
    assert [agent for agent, _, _ in rig.take()] == [FEW]
    assert rig.ask(CLOCK, 0x9, words(2, 0)) == words(DENIED)
    permit(rig, ALL, GPU, ALLOW)
    rig.ask(CLOCK, 0x5, words(0, 2, 100, 0), agent=BOSS)
    assert [agent for agent, _, _ in rig.take()] == [ALL, FEW]


def test_what_was_begun_ends() -> None:
    rig = Rig(WHOLE)
    assert rig.ask(CLOCK, 0x5, words(1, 2, 200, 0)) == words(0)
    permit(rig, ALL, GPU, DENY)
    rig.advance(1.0)
    assert [payload for _, head, payload in rig.take() if head.type == 2] == [words(0, 2, 200, 0)]
    assert rig.ask(CLOCK, 0x6, words(2)) == words(DENIED)


def test_a_reset_gives_back_what_it_is_told_to() -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, CPU, DENY)
    permit(rig, ALL, GPU, DENY, RESET)
    permit(rig, VIEW, CPU, DENY)
    assert rig.ask(BASE, 0xB, words(ALL, 0), agent=BOSS) == words(0)
    assert RESET not in listed(rig, ALL)
    assert rig.ask(BASE, 0xB, words(ALL, 1), agent=BOSS) == words(0)
    assert RESET in listed(rig, ALL)
    assert all(use(rig, kind, kind[3]) == 0 for kind in KINDS)
    assert rig.ask(CLOCK, 0x6, words(1), agent=VIEW) == words(DENIED)  # another agent's stand


def test_only_trusted_agents_permit() -> None:
    rig = Rig(WHOLE)
    permit(rig, ALL, CPU, DENY)
    for agent in (ALL, VIEW, FEW):
        assert rig.ask(BASE, 0x9, words(ALL, CPU, ALLOW), agent=agent) == words(DENIED)
        assert rig.ask(BASE, 0xA, words(ALL, CPU, CLOCK, ALLOW), agent=agent) == words(DENIED)
    assert rig.ask(CLOCK, 0x6, words(0)) == words(DENIED)
