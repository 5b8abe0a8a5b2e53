"""A short round of the hostile driver, port and VMM, always the same; a long one runs as a script."""

from __future__ import annotations

from tests.fuzz import fuzz_nic


def test_fuzz_nic() -> None:
    total = fuzz_nic.fuzz(6_000, 4)
    assert total["messages"] == 6_000
    # every queue that is attacked was broken at times, and calls were answered in every way
    assert all(total[f"broken: {queue}"] for queue in fuzz_nic.ATTACKED)
    assert not any(total[f"broken: {queue}"] for queue in fuzz_nic.HEALTHY)
    assert all(total[f"answer: {code}"] for code in (0, 1, 22, 95))
