"""What is compared with the live QEMU: the service's own core, and the model that shares nothing with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from services.gic_its.adapter import CaseAdapter
from tests.qemu.qemu_its import Board, QemuAdapter
from tests.services.gic_its.case_steps import Adapter
from tests.services.gic_its.oracle import Oracle

#: The streams' devices that a PCI bus has room for; they send in the others' place.
REQUESTERS: Final = (0x10, 0x30)
CASE: Final[dict[str, Any]] = {"name": "stream", "config": {"cpus": 4, "msi_devids": REQUESTERS}}

#: By name: a fresh machine as QEMU should be.
OTHERS: Final[dict[str, Callable[[], Adapter]]] = {
    "core": lambda: CaseAdapter(CASE, "qemu"),
    "oracle": lambda: Oracle(4, "qemu"),
}


class Reachable:
    """An adapter whose MSIs are such that a device of QEMU's can send them: of REQUESTERS, with 16 bits of data."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def msi(self, devid: int, data: int) -> None:
        self._adapter.msi(devid if devid in REQUESTERS else REQUESTERS[0], min(data, 0xFFFF))


def reachable(adapter: Adapter) -> Adapter:
    return cast(Adapter, Reachable(adapter))


def on(board: Board) -> Adapter:
    """QEMU, clean."""
    return reachable(QemuAdapter(CASE, board))
