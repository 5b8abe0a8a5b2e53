"""Surviving a front end that cuts off a file that is mapped here.

A load or store beyond the end of a mapped file raises SIGBUS, which ends a process. Where the file is sealed against
shrinking (QEMU's memfds are) that cannot be; elsewhere no check beforehand is enough, the file may shrink between the
check and the access. So a handler stands ready: it puts zero pages of our own over the part of the mapping from the
page that faulted on, notes that this mapping is lost, and the access is done again. It finds zeros; whoever looks at
:meth:`Guarded.lost` then lets go of the front end. A SIGBUS at any other address goes where it went before.

The handler is a function of Python called from the signal. That is sound here because the signal is synchronous and
all accesses to guarded memory are made by the interpreter while it holds its lock: the call nests in the load or store
as a call-back would.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
from typing import Final

from common.errors import LocalError

_SA_SIGINFO: Final = 4
#: Offset of si_addr in siginfo_t on 64-bit Linux.
_SI_ADDR: Final = 16
_MAP_FIXED: Final = 0x10


class _Sigaction(ctypes.Structure):
    """struct sigaction of the C library (glibc and musl, 64-bit): its mask has 1024 bits."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_HANDLER: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t) + (ctypes.c_int,) * 3 + (ctypes.c_long,)


class Guarded:
    """``size`` bytes mapped at ``start`` from a file with pages of ``block`` bytes; watched until :meth:`forget`."""

    __slots__ = ("block", "end", "lost", "start")

    def __init__(self, start: int, size: int, block: int) -> None:
        self.start: Final = start
        self.end: Final = start + size
        self.block: Final = block
        #: an access met the end of the file (what lies behind is ours alone then), or it was seen to be cut off
        self.lost = False
        _install()
        _guarded[start] = self

    def forget(self) -> None:
        """To be called before the memory is unmapped."""
        _guarded.pop(self.start, None)


_guarded: Final[dict[int, Guarded]] = {}
_before: Final = _Sigaction()
_installed: list[object] = []


def _cover(address: int) -> bool:
    for area in _guarded.values():
        if area.start <= address < area.end:
            first = address - (address - area.start) % area.block
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
            area.lost = True
            return bool(_libc.mmap(first, area.end - first, protection, flags, -1, 0) == first)
    return False


def _on_sigbus(number: int, info: int, _context: int) -> None:
    address = ctypes.c_uint64.from_address(info + _SI_ADDR).value
    if not _cover(address):
        # not ours: as before, and the access will fault again
        _libc.sigaction(number, ctypes.byref(_before), None)


def _install() -> None:
    if _installed:
        return
    handler = _HANDLER(_on_sigbus)
    action = _Sigaction(ctypes.cast(handler, ctypes.c_void_p).value, (ctypes.c_uint64 * 16)(), _SA_SIGINFO, None)
    if _libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), ctypes.byref(_before)):
        raise LocalError(f"no handler for SIGBUS: errno {ctypes.get_errno()}")
    _installed.append(handler)
