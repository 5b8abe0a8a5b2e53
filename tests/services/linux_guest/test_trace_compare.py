"""The guest's messages and the platform's, paired."""

from __future__ import annotations

from services.linux_guest.ftrace import MessageDump
from services.linux_guest.trace_compare import compare, describe, once, tally, title


def dump(
    tag: str, token: int, payload: bytes = b"", status: int = 0, protocol: int = 0x15, message: int = 6
) -> MessageDump:
    return MessageDump(0.0, 0, "t-1", protocol, message, token, 0, 0x10, tag, status, payload)


def both(token: int, request: bytes, reply: bytes) -> list[MessageDump]:
    return [dump("CMND", token, request), dump("RESP", token, reply)]


def test_equal_traces_agree_in_any_order_of_commands() -> None:
    one, other = both(1, b"a", b"x"), both(2, b"b", b"y")
    result = compare([one[0], other[0], other[1], one[1]], [*one, *other])
    assert result.equal
    assert [(mine.token, mine.tag) for mine, _ in result.pairs] == [(1, "CMND"), (2, "CMND"), (2, "RESP"), (1, "RESP")]
    assert result.lines() == []


def test_a_token_that_comes_again_pairs_with_its_own() -> None:
    first, second = both(1, b"a", b"x"), both(1, b"b", b"y")
    assert compare([*first, *second], [*first, *second]).equal
    assert len(compare([*first, *second], [*second, *first]).differences) == 4


def test_other_bytes_and_another_status_are_told() -> None:
    result = compare([dump("RESP", 1, b"\x01")], [dump("RESP", 1, b"\x02", status=-3)])
    assert not result.equal
    assert result.lines() == [
        "RESP SENSOR_READING_GET #1: status 0 in the guest, -3 in the platform",
        "RESP SENSOR_READING_GET #1: 01 in the guest, 02 in the platform",
    ]
    assert compare([dump("CMND", 1)], [dump("CMND", 1, b"\x02")]).lines() == [
        "CMND SENSOR_READING_GET #1: nothing in the guest, 02 in the platform"
    ]


def test_what_only_one_has() -> None:
    result = compare([dump("CMND", 1), dump("RESP", 9)], [dump("CMND", 1), dump("RESP", 1)])
    assert [one.token for one in result.only_guest] == [9]
    assert [one.token for one in result.only_platform] == [1]
    assert result.lines() == [
        "only the guest has RESP SENSOR_READING_GET #9",
        "only the platform has RESP SENSOR_READING_GET #1",
    ]


def test_raw_mode_and_what_was_thrown_away_pair_too() -> None:
    platform = [dump("CMND", 1, b"a"), dump("RESP", 1, b"x"), dump("RESP", 2, b"late")]
    guest = [dump("cmnd", 1, b"a"), dump("resp", 1, b"x"), dump("!RESP", 2, b"", status=-1)]
    assert compare(guest, platform).equal


def test_notifications_pair_in_order_whatever_their_token() -> None:
    guest = [dump("NOTI", 3, b"1", message=0), dump("NOTI", 4, b"2", message=0)]
    platform = [dump("NOTI", 0, b"1", message=0), dump("NOTI", 0, b"2", message=0)]
    assert compare(guest, platform).equal
    assert not compare(guest, platform[::-1]).equal


def test_a_polled_reply_that_the_interrupt_brought_counts_once() -> None:
    request, reply = both(1, b"a", b"x")
    assert once([request, reply, reply]) == [request, reply]
    assert once([request, reply, request, reply]) == [request, reply, request, reply]
    late = dump("!RESP", 1)
    assert once([request, reply, late]) == [request, reply, late]


def test_the_parts_of_a_long_list_share_a_token() -> None:
    """And the second reply may be written down before its command."""
    first, second = both(1, b"a", b"x"), both(1, b"b", b"y")
    guest = [*first, second[1], second[0]]
    assert once(guest) == guest
    assert compare(guest, [*first, *second]).equal


def test_a_reply_over_its_command_is_no_difference() -> None:
    """Linux's two buffers of a transfer are one."""
    request, reply = bytes(8), bytes.fromhex("20651100")
    platform = both(1, request, reply)
    result = compare([dump("CMND", 1, reply + bytes(4)), platform[1]], platform)
    assert result.equal
    assert result.overwritten == 1
    assert not compare([dump("CMND", 1, reply + b"\1" * 4), platform[1]], platform).equal
    assert not compare([dump("CMND", 1, reply + bytes(4))], platform[:1]).equal
    longer = both(2, b"\0\0", b"\1\2\3")
    assert compare([dump("CMND", 2, b"\1\2"), longer[1]], longer).overwritten == 1
    assert compare(platform, platform).overwritten == 0


def test_names() -> None:
    assert describe(dump("DLYD", 5)) == "DLYD SENSOR_READING_COMPLETE #5"
    assert title(0x14, 0x1) == "14 PROTOCOL_ATTRIBUTES"
    assert tally([dump("CMND", 1), dump("RESP", 1), dump("CMND", 2)]) == {"CMND": 2, "RESP": 1}
