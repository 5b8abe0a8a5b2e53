"""The entries of an ITS's tables as values, whichever implementation wrote them: :data:`LAYOUTS` by profile.

``kvm`` is the ABI of :mod:`common.gic.entries`, ``qemu`` that of :mod:`common.gic.entries_qemu`, whose tables are
indexed throughout and so have no ``next``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from common.gic import entries_qemu
from common.gic.entries import ENTRY_SIZE, Cte, Dte, Ite


class Layout(NamedTuple):
    """How one implementation writes its tables; ``itt_entry`` is the size of an ITT entry in bytes.

    ``dte(data)``, ``cte(data, index)`` and ``ite(data)`` read one entry; ``ite`` gives None for one that is not valid.
    ``chained``: entries say where the next one is, collections stand in a list that the first invalid one ends.
    """

    itt_entry: int
    chained: bool
    dte: Callable[[bytes], Dte]
    cte: Callable[[bytes, int], Cte]
    ite: Callable[[bytes], Ite | None]


def _kvm_cte(data: bytes, _index: int) -> Cte:
    return Cte.unpack(data)


def _kvm_ite(data: bytes) -> Ite | None:
    entry = Ite.unpack(data)
    return entry if entry.intid else None


def _qemu_dte(data: bytes) -> Dte:
    return Dte(*entries_qemu.Dte.unpack(data), 0)


def _qemu_cte(data: bytes, index: int) -> Cte:
    return Cte(*entries_qemu.Cte.unpack(data), index)


def _qemu_ite(data: bytes) -> Ite | None:
    entry = entries_qemu.Ite.unpack(data)
    return Ite(entry.intid, entry.icid, 0) if entry.valid else None


LAYOUTS: Final = {
    "kvm": Layout(ENTRY_SIZE, True, Dte.unpack, _kvm_cte, _kvm_ite),
    "qemu": Layout(entries_qemu.ITE_SIZE, False, _qemu_dte, _qemu_cte, _qemu_ite),
}
