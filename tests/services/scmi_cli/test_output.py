"""Tables for terminals, columns for pipes."""

from __future__ import annotations

import io
import json

import pytest

from services.scmi_cli.output import print_json, print_line, print_record, print_table, printable, values
from services.scmi_cli.view import NOTHING, Cell, Record, plain

ROWS: list[Record] = [
    {"id": plain(0), "name": plain("cpu"), "rate": Cell(300, "300 Hz"), "parents": NOTHING},
    {"id": plain(11), "name": plain("[red]pixel"), "rate": Cell(1500, "1.5 kHz")},
]


def test_columns_line_up_and_empty_ones_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("clocks", ROWS)
    assert capsys.readouterr().out == "id  name        rate\n0   cpu         300 Hz\n11  [red]pixel  1.5 kHz\n"


def test_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("clocks", [])
    assert not capsys.readouterr().out.strip()


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    print_table("clocks", ROWS)
    said = screen.getvalue()
    assert "clocks" in said
    assert "[red]pixel" in said, "names are not markup"
    assert "│" in said


def test_a_record_is_a_line_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    print_record(ROWS[0])
    assert capsys.readouterr().out == "id       0\nname     cpu\nrate     300 Hz\nparents  -\n"


def test_json_is_a_line_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(values(ROWS[0]))
    print_json({"unit": "°C"})
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"id": 0, "name": "cpu", "rate": 300, "parents": None}
    assert "°C" in second


HOSTILE = "\x1b]0;owned\x07cpu\x9b31m\x7f\u202e\n"


def test_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    print_record({"name": plain(HOSTILE)})
    print_table("clocks", [{"name": plain(HOSTILE)}, {"name": plain("µ °C")}])
    said = capsys.readouterr().out
    assert said.replace("\n", "").replace("µ °C", "").isascii()
    assert said.replace("\n", "").replace("µ °C", "").isprintable()
    assert said.count(r"\x1b]0;owned\x07cpu\x9b31m\x7f\u202e\n") == 3
    print_json({"name": HOSTILE, "unit": "°C"})
    line = capsys.readouterr().out
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "°C" in line
    assert json.loads(line)["name"] == HOSTILE


def test_an_encoding_that_lacks_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printable("2 µs", "ascii") == r"2 \xb5s"
    assert printable("2 µs", "latin-1") == "2 µs"
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    print_record({"enable_latency": plain("2 µs")})
    print_json({"unit": "°C"})
    first, second = raw.getvalue().decode().splitlines()
    assert first == r"enable_latency  2 \xb5s"
    assert json.loads(second) == {"unit": "°C"}
