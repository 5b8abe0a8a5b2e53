"""struct virtio_net_config, virtio 1.3 §5.1.4, byte by byte."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.virtio.features import Feature, mask
from common.virtio.net_config import (
    DUPLEX_FULL,
    DUPLEX_UNKNOWN,
    FIELDS,
    SPEED_UNKNOWN,
    Field,
    NetConfig,
    pack,
    parse,
)
from tests.common.virtio.ringkit import PROFILE

MAC = bytes.fromhex("02524d000001")
EVERYTHING = mask(*Feature)
CONFIG = NetConfig(MAC, 3, 4, 9000, 25_000, DUPLEX_FULL, 40, 128, 0x3F, 0x7)


def changed(name: str, value: Any) -> NetConfig:
    return replace(CONFIG, **{name: value})


def test_the_whole_layout() -> None:
    space = pack(CONFIG, EVERYTHING)
    want = "02524d000001 0300 0400 2823 a8610000 01 28 8000 3f000000 07000000"
    assert space == bytes.fromhex(want)
    assert parse(space, EVERYTHING) == CONFIG


def test_fields_do_not_overlap_and_leave_no_gap() -> None:
    assert FIELDS[0].offset == 0
    for before, after in pairwise(FIELDS):
        assert before.end == after.offset


def test_the_space_ends_with_the_last_field_that_exists() -> None:
    assert pack(CONFIG, 0) == bytes(6), "mac always exists, but it is not valid"
    assert pack(CONFIG, mask(Feature.NET_MAC)) == MAC
    assert pack(CONFIG, mask(Feature.NET_MAC, Feature.NET_STATUS)) == MAC + b"\3\0"
    assert pack(CONFIG, mask(Feature.NET_MTU)) == bytes(10) + b"\x28\x23", "offsets are fixed"
    assert pack(CONFIG, mask(Feature.NET_MQ)) == bytes(8) + b"\4\0"
    assert pack(CONFIG, mask(Feature.NET_RSS))[8:10] == b"\4\0", "either feature makes it exist"
    assert len(pack(CONFIG, mask(Feature.NET_SPEED_DUPLEX))) == 17


@PROFILE
@given(st.sets(st.sampled_from([f for f in Feature if f.name.startswith("NET_")])))
def test_what_is_packed_is_parsed_by_whoever_negotiated_it(features: set[Feature]) -> None:
    bits = mask(*features)
    space = pack(CONFIG, EVERYTHING)
    default = NetConfig()
    want = {row.name: getattr(CONFIG if row.features & bits else default, row.name) for row in FIELDS}
    assert parse(space, bits) == parse(pack(CONFIG, bits), bits) == NetConfig(**want)


def test_defaults_are_those_of_a_driver_that_knows_nothing() -> None:
    known = parse(b"", 0)
    assert known == NetConfig()
    assert (known.link_up, known.announce, known.max_virtqueue_pairs) == (True, False, 1)
    assert (known.speed, known.duplex) == (SPEED_UNKNOWN, DUPLEX_UNKNOWN)


def test_status_bits() -> None:
    assert not NetConfig(status=0).link_up
    assert NetConfig(status=2).announce
    assert not NetConfig(status=2).link_up


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_space_that_is_too_short_is_refused(field: Field) -> None:
    space = pack(CONFIG, EVERYTHING)[: field.end - 1]
    with pytest.raises(RemoteError) as caught:
        parse(space, field.features)
    assert (caught.value.field, caught.value.value, caught.value.limit) == (
        f"config.{field.name}",
        field.end - 1,
        field.end,
    )


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [("max_virtqueue_pairs", 0, 1), ("max_virtqueue_pairs", 0x8001, 0x8000), ("mtu", 67, 68)],
)
def test_values_that_no_device_may_have(name: str, value: int, limit: int) -> None:
    space = pack(changed(name, value), EVERYTHING)
    with pytest.raises(RemoteError) as caught:
        parse(space, EVERYTHING)
    assert (caught.value.field, caught.value.value, caught.value.limit) == (f"config.{name}", value, limit)
    assert parse(space, mask(Feature.NET_MAC)).mac == MAC, "what was not negotiated is not looked at"


@pytest.mark.parametrize(("name", "value"), [("max_virtqueue_pairs", 0x8000), ("mtu", 68), ("mtu", 65535)])
def test_values_at_the_limit(name: str, value: int) -> None:
    assert getattr(parse(pack(changed(name, value), EVERYTHING), EVERYTHING), name) == value


def test_unheard_of_speed_and_duplex_are_unknown() -> None:
    """§5.1.4.2"""
    odd = parse(pack(replace(CONFIG, speed=0x8000_0000, duplex=2), EVERYTHING), EVERYTHING)
    assert (odd.speed, odd.duplex) == (SPEED_UNKNOWN, DUPLEX_UNKNOWN)
    edge = parse(pack(replace(CONFIG, speed=0x7FFF_FFFF, duplex=0), EVERYTHING), EVERYTHING)
    assert (edge.speed, edge.duplex) == (0x7FFF_FFFF, 0)


def test_table_and_class_name_the_same_fields() -> None:
    assert [row.name for row in FIELDS] == [field.name for field in fields(NetConfig)]
