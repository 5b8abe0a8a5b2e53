"""The handler of SIGBUS: what it saves, and what it leaves alone. Each case in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_PRELUDE = """
import ctypes, mmap, os, signal, sys, tempfile
from services.vhost_user.sigbus import Guarded
page = mmap.PAGESIZE
file = tempfile.TemporaryFile()
os.ftruncate(file.fileno(), 8 * page)

def mapped():
    area = mmap.mmap(file.fileno(), 8 * page)
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _PRELUDE + body], capture_output=True, text=True, timeout=120)


def test_access_behind_the_end_finds_zeros() -> None:
    done = run("""
area, start = mapped()
guard = Guarded(start, 8 * page, page)
area[:] = bytes([7]) * (8 * page)
view = memoryview(area).cast("H")
os.ftruncate(file.fileno(), 2 * page)
assert not guard.lost
assert view[page // 2] == 0x0707 and not guard.lost
assert view[3 * page // 2 + 5] == 0
assert guard.lost
assert bytes(view)[: 3 * page] == bytes([7]) * (2 * page) + bytes(page)
for index in range(3 * page // 2, 4 * page):
    view[index] = index & 0xffff
assert view[4 * page - 1] == (4 * page - 1) & 0xffff
assert os.fstat(file.fileno()).st_size == 2 * page
view[0] = 0x1234
assert os.pread(file.fileno(), 2, 0) == b"\\x34\\x12"
print("survived")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "survived\n", "")


def test_a_copy_in_bulk_is_survived_as_well() -> None:
    done = run("""
area, start = mapped()
guard = Guarded(start, 8 * page, page)
view = memoryview(area)
os.ftruncate(file.fileno(), page)
view[100 : 100 + 6 * page] = b"x" * (6 * page)
assert bytes(view[100 : 100 + 6 * page]) == b"x" * (6 * page)
assert guard.lost
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_huge_pages_are_replaced_whole() -> None:
    done = run("""
area, start = mapped()
guard = Guarded(start, 8 * page, 4 * page)
os.ftruncate(file.fileno(), 0)
view = memoryview(area)
view[6 * page] = 3
lines = [l.split() for l in open("/proc/self/maps")]
ends = {tuple(int(x, 16) for x in l[0].split("-")): l[4] for l in lines}
assert ends[(start, start + 4 * page)] != "0"
assert any(lo == start + 4 * page and inode == "0" for (lo, hi), inode in ends.items())
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("forgotten", [False, True])
def test_other_faults_end_the_process_as_before(forgotten: bool) -> None:
    done = run(f"""
area, start = mapped()
other, elsewhere = mapped()
guard = Guarded(start, 8 * page, page)
if {forgotten}:
    guard.forget()
    guard.forget()
os.ftruncate(file.fileno(), page)
(area if {forgotten} else other)[2 * page]
""")
    assert done.returncode == -signal.SIGBUS


def test_a_handler_that_was_there_is_given_its_faults() -> None:
    done = run("""
import faulthandler
faulthandler.enable()
area, start = mapped()
Guarded(0x1000, page, page)
os.ftruncate(file.fileno(), page)
area[2 * page]
""")
    assert done.returncode == -signal.SIGBUS
    assert "Bus error" in done.stderr
