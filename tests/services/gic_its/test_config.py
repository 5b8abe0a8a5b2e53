"""Settings: defaults, overlays, what is refused."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from services.gic_its.config import ItsConfig
from services.gic_its.profile import PROFILES


def test_defaults_are_the_ports_of_the_mesh() -> None:
    config = load(ItsConfig, environ={})
    assert (config.listen.port, config.admin.port) == (7103, 9104)


def test_environment_overlays() -> None:
    assert load(ItsConfig, environ={"RINGMESH_LIMITS__GUESTS": "3"}).limits.guests == 3
    assert load(ItsConfig, environ={"RINGMESH_GIC_PROFILE": "qemu"}).gic_profile == "qemu"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CPUS", "0"), ("CPUS", "513"), ("GIC_PROFILE", "xen"), ("LIMITS__GUESTS", "0"), ("LIMITS__DEVICES", "65537"),
     ("LIMITS__COLLECTIONS", "0"), ("LIMITS__EVENTS", "0")],
)  # fmt: skip
def test_settings_out_of_range(variable: str, value: str) -> None:
    with pytest.raises(ConfigError):
        load(ItsConfig, environ={f"RINGMESH_{variable}": value})


def test_kvm_is_the_profile() -> None:
    assert load(ItsConfig, environ={}).gic_profile in PROFILES
    assert load(ItsConfig, environ={}).gic_profile == "kvm"
