"""What the admin routes of the guest service do with a guest's ITS: show it, save it, restore it.

================= ===================================================================================================
GET /its/dump     ``{guest: what is mapped}``, see :class:`common.gic.walk.Walk`
POST /its/save    ``{"guest": name}`` → ``{"guest": name, "file": base64}``, the file of :mod:`common.gic.saved`
POST /its/restore ``{"guest": name, "file": base64}`` → ``{"guest": name, "events": mapped events}``
================= ===================================================================================================

``guest`` may be left out where there is one. The guest's vCPUs stand still while its ITS is saved or restored. An ITS
that refuses is told with the name of its errno (Linux Documentation/virt/kvm/devices/arm-vgic-its.rst).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from errno import errorcode
from typing import Any, Final

import msgspec

from common.errors import CallError, RemoteError
from common.gic.saved import SavedIts, decode, encode
from common.gic.walk import Walk, walk


@dataclass(slots=True, frozen=True)
class Vmm:
    """What is done with the ITS of one guest."""

    save: Callable[[], Awaitable[SavedIts]]
    restore: Callable[[SavedIts], Awaitable[None]]


class SaveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /its/save."""

    guest: str = ""


class RestoreRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /its/restore."""

    guest: str = ""
    file: bytes


class ItsRoutes:
    """``guests``: name → the VMM of its ITS. ``ready()``: may they be used yet?"""

    def __init__(self, guests: Mapping[str, Vmm], ready: Callable[[], bool]) -> None:
        self._guests: Final = guests
        self._ready: Final = ready

    def _named(self, guest: str) -> tuple[str, Vmm]:
        names = list(self._guests)
        name = names[0] if not guest and len(names) == 1 else guest
        if name not in self._guests:
            raise RemoteError("guest", guest, ", ".join(names))
        if not self._ready():
            raise RemoteError("guest", name, None, "the guests are not up yet")
        return name, self._guests[name]

    async def dump(self) -> dict[str, Walk]:
        """Raises RemoteError where the guests are not up, or as the ITS answers."""
        found = {}
        for guest in self._guests:
            name, vmm = self._named(guest)
            async with _explained():
                found[name] = walk(await vmm.save())
        return found

    async def save(self, request: SaveRequest) -> dict[str, Any]:
        """Raises RemoteError for a guest that does not exist, or as the ITS answers."""
        name, vmm = self._named(request.guest)
        async with _explained():
            return {"guest": name, "file": encode(await vmm.save())}

    async def restore(self, request: RestoreRequest) -> dict[str, Any]:
        """Raises RemoteError for a guest that does not exist, a file that is none or does not fit, or as the ITS
        answers."""
        name, vmm = self._named(request.guest)
        saved = decode(request.file)
        async with _explained():
            await vmm.restore(saved)
        return {"guest": name, "events": sum(len(device.events) for device in walk(saved).devices)}


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    """The ITS's errno by its name."""
    try:
        yield
    except CallError as error:
        reason = f"{errorcode.get(error.errno, error.errno)}: {error.detail}"
        raise RemoteError(f"its {error.field}", None, None, reason) from error
