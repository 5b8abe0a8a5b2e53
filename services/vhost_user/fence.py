"""A full memory fence for rings that another process or a guest's CPU works on.

Python has no fence. x86 lets a load pass an older store to another place, Arm reorders nearly everything; with either,
"I published, now does the other side want to be told" (virtio 1.3 §2.7.13.4.1, §2.7.10) goes wrong. So a fence here is
a few bytes of machine code in a page of their own, called through ctypes:

==========  ====================  =========================
machine     instructions          what stands in the page
==========  ====================  =========================
x86_64      ``mfence; ret``       0f ae f0 c3
aarch64     ``dmb ish; ret``      bf 3b 03 d5 c0 03 5f d6
==========  ====================  =========================

The page is written first and made executable after that, never both at once; on Arm the kernel brings the instruction
cache in step when a page becomes executable.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable
from typing import Final

from common.errors import LocalError

#: ``platform.machine()`` → the bytes of a function without arguments or result.
CODE: Final = {
    "x86_64": bytes.fromhex("0faef0c3"),
    "aarch64": bytes.fromhex("bf3b03d5c0035fd6"),
}

_made: dict[str, Callable[[], None]] = {}
#: the pages live as long as the process
_pages: list[mmap.mmap] = []


def full_fence(machine: str | None = None) -> Callable[[], None]:
    """A function that returns after all loads and stores before it, and before any after it, are ordered.

    The same function each time. Raises LocalError on a ``machine`` (this one by default) that no code is known for, or
    where the system refuses executable pages.
    """
    name = platform.machine() if machine is None else machine
    if name not in CODE:
        raise LocalError(f"no memory fence is known for {name}: vhost-user needs one of {', '.join(CODE)}")
    if name != platform.machine():
        raise LocalError(f"a memory fence for {name} cannot run on {platform.machine()}")
    if name not in _made:
        _made[name] = _compile(CODE[name])
    return _made[name]


def _compile(code: bytes) -> Callable[[], None]:
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    page[: len(code)] = code
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise LocalError(f"no executable page for a memory fence: errno {ctypes.get_errno()}")
    _pages.append(page)
    # PYFUNCTYPE: the interpreter's lock stays with us, a fence is not worth a switch of threads
    return ctypes.PYFUNCTYPE(None)(address)
