"""A guest that needs no QEMU: the platform is real, the program that would be QEMU is a stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.linux_guest.files import BOARD
from services.linux_guest.guest import Boot
from tests.services.linux_guest.fake_qemu import READY, install

Plan = Callable[..., Boot]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """``plan(said=…, stays=…, version=…)``: what to boot, with a QEMU that does that first on the path."""
    path = os.environ["PATH"]
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_bytes(name.encode())

    def make(said: tuple[str, ...] = READY, *, stays: bool = True, version: str = "10.0.2") -> Boot:
        program = install(tmp_path / "bin", version, said, stays=stays)
        monkeypatch.setenv("PATH", f"{program}:{path}")
        return Boot(board=BOARD, kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")

    return make
