"""What is printed: JSON, tables where a person reads them, aligned columns where a program may."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from services.scmi_cli.view import NOTHING, Record

_GAP: Final = "  "


def values(record: Record) -> dict[str, Any]:
    """A record for JSON."""
    return {name: cell.value for name, cell in record.items()}


def print_json(document: Any) -> None:
    """One document a line, so that a stream of them can be read line by line."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_record(record: Record) -> None:
    """One thing: a line a field."""
    width = max(map(len, record), default=0)
    for name, cell in record.items():
        sys.stdout.write(f"{name:{width}}{_GAP}{cell.text}\n")


def print_table(title: str, records: Sequence[Record]) -> None:
    """Many things of one kind: a line each, a column a field. Columns that say nothing of any of them are left out."""
    names = list(dict.fromkeys(name for record in records for name in record))
    names = [name for name in names if any(record.get(name, NOTHING).text != NOTHING.text for record in records)]
    rows = [[record.get(name, NOTHING).text for name in names] for record in records]
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
