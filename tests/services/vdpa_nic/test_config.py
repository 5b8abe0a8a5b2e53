"""Settings of the NIC: defaults that fit the other services, and values that cannot be."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from services.vdpa_nic.config import DEFAULT_CAPTURE, NicConfig


def test_defaults() -> None:
    config = load(NicConfig, environ={})
    assert (config.listen.port, config.admin.port, config.its.port) == (7102, 9103, 7103)
    assert (config.device_id, config.queue_size, config.backend.kind) == (0x20, 1024, "echo")
    assert DEFAULT_CAPTURE.is_file()


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("QUEUE_SIZE", "100", "queue_size"),
        ("DEVICE_ID", "-1", "device_id"),
        ("BACKEND__KIND", "tap", "backend.kind"),
        ("BACKEND__RATE", "0", "backend.rate"),
        ("BACKEND__SPEED", "1", "backend.speed"),
    ],
)
def test_refused(name: str, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(NicConfig, environ={f"RINGMESH_{name}": text})
    assert caught.value.key == key
