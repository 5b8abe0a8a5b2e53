"""common.runtime.logging: formats, levels, secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from common.runtime.logging import configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    configure("nic", stream=out)
    structlog.get_logger("link").warning("peer refused", link="guest", token="hunter22", Authorization="Bearer x")
    logging.getLogger("asyncio").error("from the library: %s", "text")
    structlog.get_logger("link").debug("not at this level")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["service"], first["level"], first["logger"]) == (
        "peer refused",
        "nic",
        "warning",
        "link",
    )
    assert (first["token"], first["Authorization"], first["link"]) == ("***", "***", "guest")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["service"]) == ("from the library: text", "nic")


def test_exceptions_are_one_json_line() -> None:
    out = io.StringIO()
    configure("nic", "json", "debug", _tty(out))
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]


def _tty(stream: io.StringIO) -> io.StringIO:
    return stream


def test_readable_lines_in_a_terminal() -> None:
    out = _Terminal()
    configure("nic", stream=out, level="debug")
    structlog.get_logger("x").debug("hello", queue=3)
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_console_can_be_forced() -> None:
    out = io.StringIO()
    configure("nic", "console", stream=out)
    structlog.get_logger("x").info("hello", queue=3)
    assert "queue=3" in out.getvalue()
