"""Bytes of the wire, word by word, as QEMU's docs/interop/vhost-user has them."""

from __future__ import annotations

import pytest

from common.errors import FrameError
from services.vhost_user import messages
from services.vhost_user.messages import Header, ProtocolFeature, Request, reply, request_name


def test_header_is_three_words() -> None:
    data = bytes.fromhex("0c000000 09000000 08000000".replace(" ", ""))  # SET_VRING_KICK, version 1 + NEED_REPLY, 8
    header = Header.parse(data)
    assert header == Header(Request.SET_VRING_KICK, 9, 8)
    assert header.need_reply
    assert not Header.parse(bytes.fromhex("010000000100000000000000")).need_reply


def test_reserved_flags_are_let_through() -> None:
    assert Header.parse(messages.HEADER.pack(1, 0xFFFF_FFF9, 0)).need_reply


@pytest.mark.parametrize(
    ("flags", "size", "field"),
    [
        (0, 0, "header.version"),
        (2, 0, "header.version"),
        (3, 0, "header.version"),
        (5, 0, "header.flags"),
        (1, 4097, "header.size"),
        (1, 0xFFFF_FFFF, "header.size"),
    ],
)
def test_bad_headers_end_the_connection(flags: int, size: int, field: str) -> None:
    with pytest.raises(FrameError) as caught:
        Header.parse(messages.HEADER.pack(1, flags, size))
    assert caught.value.field == field


def test_largest_payload_is_let_through() -> None:
    assert Header.parse(messages.HEADER.pack(1, 1, 4096)).size == 4096


def test_reply_has_version_and_reply_flag() -> None:
    assert reply(Request.GET_QUEUE_NUM, b"\x02" + bytes(7)) == bytes.fromhex(
        "11000000 05000000 08000000 0200000000000000".replace(" ", "")
    )


def test_sizes_of_payloads() -> None:
    layouts = (messages.U64, messages.VRING_STATE, messages.VRING_ADDR, messages.MEM_TABLE, messages.REGION)
    assert [s.size for s in layouts] == [8, 8, 40, 8, 32]
    assert (messages.MEM_REG.size, messages.CONFIG.size) == (40, 12)


def test_protocol_feature_bits() -> None:
    numbers = {"MQ": 0, "REPLY_ACK": 3, "CONFIG": 9, "RESET_DEVICE": 13, "CONFIGURE_MEM_SLOTS": 15, "STATUS": 16}
    assert {f.name: int(f).bit_length() - 1 for f in ProtocolFeature} == numbers
    assert sum(1 << n for n in numbers.values()) == messages.ALL_PROTOCOL_FEATURES


def test_request_numbers() -> None:
    assert [int(r) for r in Request] == list(range(1, 44))
    numbers = {"GET_VRING_BASE": 11, "SET_VRING_ENABLE": 18, "GET_CONFIG": 24, "RESET_DEVICE": 34, "GET_STATUS": 40}
    assert {name: int(Request[name]) for name in numbers} == numbers


def test_names_are_a_closed_set() -> None:
    assert (request_name(9), request_name(0), request_name(1 << 31)) == ("SET_VRING_ADDR", "unknown", "unknown")
