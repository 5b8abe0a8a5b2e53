"""The ITS of a running mesh, by the admin routes of its guest service (``services/guest_driver/its_routes.py``)."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from common.errors import LinkDownError, RemoteError
from common.runtime.admin import MAX_BODY

T = TypeVar("T")

#: Seconds for an answer: guests wait for their vCPUs to stand still, and a table may be large.
ANSWER: Final = aiohttp.ClientTimeout(total=60)


class _Saved(msgspec.Struct):
    guest: str
    file: bytes


class Restored(msgspec.Struct):
    """The guest whose ITS was restored, and how many events it has mapped now."""

    guest: str
    events: int


class _Refusal(msgspec.Struct):
    error: str


class ItsOfMesh:
    """The routes of the guest service whose admin endpoint is at ``url``; an async context manager.

    ``guest`` names one of several; where there is one, it may be empty. Every method raises LinkDownError where nobody
    answers, RemoteError for a refusal and for what no guest service says.
    """

    def __init__(self, url: str, token: str, guest: str = "") -> None:
        self._url: Final = url.rstrip("/")
        self._guest: Final = guest
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http: Final = aiohttp.ClientSession(headers=headers, timeout=ANSWER)

    async def __aenter__(self) -> ItsOfMesh:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.close()

    async def save(self) -> bytes:
        """The file of :mod:`common.gic.saved`; not decoded."""
        return (await self._ask("/its/save", _Saved, {"guest": self._guest})).file

    async def restore(self, file: bytes) -> Restored:
        """Raises RemoteError also for a file that is more than the endpoint takes."""
        return await self._ask("/its/restore", Restored, {"guest": self._guest, "file": file})

    async def _ask(self, path: str, kind: type[T], body: dict[str, Any]) -> T:
        data = msgspec.json.encode(body)
        if len(data) > MAX_BODY:
            raise RemoteError("request", len(data), MAX_BODY, "more bytes than an admin endpoint takes")
        try:
            async with self._http.post(self._url + path, data=data) as answer:
                said = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LinkDownError("its", self._url, None, str(error) or type(error).__name__) from None
        try:
            if status == 200:
                return msgspec.json.decode(said, type=kind)
            refusal = msgspec.json.decode(said, type=_Refusal)
        except ValueError:
            raise RemoteError("its", self._url, None, "no guest service answers there") from None
        if status == 404:
            raise RemoteError("its", self._url, None, f"no guest service answers there: {refusal.error}")
        raise RemoteError(path, self._url, None, f"{status}: {refusal.error}")
