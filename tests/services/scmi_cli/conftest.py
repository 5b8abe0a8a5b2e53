"""A real ``ringmesh serve scmi`` for a module's tests, and the command line as a user sees it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.mesh.ports import free_ports
from tests.services.scmi_platform.scmi_rig import SMALL

ROOT: Final = Path(__file__).resolve().parents[3]
TOKEN: Final = "firmware-token"
GUARD: Final = 60.0


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def scmi(*args: str, address: str = "", token: str = TOKEN) -> Said:
    """``ringmesh scmi ARGS`` in this process."""
    env = {"RINGMESH_SCMI": address or None, "RINGMESH_TOKEN": token or None, "COLUMNS": "200"}
    result = CliRunner().invoke(app, ["scmi", *args], env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def clean_env() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")}


@contextlib.contextmanager
def serving(board: Path = SMALL, *options: str) -> Iterator[str]:
    """A platform as a process of its own, with these options; yields the address of its links."""
    links, admin, its = free_ports(3)
    env = clean_env() | {
        "RINGMESH_TOKEN": TOKEN,
        "RINGMESH_BOARD": str(board),
        "RINGMESH_LISTEN__PORT": str(links),
        "RINGMESH_ADMIN__PORT": str(admin),
        "RINGMESH_ITS__PORT": str(its),
        "RINGMESH_LOG__LEVEL": "error",
    }
    command = [sys.executable, "-m", "services.cli", "serve", "scmi", *options]
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        end = time.monotonic() + GUARD
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", links), 1.0):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"127.0.0.1:{links}"
    finally:
        process.terminate()
        process.wait(GUARD)


@pytest.fixture(scope="module")
def platform() -> Iterator[str]:
    """The address of a platform with the small board, for all tests of the module."""
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def board() -> Path:
    """The board of ``address``; a module that wants another one says so."""
    return SMALL


@pytest.fixture(scope="module")
def address(board: Path) -> Iterator[str]:
    """The address of a platform with the module's board."""
    with serving(board) as made:
        yield made


@pytest.fixture
def guest() -> str:
    """Who asks, by the agent's name; a module that wants one says so."""
    return ""


@pytest.fixture
def ask(address: str, guest: str) -> Any:
    """``ask("get", …)``: a command that must succeed; what it printed, without the newline."""

    def ask(*args: str) -> Any:
        said = scmi(*args, *(["--guest", guest] if guest else []), address=address)
        assert said.code == 0, said
        return json.loads(said.out) if "--json" in args else said.out.rstrip("\n")

    return ask
