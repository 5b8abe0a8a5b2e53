"""The names of a VMM's operations: both ends mean the same ones."""

from __future__ import annotations

import errno

from common.gic import vmm_ops
from services.gic_its.uaccess import ARGUMENTS, Uaccess

OPERATIONS = {name: value for name, value in vars(vmm_ops).items() if isinstance(value, str) and name.isupper()}


def test_every_operation_has_one_name_and_is_carried_out() -> None:
    assert len(set(OPERATIONS.values())) == len(OPERATIONS)
    assert set(OPERATIONS.values()) == set(ARGUMENTS)
    assert all(callable(getattr(Uaccess, value)) for value in OPERATIONS.values())


def test_the_error_numbers_are_linuxs() -> None:
    numbers = {name: value for name, value in vars(vmm_ops).items() if name.startswith("E") and name.isupper()}
    assert numbers == {name: getattr(errno, name) for name in numbers}
    assert "EBUSY" in numbers
