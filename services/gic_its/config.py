"""Settings of the ITS service."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from common.runtime.config import AdminConfig, BaseConfig, ListenConfig, Section


class LimitsConfig(Section, kw_only=True):
    """What one guest may have mapped at a time, and how many guests there may be."""

    guests: Annotated[int, msgspec.Meta(ge=1)] = 256
    devices: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 4096
    collections: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 1024
    events: Annotated[int, msgspec.Meta(ge=1)] = 65536


class ItsConfig(BaseConfig, kw_only=True):
    """``ringmesh serve its``. ``cpus`` is the number of redistributors that each guest gets,
    ``gic_profile`` the implementation that the ITS and they are."""

    listen: ListenConfig = msgspec.field(default_factory=lambda: ListenConfig(port=7103))
    admin: AdminConfig = msgspec.field(default_factory=lambda: AdminConfig(port=9104))
    cpus: Annotated[int, msgspec.Meta(ge=1, le=512)] = 8
    gic_profile: Literal["kvm", "qemu"] = "kvm"
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
