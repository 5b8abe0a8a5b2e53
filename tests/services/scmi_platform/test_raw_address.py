"""``tcp:HOST:PORT`` and ``unix:/path``."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.raw_address import MAX_PATH, RawAddress, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:127.0.0.1:7190", RawAddress("127.0.0.1", 7190)),
        ("tcp:localhost:0", RawAddress("localhost", 0)),
        ("tcp:[::1]:65535", RawAddress("::1", 65535)),
        ("unix:/run/ringmesh/raw:1", RawAddress(path="/run/ringmesh/raw:1")),
        ("unix:/" + "x" * (MAX_PATH - 1), RawAddress(path="/" + "x" * (MAX_PATH - 1))),
    ],
)
def test_addresses(text: str, address: RawAddress) -> None:
    assert parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "7190", "127.0.0.1:7190", "tcp:", "tcp:7190", "tcp:127.0.0.1", "tcp::7190", "tcp:127.0.0.1:", "tcp:h:65536",
        "tcp:h:-1", "tcp:h:x", "tcp:h:1/x", "tcp:u@h:1", "tcp:[::1:1", "udp:h:1", "unix", "unix:", "unix:raw.sock",
        "unix:/" + "x" * MAX_PATH, "unix:/é" + "x" * (MAX_PATH - 2), "unix:/a\0b", "tcp:h\n:1",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"raw\.listen"):
        parse(text)
