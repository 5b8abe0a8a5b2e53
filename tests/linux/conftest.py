"""A real Linux guest under QEMU. Skipped, with the reason, where QEMU is missing or too old or there is no kernel."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from common.errors import ConfigError
from services.linux_guest import files, initramfs
from services.linux_guest.guest import Boot, LinuxGuest
from services.linux_guest.qemu import Qemu

#: Hang guard, seconds: an emulated guest on a busy machine is slow, but not that slow.
GUARD = 180.0
#: Where a kernel of somebody else's may lie.
GIVEN = Path(os.environ.get(files.VARIABLE) or files.PROJECT.parent / "shared" / "linux-guest")

Booted = Callable[..., Awaitable[LinuxGuest]]


def kernel() -> Path:
    """The kernel that was built, or that is lying there. Skips."""
    try:
        return files.kernel(None)
    except ConfigError as error:
        if (GIVEN / files.KERNEL).is_file():
            return GIVEN / files.KERNEL
        pytest.skip(str(error))


def busybox() -> bytes:
    """From what `make linux-guest` made, or from the first file system beside a given kernel. Skips."""
    for place in (files.BUILD / files.INITRD, GIVEN / files.INITRD):
        try:
            return initramfs.busybox_of(place)
        except ConfigError:
            continue
    pytest.skip("no static busybox for arm64: `make linux-guest` fetches it")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """What every boot starts from; the first file system is made from the sources as they are now."""
    try:
        Qemu.find()
    except ConfigError as error:
        pytest.skip(str(error))
    boot = Boot(board=files.BOARD, kernel=kernel(), initrd=tmp_path_factory.mktemp("guest") / files.INITRD)
    boot.initrd.write_bytes(initramfs.build(busybox()))
    return boot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def booted(base: Boot) -> AsyncIterator[Booted]:
    """``await booted(settings=…)``: a guest that is ready, changed from ``base``. All end with the module."""
    async with AsyncExitStack() as stack:

        async def boot(**changes: object) -> LinuxGuest:
            guest = await stack.enter_async_context(LinuxGuest(replace(base, **changes)))  # type: ignore[arg-type]
            assert await guest.ready(GUARD), "\n".join([*guest.log, *list(guest.console.lines)[-40:]])
            return guest

        yield boot
