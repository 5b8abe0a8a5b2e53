"""common.runtime.config: files, environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from common.errors import ConfigError
from common.runtime.config import BaseConfig, ListenConfig, PeerConfig, explain, load, variables


class _Config(BaseConfig, kw_only=True):
    its: PeerConfig = msgspec.field(default_factory=lambda: PeerConfig(port=7103))
    peer: PeerConfig | None = None
    names: list[str] = msgspec.field(default_factory=list)
    ratio: float = 0.5
    fast: bool = False
    fewest: int | None = None


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "service.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_variables_of_a_command_line() -> None:
    assert variables(None) == {}
    assert variables(["log__level=info", "RINGMESH_TOKEN=a=b", "empty="]) == {
        "RINGMESH_LOG__LEVEL": "info",
        "RINGMESH_TOKEN": "a=b",
        "RINGMESH_EMPTY": "",
    }
    for pair in ("token", "=1"):
        with pytest.raises(ConfigError, match="NAME=VALUE is wanted"):
            variables([pair])


def test_defaults_bind_loopback() -> None:
    config = load(_Config, None, {})
    assert (config.listen.host, config.admin.host, config.token) == ("127.0.0.1", "127.0.0.1", "")
    assert config.its.port == 7103


def test_a_file_and_an_overlay(tmp_path: Path) -> None:
    path = _write(tmp_path, 'ratio = 0.25\nnames = ["a"]\n[listen]\nport = 1\n[its]\nport = 2\nhost = "its"\n')
    environ = {
        "RINGMESH_LISTEN__PORT": "7101",
        "RINGMESH_RATIO": "0.75",
        "RINGMESH_FAST": "true",
        "RINGMESH_NAMES": '["x", "y"]',
        "RINGMESH_TOKEN": "12345",
        "RINGMESH_FEWEST": "3",
        "RINGMESH_LOG__LEVEL": "debug",
        "HOME": "/elsewhere",
    }
    config = load(_Config, path, environ)
    assert config.listen == ListenConfig(port=7101)
    assert (config.ratio, config.fast, config.names, config.token) == (0.75, True, ["x", "y"], "12345")
    assert (config.fewest, config.log.level, config.its) == (3, "debug", PeerConfig(host="its", port=2))


def test_a_part_of_a_section_keeps_the_defaults_of_the_rest(tmp_path: Path) -> None:
    config = load(_Config, _write(tmp_path, "[its]\nhost = 'x'\n"), {"RINGMESH_LISTEN__HOST": "0.0.0.0"})
    assert config.its == PeerConfig(host="x", port=7103)
    assert config.listen.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("colour = 1", "colour", "there is no such setting"),
        ("[listen]\nprot = 1", "listen.prot", "there is no such setting"),
        ("[listen]\nport = 'x'", "listen.port", "expected `int`, got `str`"),
        ("[listen]\nport = 65536", "listen.port", "expected `int` <= 65535"),
        ("drain_seconds = -1", "drain_seconds", "expected `float` >= 0"),
        ("[log]\nformat = 'xml'", "log.format", "invalid enum value 'xml'"),
        ("[peer]\nhost = 'x'", "peer.port", "is required"),
        ("listen = 3", "listen", "expected `object`, got `int`"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, key: str, reason: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(_Config, path, {})
    assert (caught.value.source, caught.value.key) == (str(path), key)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("name", "value", "key", "reason"),
    [
        ("RINGMESH_COLOUR", "1", "colour", "there is no setting"),
        ("RINGMESH_LISTEN__PROT", "1", "listen.prot", "there is no setting"),
        ("RINGMESH_LISTEN", "1", "listen", "is a section"),
        ("RINGMESH_RATIO__X", "1", "ratio.x", "is a setting, not a section"),
        ("RINGMESH_LISTEN__PORT", "many", "listen.port", "expected `int`"),
        ("RINGMESH_LISTEN__PORT", "70000", "listen.port", "expected `int` <= 65535"),
        ("RINGMESH_FAST", "perhaps", "fast", "expected `bool`"),
        ("RINGMESH_NAMES", "[1]", "names", "expected `array`"),
        ("RINGMESH_LOG__FORMAT", "xml", "log.format", "invalid enum value 'xml'; there is auto, console, json"),
    ],
)
def test_what_a_variable_may_not_say(name: str, value: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_Config, None, {name: value})
    assert (caught.value.source, caught.value.key) == (name, key)
    assert reason in caught.value.reason


def test_names_at_the_beginning_of_a_reason_stay_as_they_are() -> None:
    assert explain("JSON is malformed: trailing characters (byte 3)")[1].startswith("JSON is malformed")
    assert explain("Expected `int`, got `str` - at `$.a`") == ("a", "expected `int`, got `str`")


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load(_Config, tmp_path / "missing.toml", {})
    with pytest.raises(ConfigError, match=r"service\.toml"):
        load(_Config, _write(tmp_path, "= 3"), {})


def test_a_section_variable_over_a_plain_value_is_the_files_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_Config, _write(tmp_path, "listen = 3"), {"RINGMESH_LISTEN__PORT": "1"})
    assert caught.value.key == "listen"


def test_the_token_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter22\n", encoding="utf-8")
    config = load(_Config, None, {"RINGMESH_TOKEN_FILE": str(secret)})
    assert config.token == "hunter22"
    assert "hunter22" not in repr(config)
    assert "token='***'" not in repr(load(_Config, None, {}))
    for environ, reason in (
        ({"RINGMESH_TOKEN_FILE": str(secret), "RINGMESH_TOKEN": "x"}, "both"),
        ({"RINGMESH_TOKEN_FILE": str(tmp_path / "none")}, "No such file"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            load(_Config, None, environ)
        assert (caught.value.source, caught.value.key) == ("RINGMESH_TOKEN_FILE", "token_file")
    secret.write_text(" \n", encoding="utf-8")
    with pytest.raises(ConfigError, match="empty"):
        load(_Config, _write(tmp_path, f"token_file = {str(secret)!r}"), {})
