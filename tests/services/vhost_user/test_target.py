"""The interface between session and device."""

from __future__ import annotations

import inspect

from services.vhost_user.target import Target, Vring
from tests.services.vhost_user.recorder import Recorder


def test_a_ring_begins_with_nothing() -> None:
    ring = Vring(3)
    assert (ring.index, ring.size, ring.base, ring.log_addr) == (3, 0, 0, 0)
    assert (ring.desc, ring.avail, ring.used, ring.kick, ring.call, ring.err) == (None,) * 6
    assert (ring.polling, ring.enabled, ring.started) == (False, False, False)


def test_the_recorder_is_a_whole_target() -> None:
    target: Target = Recorder()
    methods = {name for name, _ in inspect.getmembers(Target, inspect.isfunction) if not name.startswith("_")}
    assert methods == {
        "features_set", "memory_set", "vring_start", "vring_stop", "vring_enable", "call_set", "status_set", "reset",
        "config_get", "config_set",
    }  # fmt: skip
    assert all(callable(getattr(target, name)) for name in methods)
