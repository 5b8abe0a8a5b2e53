from __future__ import annotations

import pytest

from services.gic_its.guest_tables import GuestTables
from services.gic_its.held_tables import HeldTables
from services.gic_its.profile import KVM, QEMU
from services.gic_its.tables import event_key
from tests.services.gic_its.conftest import Rig


@pytest.mark.parametrize(("profile", "kind"), [(KVM, HeldTables), (QEMU, GuestTables)])
async def test_the_profile_says_where_tables_are_kept(profile: object, kind: type) -> None:
    assert isinstance(Rig(profile=profile).its.tables, kind)  # type: ignore[arg-type]


def test_keys_tell_events_apart() -> None:
    ids = (0, 1, 0xFFFF, 0xFFFF_FFFF)
    assert len({event_key(device, event) for device in ids for event in ids}) == len(ids) ** 2
