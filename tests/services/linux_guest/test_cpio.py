"""newc archives: our own round trip, and what another reader makes of them."""

from __future__ import annotations

import shutil
import stat
import subprocess

import pytest

from common.errors import RemoteError
from services.linux_guest import cpio

ENTRIES = [
    cpio.directory("bin"),
    cpio.file("bin/tool", b"\x7fELF" * 3 + b"x", 0o755),
    cpio.link("bin/sh", "tool"),
    cpio.character_device("dev-console", 5, 1),
    cpio.file("empty", b""),
]


def test_what_is_packed_is_unpacked() -> None:
    assert list(cpio.unpack(cpio.pack(ENTRIES))) == ENTRIES


def test_the_layout_of_an_entry() -> None:
    packed = cpio.pack([cpio.file("ab", b"hello", 0o600)])
    assert packed[:6] == b"070701"
    fields = [int(packed[at : at + 8], 16) for at in range(6, 110, 8)]
    # inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name with its NUL, checksum
    assert fields == [1, stat.S_IFREG | 0o600, 0, 0, 1, 0, 5, 0, 0, 0, 0, 3, 0]
    assert packed[110:113] == b"ab\0"
    assert packed[113:116] == bytes(3)  # header and name end at a multiple of four
    assert packed[116:124] == b"hello\0\0\0"
    assert packed[124:130] == b"070701"
    assert len(packed) % 4 == 0


def test_equal_content_equal_bytes() -> None:
    assert cpio.pack(ENTRIES) == cpio.pack(ENTRIES)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"", "no newc header at 0"),
        (b"070702" + bytes(200), "no newc header"),
        (b"070701" + b"zz" * 60, "not hexadecimal"),
        (cpio.pack([cpio.file("a", b"x" * 100)])[:150], "cut short"),
        (cpio.pack([cpio.file("a", b"x")])[:116], "no newc header at 116"),
        (cpio.pack([])[:50], "cut short"),
    ],
)
def test_what_is_no_archive_is_refused(archive: bytes, reason: str) -> None:
    with pytest.raises(RemoteError, match=reason):
        list(cpio.unpack(archive))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="there is no cpio command")
def test_cpio_reads_it() -> None:
    done = subprocess.run(["cpio", "-itv", "--quiet"], input=cpio.pack(ENTRIES), capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx", "crw-------", "-rw-r--r--"]
    assert lines[2].endswith("bin/sh -> tool")
    assert "5,   1" in lines[3]
