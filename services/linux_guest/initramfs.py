"""The guest's first file system: busybox, and our own init of ``deploy/linux-guest/rootfs``.

``python -m services.linux_guest.initramfs --busybox FILE --out FILE`` makes it; FILE is the static arm64 busybox, or
an initramfs that has one.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.errors import ConfigError, RemoteError
from services.linux_guest import cpio

#: Our part of it, relative paths as in the guest.
ROOTFS: Final = Path(__file__).resolve().parents[2] / "deploy" / "linux-guest" / "rootfs"
#: Where init looks for a script that the host gives along.
SCRIPT: Final = "ringmesh/run.sh"

_GZIP: Final = b"\x1f\x8b"
_DIRECTORIES: Final = ("bin", "dev", "lib", "proc", "ringmesh", "sbin", "sys", "tmp")


def compress(archive: bytes) -> bytes:
    """gzip is what the smallest kernel unpacks; no time stamp, so equal content gives equal bytes."""
    return gzip.compress(archive, mtime=0)


def build(busybox: bytes, rootfs: Path = ROOTFS) -> bytes:
    """A compressed initramfs."""
    entries = [cpio.directory(name) for name in _DIRECTORIES]
    entries += [cpio.character_device("dev/console", 5, 1), cpio.file("bin/busybox", busybox, 0o755)]
    entries.append(cpio.link("bin/sh", "busybox"))
    for path in sorted(rootfs.rglob("*")):
        if path.is_file():
            entries.append(cpio.file(path.relative_to(rootfs).as_posix(), path.read_bytes(), 0o755))
    return compress(cpio.pack(entries))


def with_script(initramfs: bytes, script: bytes) -> bytes:
    """``initramfs`` and a script that init runs before GUEST-READY. Linux unpacks archives one after another."""
    return initramfs + compress(cpio.pack([cpio.directory("ringmesh"), cpio.file(SCRIPT, script, 0o755)]))


def busybox_of(path: Path) -> bytes:
    """The busybox at ``path``: the program itself, or the one in an initramfs.

    Raises ConfigError where there is none, or none for arm64.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        if data.startswith(cpio.MAGIC):
            data = next((one.data for one in cpio.unpack(data) if one.name == "bin/busybox"), b"")
    except (OSError, EOFError, RemoteError) as error:
        raise ConfigError(str(path), "", str(error)) from None
    # ELF, 64 bits, little endian; EM_AARCH64 is 183
    if data[:6] != b"\x7fELF\x02\x01" or int.from_bytes(data[18:20], "little") != 183:
        raise ConfigError(str(path), "", "no busybox for arm64 in it")
    return data


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the guest's initramfs.")
    parser.add_argument("--busybox", type=Path, required=True, help="static arm64 busybox, or an initramfs with one")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        data = build(busybox_of(given.busybox))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_bytes(data)
    except (ConfigError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
