"""The exception tree. Two branches: *you* broke the rules, or the *other side* did.

::

    RingmeshError
    ├── LocalError                  our own code or its operator misused something; a bug or a bad flag
    │   ├── ConfigError             a setting is unknown, of the wrong type or inconsistent (names the key)
    │   ├── RingFullError           add() with fewer free descriptors than the buffer needs (Linux: -ENOSPC)
    │   ├── ChannelBusyError        no free message in an SCMI channel (Linux: -EBUSY)
    │   ├── PollingUnsupportedError a polled command where the SCMI channel cannot poll (Linux: -EINVAL)
    │   ├── BackpressureError       a bounded queue of ours is full
    │   └── WatchError              the lab refuses what it cannot see or order
    └── RemoteError                 a peer, a guest or a file broke the rules; refused, counted, never fatal
        ├── FrameError              a frame that is too large, malformed or not legal here
        ├── HandshakeError          hello with a wrong token, version or role
        ├── CallError               the peer answered a call with an errno
        ├── LinkDownError           the peer went away while an answer was awaited
        ├── MemoryFaultError        an address outside guest memory or outside a memory key, or a key that is stale
        ├── RingError               a malformed virtqueue: that queue is broken until it is reset
        ├── XferTimeoutError        no answer to an SCMI command in time (Linux: -ETIMEDOUT)
        └── ScmiError               an SCMI reply with a status other than SUCCESS, or a malformed one

Every RemoteError says which ``field`` was wrong, its ``value`` and the ``limit`` it broke, so that the log line and
the metric that count it can name them.
"""

from __future__ import annotations

from typing import Literal


class RingmeshError(Exception):
    """Root of every exception that ringmesh raises on purpose."""


class LocalError(RingmeshError):
    """Misuse from our own side: a programming error or an operator's bad setting."""


class ConfigError(LocalError):
    """A configuration key is unknown, has the wrong type or contradicts another.

    ``source`` is the file or environment variable, ``key`` the dotted key.
    """

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {key}: {reason}" if key else f"{source}: {reason}")
        self.source = source
        self.key = key
        self.reason = reason


class RingFullError(LocalError):
    """Fewer free descriptors than the buffer needs (Linux ``-ENOSPC``); nothing was added."""


class ChannelBusyError(LocalError):
    """All messages of an SCMI channel are in flight (Linux ``-EBUSY``); nothing was sent."""


class PollingUnsupportedError(LocalError):
    """A command was to be polled for on an SCMI channel that cannot poll (Linux ``-EINVAL``); nothing was sent."""


class BackpressureError(LocalError):
    """A bounded queue is full; the caller must wait or drop, and count which."""


class WatchError(LocalError):
    """The lab met something that it cannot see or order, so no verdict would be worth anything."""


class RemoteError(RingmeshError):
    """The other side broke the rules. ``field``, ``value`` and ``limit`` say how."""

    def __init__(self, field: str, value: object = None, limit: object = None, detail: str = "") -> None:
        text = field
        if value is not None:
            text += f" = {value!r}"
        if limit is not None:
            text += f" (limit {limit!r})"
        if detail:
            text += f": {detail}"
        super().__init__(text)
        self.field = field
        self.value = value
        self.limit = limit
        self.detail = detail


class FrameError(RemoteError):
    """A frame that is oversize, not msgpack, of an unknown tag, or not legal on this link."""


class HandshakeError(RemoteError):
    """The first frame was not an acceptable hello: ``field`` is ``token``, ``version`` or ``role``."""


class CallError(RemoteError):
    """A peer refused a call. ``errno`` is the positive errno value it gave."""

    def __init__(self, op: str, errno: int, detail: str = "") -> None:
        super().__init__(op, errno, None, detail)
        self.errno = errno


class LinkDownError(RemoteError):
    """The link went down before the peer answered."""


FaultKind = Literal["unmapped", "permission", "stale_key"]
"""What a memory access came up against: no bank or no mapping there (or one that cannot be), a mapping that does not
grant the access, a memory key whose generation is not in force."""


class MemoryFaultError(RemoteError):
    """``field`` names the access; ``value`` is the address and length that no region (or key) covers.

    ``kind`` tells apart what devices count apart.
    """

    def __init__(
        self,
        field: str,
        value: object = None,
        limit: object = None,
        detail: str = "",
        *,
        kind: FaultKind = "unmapped",
    ) -> None:
        super().__init__(field, value, limit, detail)
        self.kind: FaultKind = kind


class RingError(RemoteError):
    """A malformed virtqueue (virtio 1.3 §2.7). The queue is broken: every later call raises again.

    ``field`` is one of ``avail.idx``, ``used.idx``, ``used.id``, ``head``, ``next``, ``chain``, ``flags``,
    ``indirect``, ``addr``.
    """


class XferTimeoutError(RemoteError):
    """No answer in time (Linux ``-ETIMEDOUT``). The command may have been executed, or may yet be."""


class ScmiError(RemoteError):
    """An SCMI command did not succeed. ``status`` is the (negative) SCMI status, DEN0056E §4.1.4."""

    def __init__(self, command: str, status: int, detail: str = "") -> None:
        super().__init__(command, status, None, detail)
        self.status = status
