"""Status codes."""

from __future__ import annotations

from common.scmi.status import STATUS_BYTES, Status, status_name


def test_values_are_the_specification_s() -> None:
    assert [int(one) for one in Status] == list(range(0, -12, -1))
    assert STATUS_BYTES[Status.NOT_FOUND] == b"\xfc\xff\xff\xff"


def test_names() -> None:
    assert status_name(-3) == "DENIED"
    assert status_name(-128) == "STATUS(-128)"
