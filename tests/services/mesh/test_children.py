"""The supervisor's decisions; with real services in tests/mesh."""

from __future__ import annotations

import socket

import pytest

from common.errors import ConfigError, LocalError
from services.mesh.children import BACKOFF_CAP, BACKOFF_FIRST, Mesh, backoff
from services.mesh.ports import LOOPBACK
from services.mesh.settings import ROLES


def _mesh(said: list[str] | None = None, inherited: dict[str, str] | None = None, **settings: str) -> Mesh:
    say = (said if said is not None else []).append
    return Mesh(guests=1, board=None, settings=settings, inherited=inherited, say=say)


def test_the_first_restart_is_immediate_then_pauses_double_up_to_a_cap() -> None:
    pauses = [backoff(deaths) for deaths in range(1, 12)]
    assert pauses[:4] == [0.0, BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST]
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_CAP


async def test_a_token_is_made_unless_one_is_given() -> None:
    one, other = _mesh(), _mesh()
    assert one.made_token
    assert one.token != other.token
    assert len(one.token) >= 32
    third = _mesh(inherited={"RINGMESH_TOKEN": "given"})
    assert (third.token, third.made_token) == ("given", False)
    assert {child.env["RINGMESH_TOKEN"] for child in third.children.values()} == {"given"}
    fourth = _mesh(inherited={"RINGMESH_TOKEN": "given"}, RINGMESH_TOKEN="set")
    assert fourth.token == "set"
    fifth = _mesh(RINGMESH_TOKEN="")
    assert fifth.made_token
    assert {child.env["RINGMESH_TOKEN"] for child in fifth.children.values()} == {fifth.token}
    for mesh in (one, other, third, fourth, fifth):
        await mesh.stop()


async def test_ports_are_kept_while_the_mesh_lives_and_given_back() -> None:
    mesh = _mesh()
    ports = [int(child.admin.rpartition(":")[2]) for child in mesh.children.values()]
    assert len(set(ports)) == len(ROLES)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind((LOOPBACK, ports[0]))
    await mesh.stop()
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, ports[0]))


def test_a_bad_setting_is_refused_and_leaks_no_port() -> None:
    with pytest.raises(ConfigError):
        _mesh(RINGMESH_NOPE="1")


@pytest.mark.mesh
async def test_a_service_that_cannot_start_ends_the_start() -> None:
    said: list[str] = []
    mesh = _mesh(said)
    with socket.socket() as squatter:
        # somebody that listens where the ITS is to listen, whatever was reserved
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((LOOPBACK, int(mesh.children["its"].env["RINGMESH_LISTEN__PORT"])))
        squatter.listen()
        try:
            with pytest.raises(LocalError, match="did not start"):
                await mesh.start()
        finally:
            await mesh.stop()
    assert said == ["its exited with 2: the mesh cannot go on"]
    assert mesh.children["guest"].process is None


@pytest.mark.mesh
async def test_answers_of_services_and_what_is_no_answer() -> None:
    mesh = _mesh()
    try:
        await mesh.start()
        assert (await mesh.get("guest", "/report"))["scmi"]["sent"] == 0
        assert "ringmesh_queue_depth" in (await mesh.metrics("nic") or "")
        with pytest.raises(LocalError, match="nic /nowhere: there is no /nowhere"):
            await mesh.get("nic", "/nowhere")
    finally:
        mesh.kill()
        await mesh.stop()
    assert {c.process.returncode for c in mesh.children.values() if c.process} == {-9}
    assert all(child.cpu_seconds > 0.1 for child in mesh.children.values())
