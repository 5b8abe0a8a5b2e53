from __future__ import annotations

from services.gic_its.profile import KVM, PROFILES


def test_the_kvm_profile_is_found_by_name() -> None:
    assert PROFILES["kvm"] is KVM
    assert KVM.typer == 0x1EF71
