"""The state file on disk: read at start, appended to before answers leave, rewritten when it has grown.

A write goes to the file at once: a killed process loses nothing. It is flushed to the disk when the file is rewritten
and now and then (:meth:`StateFile.sync`), so a machine that loses power may lose the last seconds, never the file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from common.errors import ConfigError, RemoteError
from services.scmi_platform import journal
from services.scmi_platform.platform import Platform
from services.scmi_platform.state import PlatformState

#: The file is rewritten, which waits for the disk, when what was appended exceeds both this and GROWTH times what was
#: written last. To read so much takes a tenth of a second.
LEAST_GROWTH: Final = 4 * 1024 * 1024
GROWTH: Final = 8
#: Seconds between two tries where the file cannot be written: each writes all of it.
RETRY: Final = 1.0


@dataclass(slots=True)
class StateStats:
    """What the file went through."""

    #: writes that told the disk what was set, and their bytes
    writes: int = 0
    written_bytes: int = 0
    #: writes that failed: what they said is tried again with the next
    write_errors: int = 0
    #: files that could not be believed, and entries that do not fit the board
    files_refused: int = 0
    entries_refused: int = 0
    #: records that were cut off when the writer was killed
    torn: int = 0


class StateFile:
    """What ``platform`` was told, in the file at ``path``. Raises ConfigError where that cannot be written, or where
    another process keeps its state there: ``path.lock`` is held as long as this is open."""

    def __init__(self, path: Path, platform: Platform) -> None:
        self.path: Final = path
        self.stats: Final = StateStats()
        self._log = structlog.get_logger("state").bind(file=str(path))
        self._state: Final = PlatformState(platform)
        self._fd = -1
        self._base = 0
        self._size = 0
        self._unsynced = False
        self._failing = False
        #: when a file that cannot be written is tried again
        self._again = 0.0
        self._clock: Final = platform.clock
        try:
            self._lock: Final = _lock(path.with_name(f"{path.name}.lock"))
        except OSError as error:
            held = isinstance(error, BlockingIOError)
            raise ConfigError(str(path), "state", "another process has it" if held else str(error)) from None
        try:
            self._load()
            self._rewrite()
        except (ConfigError, OSError) as error:
            os.close(self._lock)
            raise error if isinstance(error, ConfigError) else ConfigError(str(path), "state", str(error)) from None
        self._platform: Final = platform
        platform.save = self.save

    # --- reading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(str(self.path), "state", str(error)) from None
        try:
            entries, torn = journal.read(data)
        except RemoteError as error:
            self.stats.files_refused += 1
            self._log.error("state refused: the board's defaults stand", reason=str(error), kept=self._move_aside())
            return
        if torn:
            self.stats.torn += 1
            self._log.warning("state: the last record was cut off and is dropped", bytes=torn)
        refused = self._state.restore(entries)
        if refused:
            self.stats.entries_refused += len(refused)
            kept = self._move_aside()
            self._log.error("state: entries do not fit the board", entries=len(refused), first=refused[0], kept=kept)

    def _move_aside(self) -> str:
        """Keep the file under another name: it is somebody's data."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.refused-{number}")).exists():
            number += 1
        try:
            os.rename(self.path, aside)
        except OSError as error:
            raise ConfigError(str(self.path), "state", f"cannot be moved aside: {error}") from None
        return str(aside)

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, touched: set[tuple[int, int]]) -> bool:
        """Append what is set in these (protocol, domain). False: it could not be written, try again with the next."""
        if self._failing and self._clock() < self._again:
            return False
        try:
            if self._size - self._base > max(LEAST_GROWTH, GROWTH * self._base) or self._failing:
                self._rewrite()
            else:
                self._append(journal.records(self._state.entries(touched)))
        except OSError as error:
            self.stats.write_errors += 1
            self._again = self._clock() + RETRY
            if not self._failing:
                self._log.error("state cannot be written", reason=str(error))
            self._failing = True
            return False
        if self._failing:
            self._failing = False
            self._log.warning("state is written again")
        return True

    def _append(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        self.stats.writes += 1
        self.stats.written_bytes += written
        self._size += written
        self._unsynced = True
        if written < len(data):
            raise OSError(f"{written} of {len(data)} bytes written")

    def _rewrite(self) -> None:
        """Another file with what is set now, which takes the place of this one in one step."""
        data = journal.HEADER + journal.records(self._state.snapshot())
        beside = self.path.with_name(f"{self.path.name}.new")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
            os.rename(beside, self.path)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._base = self._size = len(data)
        self._unsynced = False
        self.stats.writes += 1
        self.stats.written_bytes += len(data)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def sync(self) -> Callable[[], None] | None:
        """What flushes to the disk what was appended so far; it blocks, so call it in a thread. None: nothing was."""
        if not self._unsynced:
            return None
        self._unsynced = False
        fd = os.dup(self._fd)  # the file may be rewritten meanwhile

        def flush() -> None:
            try:
                os.fdatasync(fd)
            except OSError as error:
                self.stats.write_errors += 1
                self._log.error("state cannot be flushed to the disk", reason=str(error))
            finally:
                os.close(fd)

        return flush

    def close(self) -> None:
        """Flush and let go. What is set from now on is not saved."""
        self._again = 0.0
        self._platform.commit()
        self._platform.save = lambda touched: True
        flush = self.sync()
        if flush is not None:
            flush()
        os.close(self._fd)
        os.close(self._lock)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock at ``path`` until it is closed, or its process ends. The file itself stays: who
    removed it would take the lock from somebody who waits for it. Raises BlockingIOError where it is held."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
