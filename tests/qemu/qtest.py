"""A client of QEMU's qtest protocol with QMP beside it: a machine that is driven from outside.

qtest answers each line with one line, so requests can be sent in bunches. Both sockets are inherited pairs: nothing
lies in the file system and there is nothing to wait for. The accelerator is a stopped TCG, since Debian builds QEMU
without the one named qtest; devices do not see the difference.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

PROGRAM: Final = "qemu-system-aarch64"
#: The first version that the recorded cases agree with.
NEEDED: Final = (7, 2)
#: Hang guard of one answer, seconds.
GUARD: Final = 120.0
#: Requests under way at once: few enough for both socket buffers.
_BUNCH: Final = 64
_LETTERS: Final = {1: "b", 2: "w", 4: "l", 8: "q"}


class QtestError(Exception):
    """QEMU refused a request, or ended."""


def missing() -> str:
    """Why QEMU cannot be had here, "" where it can."""
    path = shutil.which(PROGRAM)
    if path is None:
        return f"there is no {PROGRAM}: `make qemu` installs it"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=GUARD, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    version = tuple(int(part) for part in found.groups()) if found else ()
    if version < NEEDED:
        number = ".".join(map(str, version)) or "of no known version"
        return f"{path} is {number}, {'.'.join(map(str, NEEDED))} is needed"
    return ""


class Machine:
    """One QEMU process. ``arguments``: everything but accelerator, qtest and monitor; ``incoming``: a socket that a
    migration arrives on."""

    def __init__(self, arguments: Sequence[str], incoming: socket.socket | None = None) -> None:
        self._qtest, qtest = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        theirs = [qtest, monitor, *([incoming] if incoming else [])]
        command = [
            PROGRAM, *arguments,
            "-accel", "tcg,thread=single", "-S", "-display", "none", "-nodefaults", "-qtest-log", "none",
            "-chardev", f"socket,id=qtest,fd={qtest.fileno()}", "-qtest", "chardev:qtest",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()}", "-mon", "chardev=monitor,mode=control",
            *(["-incoming", f"fd:{incoming.fileno()}"] if incoming else []),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            pass_fds=[end.fileno() for end in theirs],
        )
        self._ended = weakref.finalize(self, _end, self._process)
        for end in theirs:
            end.close()
        for end in (self._qtest, self._monitor):
            end.settimeout(GUARD)
        self._answers = self._qtest.makefile("rb")
        self._messages = self._monitor.makefile("rb")
        self._events: list[object] = []
        try:
            self._message()
            self.qmp("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process; twice is once."""
        self._ended()
        for thing in (self._answers, self._messages, self._qtest, self._monitor, self._said):
            thing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    # --- qtest --------------------------------------------------------------------------------------------------------

    def requests(self, lines: Sequence[str]) -> list[str]:
        """Each line's answer without its OK. Raises QtestError."""
        answers = []
        for start in range(0, len(lines), _BUNCH):
            bunch = lines[start : start + _BUNCH]
            try:
                self._qtest.sendall("".join(f"{line}\n" for line in bunch).encode())
                answers += [_granted(line, self._answers.readline().decode()) for line in bunch]
            except OSError as error:
                raise QtestError(f"{bunch[0]}: {error}; {self._last_words()}") from None
        return answers

    def load(self, addr: int, size: int) -> int:
        """One access of 1, 2, 4 or 8 bytes."""
        return int(self.requests([load(addr, size)])[0], 16)

    def store(self, addr: int, size: int, value: int) -> None:
        self.requests([store(addr, size, value)])

    def read(self, addr: int, length: int) -> bytes:
        return base64.b64decode(self.requests([f"b64read {addr:#x} {length:#x}"])[0]) if length else b""

    def write(self, addr: int, data: bytes) -> None:
        if data:
            self.requests([f"b64write {addr:#x} {len(data):#x} {base64.b64encode(data).decode()}"])

    def fill(self, addr: int, length: int, byte: int) -> None:
        if length:
            self.requests([f"memset {addr:#x} {length:#x} {byte:#x}"])

    # --- monitor ------------------------------------------------------------------------------------------------------

    def qmp(self, name: str, fds: Iterable[int] = (), **arguments: object) -> Any:
        """One command's return value. Raises QtestError."""
        command = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        socket.send_fds(self._monitor, [json.dumps(command).encode()], list(fds))
        self._events.clear()
        while True:
            message = self._message()
            if "error" in message:
                raise QtestError(f"{name}: {message['error']}")
            if "return" in message:
                return message["return"]
            self._events.append(message["event"])

    def wait_event(self, name: str) -> None:
        """An event of the last command, which may have come before its return."""
        while name not in self._events:
            self._events.append(self._message().get("event"))

    def _message(self) -> dict[str, Any]:
        try:
            line = self._messages.readline()
        except OSError as error:
            raise QtestError(f"{error}; {self._last_words()}") from None
        if not line:
            raise QtestError(self._last_words())
        return dict(json.loads(line))

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._said.seek(0)
        return f"QEMU ended ({self._process.poll()}): {self._said.read().decode(errors='replace')[-2000:]}"


def load(addr: int, size: int) -> str:
    return f"read{_LETTERS[size]} {addr:#x}"


def store(addr: int, size: int, value: int) -> str:
    return f"write{_LETTERS[size]} {addr:#x} {value:#x}"


def _granted(line: str, answer: str) -> str:
    """What stands after the OK."""
    if not answer:
        raise ConnectionResetError("no answer")
    if not answer.startswith("OK"):
        raise QtestError(f"{line[:80]}: {answer.strip()}")
    return answer[2:].strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """A machine under qtest has nothing to lose."""
    process.kill()
    process.wait()
