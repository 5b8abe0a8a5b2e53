"""Reserved ports: nobody gets them by chance, the service they are for still can."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from services.mesh.ports import LOOPBACK, free_ports, port_of, release, reserve


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_service_listens_on_a_reserved_port_again_and_again(runner: object) -> None:
    sockets = reserve(1)
    port = port_of(sockets[0])

    async def serve() -> None:
        for _ in range(2):
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, LOOPBACK, port)
            _, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.close()
            server.close()

    assert callable(runner)
    runner(serve())
    release(sockets)


def test_a_stranger_does_not_get_it_and_a_connection_is_refused() -> None:
    sockets = reserve(1)
    port = port_of(sockets[0])
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind((LOOPBACK, port))
    with socket.socket() as peer:
        assert peer.connect_ex((LOOPBACK, port)) != 0
    release(sockets)


def test_ports_are_all_different_and_free_again_at_once() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as sock:
        sock.bind((LOOPBACK, ports[0]))
