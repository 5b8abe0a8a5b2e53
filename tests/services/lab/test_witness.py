"""Witness files: small, readable, byte-stable, not trusted."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FrameError
from services.lab.failure import Failure
from services.lab.witness import Witness, load, save

ENTRY = st.one_of(st.sampled_from(["poller", "cpu1", "é"]), st.integers(0, 70000))


def witness(schedule: tuple[str | int, ...]) -> Witness:
    failure = Failure("deadlock", "", "poller waits in relax() → used.idx")
    return Witness("aba-wrap", "index16", "sc", "exhaustive", 1, 0, 2000, failure, schedule)


@given(st.lists(ENTRY))
def test_round_trip(schedule: list[str | int]) -> None:
    original = witness(tuple(schedule))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "w.json"
        save(original, path)
        assert load(path) == original


def test_turns_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    save(witness((1, "a", "a", "b", 0, "b")), path)
    text = path.read_text()
    assert '"steps": 4,' in text
    assert '    1,\n    ["a", 2],\n    ["b", 1],\n    0,\n    ["b", 1]\n' in text
    assert load(path).schedule == (1, "a", "a", "b", 0, "b")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": 1', '"version": 2'),
        ('["a", 1]', '["a", 0]'),
        ('["a", 1]', '["a", 99999999]'),
        ('["a", 1]', '["a", 1000000],["a", 1000000]'),
        ('["a", 1]', '["a"]'),
        ('["a", 1]', '"a"'),
        ('"limit": 2000', '"limit": 0'),
        ('"seed": 1', '"seed": "x"'),
        ('"seed": 1', '"seed": 1, "colour": 2'),
        ('"scenario"', '"scenari"'),
        ("{", ""),
        ("deadlock", "\ud800"),
    ],
)
def test_files_that_are_none(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "w.json"
    save(witness(("a",)), path)
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogatepass"))
    with pytest.raises(FrameError):
        load(path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_bytes(b" " * ((16 << 20) + 1))
    with pytest.raises(FrameError, match="16777217"):
        load(path)
