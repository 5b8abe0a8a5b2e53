"""TCP ports for a mesh on loopback, kept from everybody else for as long as the mesh lives."""

from __future__ import annotations

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def reserve(count: int) -> list[socket.socket]:
    """``count`` sockets, each bound to a port of loopback of its own, none listening.

    While such a socket is open the kernel gives its port to nobody by chance, neither to a ``bind`` to port 0 nor to
    an outgoing connection, and a service that sets SO_REUSEADDR can still listen there. So a service that is killed
    finds its port free again, and a peer that connects in the meantime is refused and cannot meet itself.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((LOOPBACK, 0))
    except OSError:
        release(sockets)
        raise
    return sockets


def port_of(sock: socket.socket) -> int:
    """The port that a reserved socket is bound to."""
    port: int = sock.getsockname()[1]
    return port


def release(sockets: list[socket.socket]) -> None:
    """Give the ports back."""
    for sock in sockets:
        sock.close()


def free_ports(count: int) -> list[int]:
    """``count`` TCP ports of loopback that nobody listens on at this moment."""
    sockets = reserve(count)
    try:
        return [port_of(sock) for sock in sockets]
    finally:
        release(sockets)
