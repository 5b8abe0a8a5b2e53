"""A short round of tables and registers that were tampered with, always the same; a long one runs as a script."""

from __future__ import annotations

from tests.fuzz import fuzz_its_restore


def test_fuzz_its_restore() -> None:
    total = fuzz_its_restore.fuzz(800, 1)
    assert total["messages"] == 800
    assert all(total[f"kvm: {name}"] for name in ("restored", "EINVAL", "EFAULT", "EEXIST"))
    assert total["qemu: restored"]
    assert total["the same again"]
