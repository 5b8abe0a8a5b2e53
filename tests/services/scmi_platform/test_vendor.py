"""Vendors' protocols: modules that the board names, and why some are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import Registry
from services.scmi_platform.vendor import registry_for
from tests.services.scmi_platform.scmi_rig import Rig, words

GOOD = """
from enum import IntEnum
from services.scmi_platform.protocol import ProtocolServer
from services.scmi_platform.registry import ProtocolTable

class Command(IntEnum):
    ACME_PING = 0x3

TABLE = ProtocolTable(0x80, (0x10000,))

class Server(ProtocolServer):
    @TABLE.command(Command.ACME_PING, section="acme")
    def ping(self, agent, request):
        return b"pong"

    def of_device(self, device):
        return (0,) if device.name == "acme" else ()

def register(registry):
    registry.serve(TABLE, Server)
"""
BOARD = """
agents = [{ name = "a", trusted = true }, { name = "b", protocols = ["0x80"] }, { name = "c", protocols = ["clock"] }]
devices = [{ name = "other" }, { name = "acme" }]
clocks = [{ name = "c", rates = [1], rate = 1 }]
[platform]
vendor = "acme"
vendor_protocols = [%s]
"""


def board(folder: Path, *modules: str) -> Path:
    """A board file that names modules with these texts, as files."""
    names = []
    for index, text in enumerate(modules):
        (folder / f"module{index}.py").write_text(text)
        names.append(f'"module{index}.py"')
    path = folder / "board.toml"
    path.write_text(BOARD % ", ".join(names))
    return path


def registry(path: Path) -> Registry:
    return registry_for(Board.load(path), str(path))


def rig_of(path: Path) -> Rig:
    return Rig(path, registry=registry(path))


def test_a_vendors_protocol_is_one_like_any_other(tmp_path: Path) -> None:
    rig = rig_of(board(tmp_path, GOOD))
    assert rig.ask(0x80, 0x3) == words(0) + b"pong"
    assert rig.ask(0x80, 0x0) == words(0, 0x10000)
    assert rig.ask(0x80, 0x1) == words(0, 0)
    assert rig.ask(0x80, 0x2, words(0x3)) == words(0, 0)
    assert rig.ask(0x80, 0x2, words(0x4)) == words(-4)
    assert rig.ask(0x80, 0x10, words(0x10000)) == words(0)
    assert rig.ask(0x80, 0x3, b"\0") == words(-10)
    assert rig.ask(0x80, 0x4) == words(-1)
    assert rig.ask(0x10, 0x6, words(0)) == words(0, 2) + bytes((0x14, 0x80, 0, 0))  # BASE_DISCOVER_LIST_PROTOCOLS


def test_agents_that_are_served_it(tmp_path: Path) -> None:
    rig = rig_of(board(tmp_path, GOOD))
    assert rig.ask(0x80, 0x3, agent=2) == words(0) + b"pong"
    assert rig.ask(0x14, 0x0, agent=2) == words(-1)
    assert rig.ask(0x80, 0x3, agent=3) == words(-1)
    assert rig.ask(0x10, 0x6, words(0), agent=2) == words(0, 1) + bytes((0x80, 0, 0, 0))


@pytest.mark.parametrize("name", ["0x7f", "0x80 ", "0x180", "128", "vendor"])
def test_protocols_that_no_agent_can_be_served(tmp_path: Path, name: str) -> None:
    path = board(tmp_path)
    path.write_text(path.read_text().replace("0x80", name))
    with pytest.raises(ConfigError, match=r"agents\[1\].protocols: .* is none of clock, .* nor a vendor's"):
        Board.load(path)


def test_a_protocol_knows_what_of_it_belongs_to_a_device(tmp_path: Path) -> None:
    rig = rig_of(board(tmp_path, GOOD))
    assert rig.ask(0x10, 0x9, words(2, 0, 0)) == words(0)
    assert 0x80 not in rig.platform.agents[2].denied
    assert rig.ask(0x10, 0xA, words(2, 1, 0x14, 0)) == words(0)  # SET_PROTOCOL_PERMISSIONS: of another protocol
    assert 0x80 not in rig.platform.agents[2].denied
    assert rig.ask(0x10, 0xA, words(2, 1, 0x80, 0)) == words(0)
    assert rig.platform.agents[2].denied[0x80] == {0}
    assert rig.ask(0x10, 0xA, words(2, 1, 0x80, 1)) == words(0)
    assert 0x80 not in rig.platform.agents[2].denied


def test_platforms_do_not_share_what_is_registered(tmp_path: Path) -> None:
    before = dict(STANDARD.protocols)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    one = rig_of(board(first, GOOD))
    other = rig_of(board(second, GOOD.replace("0x80", "0x81").replace("pong", "gnop")))
    assert [0x80 in rig.platform.protocols for rig in (one, other)] == [True, False]
    assert [0x81 in rig.platform.protocols for rig in (one, other)] == [False, True]
    assert other.ask(0x81, 0x3) == words(0) + b"gnop"
    assert STANDARD.protocols == before
    again = rig_of(first / "board.toml")  # the module is imported once
    assert again.platform.protocols[0x80].table is one.platform.protocols[0x80].table
    assert again.platform.protocols[0x80] is not one.platform.protocols[0x80]


def test_modules_on_the_path_and_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "acme_firmware"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "ddr.py").write_text(GOOD.replace("0x80", "0xFF"))
    path = board(tmp_path, GOOD)
    path.write_text(path.read_text().replace('"module0.py"', '"module0.py", "acme_firmware.ddr"'))
    try:
        rig = rig_of(path)
    finally:
        for name in [name for name in sys.modules if name.startswith("acme_firmware")]:
            del sys.modules[name]
    assert list(rig.platform.protocols) == [0x10, 0x14, 0x80, 0xFF]


def test_boards_that_name_none() -> None:
    text = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
    registry = registry_for(Board.parse(text), "board")
    assert registry is not STANDARD
    assert registry.protocols == STANDARD.protocols


REFUSED = [
    ("syntax error", "SyntaxError"),
    ("import a_module_that_nobody_has", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("1 / 0", "ZeroDivisionError"),
    ("", "the module has no function register(registry)"),
    ("register = 3", "the module has no function register(registry)"),
    ("def register(): pass", "TypeError"),
    ("def register(registry): pass", "registers no protocol"),
    (GOOD.replace("0x80", "0x7F"), "protocol 0x7f is not a vendor's: those are 0x80 to 0xff"),
    (GOOD.replace("0x80", "0x1A"), "protocol 0x1a is not a vendor's"),
    (GOOD.replace("0x80", "0x100"), "protocol 0x100 is not a vendor's"),
    (GOOD.replace("0x80", "0x14"), "SCMI protocol 0x14 is already served"),
    (GOOD.replace("(0x10000,)", "()"), "has versions []"),
    (GOOD.replace("(0x10000,)", "(0x20000, 0x10000)"), "has versions [131072, 65536]: ascending"),
    (GOOD.replace("serve(TABLE, Server)", "serve(TABLE, dict)"), "is served by <class 'dict'>, which is no Protocol"),
    (GOOD.replace("serve(TABLE, Server)", "serve(TABLE, 3)"), "is served by 3, which is no ProtocolServer"),
    (GOOD.replace("= 0x3", "= 0x10"), "binds ACME_PING to message 0x10"),
    (GOOD.replace("= 0x3", "= 0x2"), "binds ACME_PING to message 0x2"),
    (GOOD.replace("= 0x3", "= 0x100"), "binds ACME_PING to message 0x100"),
    (GOOD.replace("serve(TABLE, Server)", "serve(TABLE, ProtocolServer)"), "to ping, which ProtocolServer has not"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(tmp_path: Path, text: str, reason: str) -> None:
    before = dict(STANDARD.protocols)
    path = board(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        registry(path)
    said = str(error.value)
    assert said.startswith(f"{path}: platform.vendor_protocols[0]: 'module0.py'"), said
    assert reason in said, said
    assert STANDARD.protocols == before


def test_a_module_that_failed_is_imported_again(tmp_path: Path) -> None:
    path = board(tmp_path, "1 / 0")
    with pytest.raises(ConfigError):
        registry(path)
    board(tmp_path, GOOD)
    assert 0x80 in registry(path).protocols


def test_the_second_of_two_that_serve_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vendor_protocols\[1\]: 'module1.py': LocalError: .*0x80 is already served"):
        registry(board(tmp_path, GOOD, GOOD))


@pytest.mark.parametrize("name", ["no_such_module", "no_such_file.py", "", ".relative"])
def test_modules_that_are_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD % f'"{name}"')
    with pytest.raises(ConfigError, match=r"platform.vendor_protocols\[0\]: "):
        registry(path)
