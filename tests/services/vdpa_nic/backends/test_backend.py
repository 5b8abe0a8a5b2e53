"""All back ends keep the contract of services/vdpa_nic/backends/backend.py."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest

from services.vdpa_nic.backends.backend import Backend, empty_backlog
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.backends.record import Record, Recording
from services.vdpa_nic.backends.replay import Replay, at_rate
from services.vdpa_nic.backends.switch import LearningSwitch

PACKET = bytes(12) + bytes(range(60))
PAIRS = 3

MAKERS: dict[str, Callable[[], Backend]] = {
    "echo": lambda: Echo(PAIRS),
    "replay": lambda: Replay([PACKET[12:]], at_rate(10.0), max_pairs=PAIRS),
    "switch": lambda: LearningSwitch().port(lambda: None, max_pairs=PAIRS),
    "record": lambda: Record(
        Echo(PAIRS), Recording(BytesIO().write, lambda: 1.0, limit=1 << 20, log=lambda *_, **__: None), "guest0"
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_contract(name: str) -> None:
    backend = MAKERS[name]()
    assert backend.answers == (name in {"echo", "record"})
    assert [len(waiting) for waiting in backend.backlog] == [0] * PAIRS
    assert backend.pairs == 1, "as after a reset: only the first pair is on"
    backend.pairs = PAIRS
    assert backend.pairs == PAIRS
    backend.tick(1.0)
    backend.transmit(2, [PACKET, PACKET], 1.5)
    came = [list(waiting) for waiting in backend.backlog]
    assert came == [[], [], [(PACKET, 1.5)] * 2 if backend.answers else []]


def test_pairs_wait_each_for_itself() -> None:
    first, second = empty_backlog(2)
    first.append((PACKET, 0.0))
    assert not second
