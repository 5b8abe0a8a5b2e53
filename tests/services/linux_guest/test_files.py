"""Where kernel and first file system are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from services.linux_guest import files


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "build"
    directory.mkdir()
    monkeypatch.setattr(files, "BUILD", directory)
    return directory


def test_the_one_given_goes_first(build: Path, tmp_path: Path) -> None:
    for place in (build / files.KERNEL, build / files.INITRD, tmp_path / "mine"):
        place.write_bytes(b"x")
    assert files.kernel(tmp_path / "mine", {}) == tmp_path / "mine"
    assert files.initrd(tmp_path / "mine") == tmp_path / "mine"
    assert files.kernel(None, {}) == build / files.KERNEL
    assert files.initrd(None) == build / files.INITRD


def test_then_the_variables_directory(build: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (build / files.KERNEL).write_bytes(b"x")
    assert files.kernel(None, {files.VARIABLE: str(given)}) == build / files.KERNEL
    (given / files.KERNEL).write_bytes(b"x")
    assert files.kernel(None, {files.VARIABLE: str(given)}) == given / files.KERNEL


def test_what_is_missing_is_named_with_what_makes_it(build: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make linux-guest"):
        files.kernel(None, {})
    with pytest.raises(ConfigError, match="make linux-guest"):
        files.initrd(None)
    with pytest.raises(ConfigError, match=f"{tmp_path}/given/Image or {build}/Image"):
        files.kernel(None, {files.VARIABLE: str(tmp_path / "given")})
    with pytest.raises(ConfigError, match=r"--kernel: there is no file .*none"):
        files.kernel(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"--initrd: there is no file .*none"):
        files.initrd(tmp_path / "none")


def test_the_board_ships() -> None:
    assert files.BOARD.is_file()
