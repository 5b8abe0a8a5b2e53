"""Where the raw port is: ``tcp:HOST:PORT`` or ``unix:/path``."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from common.errors import ConfigError

#: Longest path of a unix socket in bytes: ``sockaddr_un`` has 108, one for the end.
MAX_PATH: Final = 107
_KEY: Final = "raw.listen"


class RawAddress(NamedTuple):
    """``path`` of a unix socket, or (where it is empty) host and port; port 0 lets the kernel choose."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


def parse(text: str) -> RawAddress:
    """The address that ``text`` names. Raises ConfigError where it names none."""
    kind, colon, rest = text.partition(":")
    if colon and kind == "unix":
        if not rest.startswith("/"):
            raise ConfigError(text, _KEY, "the path of a unix socket must begin with /")
        if len(rest.encode()) > MAX_PATH or "\0" in rest:
            raise ConfigError(text, _KEY, f"the path of a unix socket has at most {MAX_PATH} bytes, and no NUL")
        return RawAddress(path=rest)
    if not colon or kind != "tcp":
        raise ConfigError(text, _KEY, "tcp:HOST:PORT or unix:/path is wanted")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(text, _KEY, str(error)) from None
    if not host or port is None or parts.netloc != rest or "@" in rest:
        raise ConfigError(text, _KEY, "tcp:HOST:PORT is wanted")
    return RawAddress(host, port)
