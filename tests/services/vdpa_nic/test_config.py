"""Settings of the NIC: defaults that fit the other services, and values that cannot be."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from services.vdpa_nic.config import DEFAULT_CAPTURE, NicConfig

FIRMWARE = ("READ_AT_CREATE", "READ_AT_KICK", "REPLAY_KICK")


def test_defaults() -> None:
    config = load(NicConfig, environ={})
    assert (config.listen.port, config.admin.port, config.its.port) == (7102, 9103, 7103)
    assert (config.device_id, config.queue_size, config.backend.kind) == (0x20, 1024, "echo")
    backend = config.backend
    assert (backend.pace, backend.rate, backend.speed, backend.record) == ("rate", 1000.0, 1.0, "")
    assert DEFAULT_CAPTURE.is_file()
    assert (config.queue_pairs, config.mtu) == (4, 1500)
    assert config.firmware.policy == DEFAULT_POLICY, "what strands no buffer"


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("READ_AT_CREATE", PortPolicy.READ_AT_CREATE),
        ("READ_AT_KICK", PortPolicy.READ_AT_KICK),
        ("REPLAY_KICK", PortPolicy.REPLAY_KICK),
    ],
)
def test_switches_of_the_firmware(name: str, bit: PortPolicy, on: bool) -> None:
    others = {f"RINGMESH_FIRMWARE__{other}": str(not on).lower() for other in FIRMWARE if other != name}
    config = load(NicConfig, environ=others | {f"RINGMESH_FIRMWARE__{name}": str(on).lower()})
    all_of_them = PortPolicy.READ_AT_CREATE | PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK
    assert config.firmware.policy == (bit if on else all_of_them & ~bit)


def test_a_back_end() -> None:
    names = {"KIND": "switch", "PACE": "capture", "SPEED": "2.5", "RECORD": "/tmp/x.pcapng", "RECORD_LIMIT": "4096"}
    config = load(NicConfig, environ={f"RINGMESH_BACKEND__{name}": text for name, text in names.items()}).backend
    assert (config.kind, config.pace, config.speed) == ("switch", "capture", 2.5)
    assert (config.record, config.record_limit) == ("/tmp/x.pcapng", 4096)


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("QUEUE_SIZE", "100", "queue_size"),
        ("DEVICE_ID", "-1", "device_id"),
        ("QUEUE_PAIRS", "0", "queue_pairs"),
        ("QUEUE_PAIRS", "65", "queue_pairs"),
        ("MTU", "67", "mtu"),
        ("MTU", "1501", "mtu"),
        ("FIRMWARE__REPLAY_KICK", "perhaps", "firmware.replay_kick"),
        ("BACKEND__KIND", "tap", "backend.kind"),
        ("BACKEND__RATE", "0", "backend.rate"),
        ("BACKEND__RATE", "inf", "backend.rate"),
        ("BACKEND__RATE", "nan", "backend.rate"),
        ("BACKEND__SPEED", "0", "backend.speed"),
        ("BACKEND__SPEED", "inf", "backend.speed"),
        ("BACKEND__PACE", "burst", "backend.pace"),
        ("BACKEND__RECORD_LIMIT", "100", "backend.record_limit"),
        ("BACKEND__COLOUR", "1", "backend.colour"),
    ],
)
def test_refused(name: str, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(NicConfig, environ={f"RINGMESH_{name}": text})
    assert caught.value.key == key
