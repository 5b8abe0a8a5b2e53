"""The admin routes of a guest's ITS, over HTTP: names, files, refusals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from common.errors import CallError, RemoteError
from common.gic.saved import SavedIts, decode, encode, table_ranges
from common.gic.vmm_ops import EINVAL
from common.runtime.admin import Admin
from common.runtime.metrics import Metrics
from services.guest_driver.its_routes import ItsRoutes, RestoreRequest, SaveRequest, Vmm
from tests.common.gic.its_memory import SMALL, Mapping, memory_of

OTHER = Mapping({5: (2, {1: (9000, 0)})}, {0: 1})


def saved(mapping: Mapping) -> SavedIts:
    memory, made = memory_of(mapping, "kvm")
    made.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(made, memory.read)]
    return made


class StillVmm:
    """A VMM whose ITS stands still: it has what was restored last."""

    def __init__(self, state: SavedIts) -> None:
        self.state = state
        self.refuses: Exception | None = None

    async def save(self) -> SavedIts:
        if self.refuses is not None:
            raise self.refuses
        return self.state

    async def restore(self, saved: SavedIts) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.state = saved


class Mesh:
    """The routes over the guests, served."""

    def __init__(self, token: str = "") -> None:
        self.vmms = {"guest0": StillVmm(saved(SMALL)), "guest1": StillVmm(saved(OTHER))}
        self.up = True
        self.named = {name: Vmm(vmm.save, vmm.restore) for name, vmm in self.vmms.items()}
        routes = ItsRoutes(self.named, lambda: self.up)
        self.admin = Admin(metrics=Metrics("guest"), ready=list, token=token)
        self.admin.get("/its/dump", routes.dump, guarded=True)
        self.admin.post("/its/save", routes.save, SaveRequest)
        self.admin.post("/its/restore", routes.restore, RestoreRequest)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin.port}"

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as http, http.request(method, self.url + path, json=body) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    await made.admin.start("127.0.0.1", 0)
    yield made
    await made.admin.close()


def text_of(state: SavedIts) -> str:
    return base64.b64encode(encode(state)).decode()


async def test_dump(mesh: Mesh) -> None:
    status, found = await mesh.ask("GET", "/its/dump")
    assert (status, list(found)) == (200, ["guest0", "guest1"])
    assert [device["device"] for device in found["guest0"]["devices"]] == [2, 7]
    assert found["guest1"]["devices"][0]["events"][0] == {
        "event": 1, "intid": 9000, "icid": 0, "vcpu": 1, "enabled": True, "priority": 0xA0, "pending": False,
    }  # fmt: skip


async def test_save(mesh: Mesh) -> None:
    status, answer = await mesh.ask("POST", "/its/save", {"guest": "guest1"})
    assert (status, answer["guest"]) == (200, "guest1")
    assert decode(base64.b64decode(answer["file"])) == saved(OTHER)


async def test_restore(mesh: Mesh) -> None:
    answer = await mesh.ask("POST", "/its/restore", {"guest": "guest1", "file": text_of(saved(SMALL))})
    assert answer == (200, {"guest": "guest1", "events": 2})
    assert mesh.vmms["guest1"].state == saved(SMALL)


async def test_a_guest_that_is_alone_needs_no_name(mesh: Mesh) -> None:
    status, answer = await mesh.ask("POST", "/its/save", {})
    assert (status, answer["field"]) == (400, "guest")
    assert "guest0, guest1" in answer["error"]
    del mesh.named["guest0"]
    status, answer = await mesh.ask("POST", "/its/save")
    assert (status, answer["guest"]) == (200, "guest1")


async def test_an_unknown_guest(mesh: Mesh) -> None:
    status, answer = await mesh.ask("POST", "/its/restore", {"guest": "guest2", "file": text_of(saved(SMALL))})
    assert (status, answer["field"]) == (400, "guest")


async def test_guests_that_are_not_up(mesh: Mesh) -> None:
    mesh.up = False
    for method, path, body in (
        ("GET", "/its/dump", None),
        ("POST", "/its/save", {"guest": "guest0"}),
        ("POST", "/its/restore", {"guest": "guest0", "file": text_of(saved(SMALL))}),
    ):
        status, answer = await mesh.ask(method, path, body)
        assert (status, answer["error"]) == (400, "guest = 'guest0': the guests are not up yet")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"guest": "guest0"}, "file"),
        ({"guest": "guest0", "file": "not base64!"}, "file"),
        ({"guest": "guest0", "file": base64.b64encode(b"nonsense").decode()}, "file"),
        ({"guest": "guest0", "file": "", "more": 1}, "more"),
    ],
)
async def test_bad_files(mesh: Mesh, body: dict[str, Any], field: str) -> None:
    status, answer = await mesh.ask("POST", "/its/restore", body)
    assert (status, answer["field"]) == (400, field)
    assert mesh.vmms["guest0"].state == saved(SMALL)


async def test_an_its_that_refuses_is_told_by_the_name_of_its_errno(mesh: Mesh) -> None:
    mesh.vmms["guest0"].refuses = CallError("restore_tables", EINVAL, "device 0x2: unknown collection")
    body = {"guest": "guest0", "file": text_of(saved(SMALL))}
    status, answer = await mesh.ask("POST", "/its/restore", body)
    assert status == 400
    assert answer["error"] == "its restore_tables: EINVAL: device 0x2: unknown collection"
    mesh.vmms["guest0"].refuses = CallError("save_tables", 4711, "?")
    for answer in (await mesh.ask("GET", "/its/dump"), await mesh.ask("POST", "/its/save", {"guest": "guest0"})):
        assert answer[1]["error"] == "its save_tables: 4711: ?"


async def test_other_errors_keep_their_words(mesh: Mesh) -> None:
    mesh.vmms["guest0"].refuses = RemoteError("cpus", 8, 4)
    assert await mesh.ask("POST", "/its/save", {"guest": "guest0"}) == (
        400, {"error": "cpus = 8 (limit 4)", "field": "cpus"},
    )  # fmt: skip
