"""Settings of the guest service: defaults that fit the device services, and values that cannot be."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from services.gic_its.config import ItsConfig
from services.guest_driver.config import DEFAULT_CAPTURE, GuestConfig
from services.scmi_platform.config import ScmiConfig
from services.vdpa_nic.config import NicConfig


def test_defaults_meet_the_other_services() -> None:
    guest, scmi = load(GuestConfig, environ={}), load(ScmiConfig, environ={})
    nic, its = load(NicConfig, environ={}), load(ItsConfig, environ={})
    assert [guest.scmi.port, guest.nic.port, guest.its.port] == [s.listen.port for s in (scmi, nic, its)]
    assert (guest.scmi_device_id, guest.nic_device_id) == (scmi.device_id, nic.device_id)
    assert guest.net_queue_size <= nic.queue_size
    assert guest.vcpus <= its.cpus
    assert guest.workload.net_window <= guest.net_queue_size
    assert len({s.admin.port for s in (guest, scmi, nic, its)}) == 4
    assert DEFAULT_CAPTURE.is_file()
    assert not guest.workload.autostart


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("GUESTS", "0", "guests"),
        ("VCPUS", "65", "vcpus"),
        ("CMDQ_SIZE", "100", "cmdq_size"),
        ("MEMORY_MIB", "3", "memory_mib"),
        ("ATOMIC_TRANSPORT", "7", "atomic_transport"),
        ("ATOMIC_THRESHOLD_US", "4294967296", "atomic_threshold_us"),
        ("WORKLOAD__POLLED_OF_FOUR", "5", "workload.polled_of_four"),
        ("WORKLOAD__SCMI_TIMEOUT", "0", "workload.scmi_timeout"),
        ("WORKLOAD__MAP_SECONDS", "-1", "workload.map_seconds"),
        ("WORKLOAD__PACE", "1", "workload.pace"),
    ],
)
def test_refused(name: str, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GuestConfig, environ={f"RINGMESH_{name}": text})
    assert caught.value.key == key
