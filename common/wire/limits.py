"""The hard limits of a link. Each is checked before memory is spent, and named in the error that refuses."""

from __future__ import annotations

from typing import Final

#: Largest frame body in bytes, checked from the length prefix before the body is read.
MAX_FRAME: Final = 128 * 1024
#: Bytes of the length prefix.
PREFIX: Final = 4
#: Bytes that may wait in a link's send queue before the peer counts as one that stopped reading.
MAX_BACKLOG: Final = 8 * 1024 * 1024
#: Seconds that a client has for its hello.
HELLO_TIMEOUT: Final = 5.0
#: Largest bytes payload of one DMA frame.
MAX_DMA: Final = 64 * 1024
#: Largest body of a client's first frame: a peer that has not said who it is gets no more.
MAX_HELLO: Final = 4 * 1024
#: Connections of a server that have not said hello yet; a further one is refused.
MAX_UNAUTHENTICATED: Final = 64
#: Most characters of a guest's name.
MAX_GUEST_NAME: Final = 32
