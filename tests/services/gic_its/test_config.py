from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.runtime.config import load
from services.gic_its.config import ItsConfig


def test_defaults_are_the_ports_of_the_mesh() -> None:
    config = load(ItsConfig, environ={})
    assert (config.listen.port, config.admin.port) == (7103, 9104)


def test_environment_overlays() -> None:
    assert load(ItsConfig, environ={"RINGMESH_LIMITS__GUESTS": "3"}).limits.guests == 3
    with pytest.raises(ConfigError):
        load(ItsConfig, environ={"RINGMESH_CPUS": "0"})
