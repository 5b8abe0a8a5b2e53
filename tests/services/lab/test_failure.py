"""Failures read well."""

from services.lab.failure import Failure


def test_text() -> None:
    assert str(Failure("final", "", "leaked")) == "final: leaked"
    assert str(Failure("exception", "cpu0", "ValueError: x")) == "exception: cpu0: ValueError: x"
