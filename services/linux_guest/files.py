"""Where the guest's kernel and first file system are, and what to say where they are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.errors import ConfigError

PROJECT: Final = Path(__file__).resolve().parents[2]
#: What `make linux-guest` fills.
BUILD: Final = PROJECT / "build" / "linux-guest"
#: A directory with an Image of one's own, and perhaps an initramfs whose busybox can be used.
VARIABLE: Final = "RINGMESH_LINUX_GUEST"
KERNEL: Final = "Image"
INITRD: Final = "initramfs.cpio.gz"
#: The board of QEMU's virt machine.
BOARD: Final = PROJECT / "deploy" / "boards" / "virt.toml"


def kernel(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """``given``, or the first that is there of the variable's directory and the build's. Raises ConfigError."""
    if given is not None:
        return _there("--kernel", given)
    directories = [Path(environ[VARIABLE])] if environ.get(VARIABLE) else []
    for directory in (*directories, BUILD):
        if (directory / KERNEL).is_file():
            return (directory / KERNEL).resolve()
    where = " or ".join(str(directory / KERNEL) for directory in (*directories, BUILD))
    raise ConfigError("--kernel", "", f"no {where}: `make linux-guest` makes it, or name one")


def initrd(given: Path | None) -> Path:
    """``given``, or the one that was built. Raises ConfigError."""
    if given is not None:
        return _there("--initrd", given)
    built = BUILD / INITRD
    if not built.is_file():
        raise ConfigError("--initrd", "", f"no {built}: `make linux-guest` makes it, or name one")
    return built


def _there(option: str, path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(option, "", f"there is no file {path}")
    return path.resolve()
