"""What the guest's console says, read line by line: the kernel's marks, and the sections of our init.

``deploy/linux-guest/rootfs/init`` prints ``@begin NAME``, lines, ``@end NAME status N``. The kernel is silent
meanwhile, so a section is whole or not there.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

#: Lines and sections that are kept; a guest that never stops talking must not fill our memory.
MAX_LINES: Final = 200_000
MAX_SECTIONS: Final = 10_000
#: Longest line, characters.
MAX_LINE: Final = 8192

_BANNER: Final = re.compile(r"SCMI Protocol v(\d+)\.(\d+) '(.*?):(.*?)' Firmware version (0x[0-9a-f]+)")
_END: Final = re.compile(r"@end (.*) status (\d+)$")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Section:
    """``status`` is the exit status of what printed it."""

    name: str
    status: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def values(self) -> dict[str, str]:
        """The lines of the form ``name: value``."""
        return dict(line.split(": ", 1) for line in self.lines if ": " in line)

    def numbers(self) -> dict[str, int]:
        """Those whose value is a whole number."""
        return {name: int(value) for name, value in self.values().items() if value.lstrip("-").isdigit()}


@dataclass(frozen=True, slots=True)
class Banner:
    """What Linux's SCMI core says when it has found the platform: the base protocol's version first."""

    major: int
    minor: int
    vendor: str
    sub_vendor: str
    implementation: int


class Console:
    """Feed it bytes as they come; :meth:`feed` gives the whole lines, cleaned of control characters."""

    def __init__(self) -> None:
        self.lines: Final[deque[str]] = deque(maxlen=MAX_LINES)
        self.sections: Final[deque[Section]] = deque(maxlen=MAX_SECTIONS)
        self.banner: Banner | None = None
        #: uptime in seconds at which init started and at which it had printed everything
        self.started: float | None = None
        self.ready: float | None = None
        #: sections so far, those forgotten included
        self.count = 0
        self._rest = ""
        self._open: str | None = None
        self._inside: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completed. A line longer than MAX_LINE is cut there."""
        *whole, rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
        while len(rest) > MAX_LINE:
            whole.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._rest = rest
        lines = [_ESCAPES.sub("", line.rstrip("\r"))[:MAX_LINE] for line in whole]
        for line in lines:
            self._read(line)
        return lines

    def section(self, name: str) -> Section | None:
        """The last section of this name."""
        return next((one for one in reversed(self.sections) if one.name == name), None)

    def _read(self, line: str) -> None:
        self.lines.append(line)
        if self._open is not None:
            end = _END.match(line)
            if end is None or end[1] != self._open:
                self._inside.append(line)
                return
            self.sections.append(Section(self._open, int(end[2]), tuple(self._inside)))
            self.count += 1
            self._open = None
        elif line.startswith("@begin "):
            self._open, self._inside = line.removeprefix("@begin "), []
        elif line.startswith("GUEST-INIT"):
            self.started = _uptime(line)
        elif line.startswith("GUEST-READY"):
            self.ready = _uptime(line)
        elif found := _BANNER.search(line):
            major, minor, vendor, sub_vendor, version = found.groups()
            self.banner = Banner(int(major), int(minor), vendor, sub_vendor, int(version, 16))


def _uptime(line: str) -> float:
    try:
        return float(line.rsplit(" ", 1)[-1])
    except ValueError:
        return 0.0
