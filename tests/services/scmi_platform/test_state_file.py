"""The state file on a real file system: kills, damage, boards that changed, disks that are full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from common.errors import ConfigError
from services.scmi_platform import journal
from services.scmi_platform.state_file import RETRY, StateFile
from tests.services.scmi_platform.scmi_rig import Rig, words

CLOCK = 0x14


def opened(path: Path) -> tuple[Rig, StateFile]:
    rig = Rig()
    return rig, StateFile(path, rig.platform)


def rate(rig: Rig) -> int:
    return int.from_bytes(rig.ask(CLOCK, 0x6, words(0))[4:], "little")


def set_rate(rig: Rig, value: int) -> None:
    assert rig.ask(CLOCK, 0x5, words(0, 0, value, 0)) == words(0)
    rig.platform.commit()


def after_kill(path: Path) -> tuple[Rig, StateFile]:
    """What another process finds where the first was killed: it neither flushed nor closed."""
    copy = path.parent / "copy" / "state"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    return opened(copy)


def test_what_was_set_stays_set(tmp_path: Path) -> None:
    rig, state = opened(tmp_path / "state")
    set_rate(rig, 500)
    other, again = after_kill(tmp_path / "state")
    assert rate(other) == 500
    flush = state.sync()
    assert flush is not None
    flush()
    assert state.sync() is None
    state.close()
    again.close()
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == ["state", "state.lock"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def test_after_close_nothing_is_saved(tmp_path: Path) -> None:
    rig, state = opened(tmp_path / "state")
    state.close()
    set_rate(rig, 500)
    other, again = opened(tmp_path / "state")
    assert rate(other) == 300
    again.close()


def test_damage_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for number in (1, 2):
        rig, state = opened(path)
        set_rate(rig, 500)
        state.close()
        damaged = bytearray(path.read_bytes())
        damaged[-5] ^= 1
        path.write_bytes(damaged)
        other, again = opened(path)
        assert rate(other) == 300
        assert again.stats.files_refused == 1
        assert (tmp_path / f"state.refused-{number}").read_bytes() == damaged
        again.close()


def test_a_torn_record_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "state"
    rig, state = opened(path)
    set_rate(rig, 500)
    set_rate(rig, 600)
    state.close()
    path.write_bytes(path.read_bytes()[:-1])
    other, again = opened(path)
    assert (rate(other), again.stats.torn, again.stats.files_refused) == (500, 1, 0)
    again.close()


def test_another_board(tmp_path: Path) -> None:
    path = tmp_path / "state"
    good = (CLOCK, "cpu", {"rate": 500, "enabled": True, "extended": {}, "parent": None, "owner": 1})
    before = journal.HEADER + journal.records([good, (CLOCK, "gone", {})])
    path.write_bytes(before)
    rig, state = opened(path)
    assert (rate(rig), state.stats.entries_refused, state.stats.files_refused) == (500, 1, 0)
    assert (tmp_path / "state.refused-1").read_bytes() == before
    state.close()


def test_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scmi_platform.state_file.LEAST_GROWTH", 1000)
    rig, state = opened(tmp_path / "state")
    sizes = []
    for number in range(200):
        set_rate(rig, 100 * (1 + number % 17))
        sizes.append((tmp_path / "state").stat().st_size)
    assert max(sizes) < 5000
    assert state.stats.written_bytes > 10000
    other, again = after_kill(tmp_path / "state")
    assert rate(other) == rate(rig)
    state.close()
    again.close()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, state = opened(tmp_path / "state")
    real, room = os.write, [3, 0, 0]

    def write(fd: int, data: bytes) -> int:
        if room:
            left = room.pop(0)
            if not left:
                raise OSError(28, "No space left on device")
            return real(fd, data[:left])
        return real(fd, data)

    monkeypatch.setattr("services.scmi_platform.state_file.os.write", write)
    for value in (400, 500, 600):
        rig.now += RETRY
        set_rate(rig, value)
    assert state.stats.write_errors == 3
    set_rate(rig, 800)  # not tried at once: it would cost every command a file
    assert state.stats.write_errors == 3
    assert rig.platform.touched
    rig.now += RETRY
    set_rate(rig, 700)
    assert not rig.platform.touched
    assert state.stats.write_errors == 3
    state.close()
    other, again = opened(tmp_path / "state")
    assert rate(other) == 700
    again.close()


def test_the_last_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is, if it can be by the time that the service ends."""
    rig, state = opened(tmp_path / "state")
    with monkeypatch.context() as full:
        full.setattr("services.scmi_platform.state_file.os.write", lambda fd, data: 0)
        set_rate(rig, 500)
    assert rig.platform.touched
    state.close()
    other, again = opened(tmp_path / "state")
    assert rate(other) == 500
    again.close()


def test_one_file_one_process(tmp_path: Path) -> None:
    _, state = opened(tmp_path / "state")
    with pytest.raises(ConfigError, match="another process has it"):
        opened(tmp_path / "state")
    state.close()
    _, again = opened(tmp_path / "state")
    again.close()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state"):
        opened(tmp_path / "no such directory" / "state")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigError, match="state"):
        opened(tmp_path / "directory")
