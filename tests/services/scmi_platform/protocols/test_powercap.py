"""Powercap protocol, byte for byte (DEN0056E §4.10)."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from common.scmi import powercap
from services.scmi_platform.board import Board
from services.scmi_platform.protocols.powercap_state import PowercapState
from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

BOARD = HERE / "protocols" / "board_powercap.toml"
CAP = 0x18
SOC, CLUSTER, FIXED, NONE = 0, 1, 2, 3
OSPM, BOSS, VIEW = 1, 2, 3
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, BUSY, PROTOCOL_ERROR = -1, -2, -3, -4, -6, -10
LONG_NAME = b"a-zone-that-is-what-it-is"
ROOT = 0xFFFF_FFFF


def rig(p2a: bool = True) -> Rig:
    return Rig(BOARD, p2a=p2a)


SUCCESS = [
    (0x0, b"", words(0, 0x20000)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 3)),  # PROTOCOL_ATTRIBUTES: 3 domains (15:0)
    (0x2, words(0xC), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES: no fast channel
    # POWERCAP_DOMAIN_ATTRIBUTES: both notifications (31, 30), asynchronous caps (29), cap and monitoring and PAI
    # (27, 26, 25), microwatts (24:23 = 1); name; PAI and cap: lowest, highest, step; sustainable, accuracy, parent
    (
        0x3,
        words(SOC),
        words(0, 0xEE80_0000) + b"soc".ljust(16, b"\0") + words(1000, 9000, 2000, 1000, 5000, 100, 4000, 3, ROOT),
    ),
    # the PAI cannot be set, milliwatts (24:23 = 2)
    (
        0x3,
        words(CLUSTER),
        words(0, 0xCD00_0000) + b"cluster".ljust(16, b"\0") + words(10**6, 10**6, 0, 10, 20, 5, 0, 0, SOC),
    ),
    # caps may change (31) all the same, extended name (28); nothing can be set, there is no unit
    (0x3, words(FIXED), words(0, 0x9000_0000) + LONG_NAME[:15] + b"\0" + words(1, 1, 0, 7, 7, 0, 0, 0, CLUSTER)),
    (0x4, words(SOC), words(0, 0)),  # POWERCAP_CAP_GET: there is none
    (0x4, words(CLUSTER), words(0, 15)),
    (0x5, words(SOC, 0, 1000), words(0)),  # POWERCAP_CAP_SET: domain, flags, cap
    (0x5, words(SOC, 1, 5000), words(0)),  # "ignore delayed response" (0) means nothing when synchronous
    (0x5, words(SOC, 2, 5000), words(0)),  # asynchronous (1)
    (0x5, words(CLUSTER, 0, 0), words(0)),  # no cap
    (0x6, words(SOC), words(0, 5000)),  # POWERCAP_PAI_GET
    (0x7, words(SOC, 0, 9000), words(0)),  # POWERCAP_PAI_SET: domain, flags, interval
    (0x8, words(FIXED), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # POWERCAP_DOMAIN_NAME_GET: flags, name
    (0x9, words(SOC), words(0, 2000, 5000)),  # POWERCAP_MEASUREMENTS_GET: power, interval
    (0x9, words(CLUSTER), words(0, 15, 10**6)),  # it would draw 18, but is capped
    (0xA, words(SOC, 1), words(0)),  # POWERCAP_CAP_NOTIFY
    (0xA, words(FIXED, 0), words(0)),
    (0xB, words(SOC, 1, 1000, 2000), words(0)),  # POWERCAP_MEASUREMENTS_NOTIFY: domain, enable, low, high
    (0xB, words(SOC, 0, 0, 0), words(0)),
    (0x10, words(0x10000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0xD), NOT_FOUND),
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE), NOT_FOUND),
    (0x5, words(NONE, 0, 1000), NOT_FOUND),
    (0x5, words(SOC, 4, 1000), INVALID),  # reserved flag
    (0x5, words(SOC, 0, 999), INVALID),
    (0x5, words(SOC, 0, 5001), INVALID),
    (0x5, words(SOC, 2, 999), INVALID),
    (0x5, words(FIXED, 0, 7), NOT_SUPPORTED),
    (0x5, words(FIXED, 0, 0), NOT_SUPPORTED),
    (0x5, words(CLUSTER, 2, 10), NOT_SUPPORTED),  # not asynchronously
    (0x5, words(CLUSTER, 3, 10), NOT_SUPPORTED),
    (0x6, words(NONE), NOT_FOUND),
    (0x7, words(NONE, 0, 1000), NOT_FOUND),
    (0x7, words(SOC, 1, 1000), INVALID),  # all flags are reserved
    (0x7, words(SOC, 0, 999), INVALID),
    (0x7, words(SOC, 0, 9001), INVALID),
    (0x7, words(SOC, 0, 0), INVALID),
    (0x7, words(CLUSTER, 0, 10**6), NOT_SUPPORTED),
    (0x8, words(NONE), NOT_FOUND),
    (0x9, words(NONE), NOT_FOUND),
    (0x9, words(FIXED), NOT_SUPPORTED),
    (0xA, words(NONE, 1), NOT_FOUND),
    (0xA, words(SOC, 2), INVALID),  # reserved bits
    (0xB, words(NONE, 1, 0, 1), NOT_FOUND),
    (0xB, words(SOC, 2, 0, 1), INVALID),
    (0xB, words(SOC, 1, 2, 1), INVALID),  # low above high
    (0xB, words(FIXED, 1, 0, 1), NOT_SUPPORTED),
    (0xC, words(NONE, 0x4), NOT_FOUND),  # POWERCAP_DESCRIBE_FASTCHANNEL
    (0xC, words(SOC, 0x4), NOT_SUPPORTED),
    (0x10, words(0x30000), NOT_SUPPORTED),
    (0x5, words(SOC, 1000), PROTOCOL_ERROR),
    (0xB, words(SOC, 1), PROTOCOL_ERROR),
    (0xD, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert rig().ask(CAP, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert rig().ask(CAP, message, payload) == words(status)


@pytest.mark.parametrize("message", [0x4, 0x5, 0x6, 0x7, 0x9, 0xA, 0xB])
def test_denied_zone(message: int) -> None:
    made = rig()
    made.ask(0x10, 0x9, words(OSPM, 0, 0), agent=BOSS)  # device "soc" denied to agent 1
    payload = words(SOC, 0, 1000, 1000)[: {0x5: 12, 0x7: 12, 0xA: 8, 0xB: 16}.get(message, 4)]
    assert made.ask(CAP, message, payload) == words(DENIED)


# --- caps and intervals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(1000, 1000), (1099, 1000), (1100, 1100), (4999, 4900), (5000, 5000)])
def test_caps_are_rounded_down(asked: int, given: int) -> None:
    made = rig()
    assert made.ask(CAP, 0x5, words(SOC, 0, asked)) == words(0)
    assert made.ask(CAP, 0x4, words(SOC)) == words(0, given)


def test_intervals_are_rounded_down() -> None:
    made = rig()
    made.ask(CAP, 0x7, words(SOC, 0, 6999))
    assert made.ask(CAP, 0x6, words(SOC)) == words(0, 5000)
    made.ask(CAP, 0x7, words(SOC, 0, 7000))
    assert made.ask(CAP, 0x9, words(SOC)) == words(0, 2000, 7000)


def test_a_cap_holds_the_power() -> None:
    made = rig()
    made.now += 10.0
    assert made.ask(CAP, 0x9, words(SOC)) == words(0, 3000, 5000)
    made.ask(CAP, 0x5, words(SOC, 0, 2500))
    assert made.ask(CAP, 0x9, words(SOC)) == words(0, 2500, 5000)
    made.ask(CAP, 0x5, words(SOC, 0, 0))
    assert made.ask(CAP, 0x4, words(SOC)) == words(0, 0)
    assert made.ask(CAP, 0x9, words(SOC)) == words(0, 3000, 5000)


def test_cap_set_async() -> None:
    made = rig()
    assert made.ask(CAP, 0x5, words(SOC, 2, 1234)) == words(0)
    token = made.token
    assert made.ask(CAP, 0x4, words(SOC)) == words(0, 0)  # not yet
    made.advance(0.005)
    ((agent, head, payload),) = made.take()
    assert (agent, head.type, head.protocol, head.message, head.token) == (OSPM, 2, CAP, 0x5, token)
    assert payload == words(0, SOC, 1200)  # status, domain, cap now
    assert made.ask(CAP, 0x4, words(SOC)) == words(0, 1200)


def test_ignored_delayed_response_is_not_sent() -> None:
    made = rig()
    made.ask(CAP, 0x5, words(SOC, 3, 1000))
    made.advance(1.0)
    assert made.take() == []
    assert made.ask(CAP, 0x4, words(SOC)) == words(0, 1000)


def test_too_many_asynchronous_caps_are_busy() -> None:
    made = rig()
    replies = [made.ask(CAP, 0x5, words(SOC, 2, 1000)) for _ in range(9)]
    assert replies == [words(0)] * 8 + [words(BUSY)]


def test_an_asynchronous_cap_is_not_set_again_after_a_reset_of_the_service() -> None:
    made = rig()
    assert made.ask(CAP, 0x5, words(SOC, 2, 1000), again=True) == words(-7)
    assert made.ask(CAP, 0x5, words(SOC, 3, 1000), again=True) == words(0)
    assert made.ask(CAP, 0x5, words(SOC, 0, 1000), again=True) == words(0)


# --- notifications ----------------------------------------------------------------------------------------------------


def test_cap_changed() -> None:
    made = rig()
    made.ask(CAP, 0xA, words(SOC, 1))
    made.ask(CAP, 0x5, words(SOC, 0, 1000), agent=BOSS)
    ((agent, head, payload),) = made.take()
    assert (agent, head.type, head.protocol, head.message) == (OSPM, 3, CAP, 0x0)
    assert payload == words(BOSS, SOC, 1000, 5000)  # agent that set it, domain, cap, interval
    made.ask(CAP, 0x7, words(SOC, 0, 1000), agent=BOSS)
    made.ask(CAP, 0x7, words(SOC, 0, 1001), agent=BOSS)  # the same, rounded
    made.ask(CAP, 0x5, words(SOC, 0, 1001), agent=BOSS)
    assert [one for _, _, one in made.take()] == [words(BOSS, SOC, 1000, 1000)]
    made.ask(CAP, 0xA, words(SOC, 0))
    made.ask(CAP, 0x5, words(SOC, 0, 2000))
    assert made.take() == []


def test_measurements_changed() -> None:
    """The power is 2000 and rises by 100 a second; one look an interval at most, ten milliseconds at least."""
    made = rig()
    made.ask(CAP, 0xB, words(SOC, 1, 2050, 2150))
    made.ask(CAP, 0xB, words(SOC, 1, 0, 2250), agent=BOSS)
    made.advance(0.0)
    ((agent, head, payload),) = made.take()
    assert (agent, head.type, head.protocol, head.message) == (OSPM, 3, CAP, 0x1)
    assert payload == words(0, SOC, 2000)  # agent 0: the platform; domain, power: below the low threshold
    made.advance(0.1)
    assert made.take() == []  # still below
    made.advance(0.9)
    assert made.take() == []  # within
    made.advance(1.0)
    assert [(agent, payload) for agent, _, payload in made.take()] == [(OSPM, words(0, SOC, 2200))]
    made.advance(1.0)
    assert [(agent, payload) for agent, _, payload in made.take()] == [(BOSS, words(0, SOC, 2300))]
    made.ask(CAP, 0xB, words(SOC, 1, 0, 2000))  # other thresholds: a look as the first
    made.advance(1.0)
    assert [agent for agent, _, _ in made.take()] == [OSPM]
    made.ask(CAP, 0xB, words(SOC, 0, 0, 0))
    made.ask(CAP, 0xB, words(SOC, 0, 0, 0), agent=BOSS)
    assert made.advance(1.0) is None
    made.ask(CAP, 0xB, words(SOC, 1, 0, 2000))
    made.advance(1.0)
    assert [agent for agent, _, _ in made.take()] == [OSPM]


def test_how_often_it_looks() -> None:
    made = rig()
    assert made.advance(1.0) is None  # nobody listens
    made.ask(CAP, 0xB, words(SOC, 1, 0, 9999))
    assert made.advance(1.0) == pytest.approx(made.now + 0.01)  # an interval of 5 ms is too short
    made.ask(CAP, 0xB, words(SOC, 0, 0, 9999))
    made.ask(CAP, 0xB, words(CLUSTER, 1, 0, 14))
    assert made.advance(1.0) == pytest.approx(made.now + 1.0)
    assert made.take() != []
    made.ask(CAP, 0xB, words(CLUSTER, 1, 0, 13))
    assert made.advance(0.5) == pytest.approx(made.now + 0.5)  # the look that was due sooner stays
    assert made.take() == []
    made.ask(CAP, 0xB, words(CLUSTER, 1, 0, 14))
    made.advance(0.5)
    assert len(made.take()) == 1


def test_an_interval_that_becomes_shorter_is_looked_at_sooner() -> None:
    made = rig()
    made.platform.protocols[CAP].load(SOC, PowercapState(0, 9000, 0, OSPM, {}))
    made.ask(CAP, 0xB, words(SOC, 1, 0, 9999))
    first = made.advance(1.0)
    made.ask(CAP, 0x7, words(SOC, 0, 1000))
    assert made.platform.tick(made.now) == first == pytest.approx(made.now + 0.01)


def test_an_agents_view() -> None:
    made = rig()
    assert made.ask(CAP, 0x1, agent=VIEW) == words(0, 1)
    about = powercap.parse_domain_attributes(made.ask(CAP, 0x3, words(0), agent=VIEW)[4:])
    assert (about.name, about.parent) == ("cluster", None)  # it does not see the parent
    for message, payload in ((0xA, words(0, 1)), (0xB, words(0, 1, 0, 1))):
        assert made.ask(CAP, message, payload, agent=VIEW) == words(0)
    made.ask(CAP, 0x5, words(CLUSTER, 0, 10))
    made.advance(1.0)
    assert [payload for _, _, payload in made.take()] == [words(OSPM, 0, 10, 10**6), words(0, 0, 10)]
    assert made.ask(CAP, 0x4, words(1), agent=VIEW) == words(NOT_FOUND)


def test_without_p2a() -> None:
    made = rig(p2a=False)
    assert made.ask(CAP, 0x3, words(SOC))[4:8] == words(0x0E80_0000)  # no notifications, nothing asynchronous
    assert made.ask(CAP, 0x5, words(SOC, 2, 1000)) == words(NOT_SUPPORTED)
    assert made.ask(CAP, 0x5, words(SOC, 3, 1000)) == words(0)  # nothing has to come back
    for message, payload in ((0xA, words(SOC, 1)), (0xB, words(SOC, 1, 0, 1))):
        assert made.ask(CAP, message, payload) == words(NOT_SUPPORTED)
        assert made.ask(CAP, 0x2, words(message)) == words(NOT_FOUND)


def test_version_one() -> None:
    made = rig()
    made.ask(CAP, 0x10, words(0x10000))
    assert made.ask(CAP, 0x5, words(SOC, 0, 0)) == words(INVALID)  # caps cannot be switched off
    assert made.ask(CAP, 0xC, words(SOC, 0x4)) == words(NOT_SUPPORTED)
    assert made.ask(CAP, 0x2, words(0xC)) == words(NOT_FOUND)
    assert made.ask(CAP, 0x5, words(SOC, 0, 0), agent=BOSS) == words(0)


# --- resets and restarts ----------------------------------------------------------------------------------------------


def test_reset_of_an_agent() -> None:
    made = rig()
    made.ask(CAP, 0x5, words(SOC, 0, 1000))
    made.ask(CAP, 0x7, words(SOC, 0, 1000), agent=BOSS)
    made.ask(CAP, 0xB, words(SOC, 1, 0, 1))
    made.ask(CAP, 0xA, words(SOC, 1), agent=BOSS)
    made.platform.reset_agent(OSPM)
    assert [payload for _, _, payload in made.take()] == [words(OSPM, SOC, 0, 1000)]
    made.ask(CAP, 0xA, words(SOC, 1))
    made.platform.reset_agent(BOSS)
    assert [payload for _, _, payload in made.take()] == [words(BOSS, SOC, 0, 5000)]
    assert made.advance(1.0) is None
    assert made.platform.protocols[CAP].save(SOC) is None


def test_what_a_reset_puts_back_is_saved() -> None:
    made = rig()
    for message, payload in ((0x5, words(SOC, 0, 1000)), (0x7, words(SOC, 0, 1000))):
        made.ask(CAP, message, payload)
        made.platform.touched.clear()
        made.platform.reset_agent(OSPM)
        assert (CAP, SOC) in made.platform.touched


def test_reset_forgets_thresholds() -> None:
    made = rig()
    made.ask(CAP, 0xB, words(CLUSTER, 1, 0, 1))
    made.ask(CAP, 0xA, words(CLUSTER, 1), agent=BOSS)
    made.platform.touched.clear()
    made.platform.reset_agent(OSPM)
    assert (CAP, CLUSTER) in made.platform.touched
    assert made.platform.protocols[CAP].save(CLUSTER) is None
    assert made.take() == []


def test_saved_and_loaded() -> None:
    made, again = rig(), rig()
    server = made.platform.protocols[CAP]
    assert [server.save(number) for number in server.saved()] == [None, None, None]
    made.platform.touched.clear()
    made.ask(CAP, 0x5, words(SOC, 0, 1000))
    assert made.platform.touched == {(CAP, SOC)}
    made.ask(CAP, 0x7, words(SOC, 0, 3000), agent=BOSS)
    made.ask(CAP, 0xB, words(SOC, 1, 7, 8), agent=BOSS)
    state = server.save(SOC)
    assert state == PowercapState(1000, 3000, OSPM, BOSS, {BOSS: (7, 8)})
    again.ask(CAP, 0xA, words(SOC, 1))
    loaded = again.platform.protocols[CAP]
    loaded.load(SOC, state)
    assert again.take() == []
    assert again.ask(CAP, 0x4, words(SOC)) == words(0, 1000)
    assert again.ask(CAP, 0x9, words(SOC)) == words(0, 1000, 3000)
    assert loaded.save(SOC) == state
    loaded.load(SOC, PowercapState(0, 1000, OSPM, 0, {}))
    loaded.load(FIXED, PowercapState(7, 1, 0, 0, {BOSS: (0, 0)}))


def test_a_subscription_without_thresholds_is_silent() -> None:
    """A snapshot may have one and not the other."""
    made = rig()
    made.platform.subscribe(made.platform.agents[OSPM], CAP, 0x1, SOC, True)
    made.advance(1.0)
    assert made.take() == []


@pytest.mark.parametrize(
    ("zone", "state", "field"),
    [
        (SOC, PowercapState(999, 1000, 1, 1, {}), "cap"),
        (SOC, PowercapState(1050, 1000, 1, 1, {}), "cap"),
        (FIXED, PowercapState(0, 1, 1, 1, {}), "cap"),
        (FIXED, PowercapState(8, 1, 1, 1, {}), "cap"),
        (SOC, PowercapState(1000, 2000, 1, 1, {}), "pai"),
        (SOC, PowercapState(1000, 0, 1, 1, {}), "pai"),
        (SOC, PowercapState(1000, 1000, 1, 1, {1: (2, 1)}), "thresholds"),
        (SOC, PowercapState(1000, 1000, 1, 1, {1: (-1, 1)}), "thresholds"),
        (SOC, PowercapState(1000, 1000, 1, 1, {1: (0, 1 << 32)}), "thresholds"),
    ],
)
def test_what_does_not_fit_the_board_is_not_loaded(zone: int, state: PowercapState, field: str) -> None:
    made = rig()
    with pytest.raises(RemoteError) as refused:
        made.platform.protocols[CAP].load(zone, state)
    assert refused.value.field == field
    assert made.platform.protocols[CAP].save(zone) is None


def test_not_served_without_zones() -> None:
    board = Board.parse('[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n')
    assert not rig().platform.protocols[CAP].present(board)
