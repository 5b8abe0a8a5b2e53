"""The guest's first file system: what is in it, where its busybox comes from, and what is refused."""

from __future__ import annotations

import gzip
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from common.errors import ConfigError
from services.linux_guest import cpio, initramfs

#: As much of an ELF header as is looked at: 64 bits, little endian, machine 183.
BUSYBOX = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + (183).to_bytes(2, "little") + b"the rest"


def contents(data: bytes) -> dict[str, cpio.Entry]:
    return {entry.name: entry for entry in cpio.unpack(gzip.decompress(data))}


def test_our_init_and_busybox_are_in_it() -> None:
    found = contents(initramfs.build(BUSYBOX))
    assert found["bin/busybox"].data == BUSYBOX
    assert found["bin/sh"].data == b"busybox"
    for name in ("init", "sbin/poweroff", "sbin/reboot", "lib/report.sh"):
        assert found[name].data == (initramfs.ROOTFS / name).read_bytes()
        assert found[name].mode == stat.S_IFREG | 0o755
    assert found["dev/console"].device == (5, 1)


def test_equal_sources_equal_bytes() -> None:
    made = initramfs.build(BUSYBOX)
    assert made == initramfs.build(BUSYBOX)
    assert made[4:8] == bytes(4)  # gzip's time stamp


def test_a_script_comes_as_a_second_archive() -> None:
    first = initramfs.build(BUSYBOX)
    both = initramfs.with_script(first, b"echo hello\n")
    assert both.startswith(first)
    unpacker = zlib.decompressobj(wbits=31)
    unpacker.decompress(both)
    assert contents(unpacker.unused_data)[initramfs.SCRIPT].data == b"echo hello\n"


@pytest.mark.parametrize("name", ["init", "lib/report.sh", "sbin/poweroff", "sbin/reboot"])
def test_the_scripts_are_good_shell(name: str) -> None:
    subprocess.run(["sh", "-n", str(initramfs.ROOTFS / name)], check=True)


def test_busybox_itself_or_an_initramfs_with_it(tmp_path: Path) -> None:
    alone, inside, plain = tmp_path / "busybox", tmp_path / "initramfs.gz", tmp_path / "initramfs"
    alone.write_bytes(BUSYBOX)
    inside.write_bytes(initramfs.build(BUSYBOX))
    plain.write_bytes(gzip.decompress(inside.read_bytes()))
    for place in (alone, inside, plain):
        assert initramfs.busybox_of(place) == BUSYBOX


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#!/bin/sh\n", "no busybox for arm64"),
        (BUSYBOX[:18] + (62).to_bytes(2, "little"), "no busybox for arm64"),  # x86-64
        (initramfs.compress(cpio.pack([cpio.file("init", b"")])), "no busybox for arm64"),
        (initramfs.compress(b"070701"), "cut short"),
        (initramfs.compress(cpio.pack([]))[:-9], "end-of-stream"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    place = tmp_path / "busybox"
    place.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        initramfs.busybox_of(place)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    busybox, out = tmp_path / "busybox", tmp_path / "made" / "initramfs.gz"
    busybox.write_bytes(BUSYBOX)
    assert initramfs.main(["--busybox", str(busybox), "--out", str(out)]) == 0
    assert out.read_bytes() == initramfs.build(BUSYBOX)
    with pytest.raises(SystemExit) as ended:
        initramfs.main(["--busybox", str(tmp_path / "none"), "--out", str(out)])
    assert ended.value.code == 2
    assert "none" in capsys.readouterr().err
