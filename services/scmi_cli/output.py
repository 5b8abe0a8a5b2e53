"""What is printed: JSON, tables where a person reads them, aligned columns where a program may.

Names are the platform's: a control character in one would be obeyed by the terminal, so it is shown as ``\\x1b``, as is
what the encoding of the output does not have.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer

from services.scmi_cli.view import NOTHING, Record

_GAP: Final = "  "
#: C0, DEL and C1, and the marks that turn the direction of writing.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str, encoding: str | None = None) -> str:
    """``text`` with nothing in it that a terminal obeys, and nothing that ``encoding`` (None: that of standard output)
    cannot say."""
    shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def print_line(text: str) -> None:
    """One line of text."""
    typer.echo(printable(text))


def values(record: Record) -> dict[str, Any]:
    """A record for JSON."""
    return {name: cell.value for name, cell in record.items()}


def print_json(document: Any) -> None:
    """One document a line, so that a stream of them can be read line by line."""
    # escapes that JSON leaves to us mean the same inside its strings, and there are no others outside
    text = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(document, ensure_ascii=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_record(record: Record) -> None:
    """One thing: a line a field."""
    width = max(map(len, record), default=0)
    for name, cell in record.items():
        print_line(f"{name:{width}}{_GAP}{cell.text}")


def print_table(title: str, records: Sequence[Record]) -> None:
    """Many things of one kind: a line each, a column a field. Columns that say nothing of any of them are left out."""
    names = list(dict.fromkeys(name for record in records for name in record))
    names = [name for name in names if any(record.get(name, NOTHING).text != NOTHING.text for record in records)]
    rows = [[printable(record.get(name, NOTHING).text) for name in names] for record in records]
    if sys.stdout.isatty():
        _rich(title, names, rows)
        return
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in [names, *rows]:
        line = _GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _rich(title: str, names: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
