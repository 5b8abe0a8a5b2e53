"""docs/scmi-commands.md, from the table of commands: ``python -m services.scmi_platform.commands_doc > FILE``."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from common.scmi.status import VENDOR_PROTOCOLS, ProtocolId
from services.scmi_platform.profile import PROFILES
from services.scmi_platform.protocol import GENERIC
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import Command, ProtocolTable, Registry

_INTRODUCTION = """\
# The commands of the SCMI platform

Every protocol, command and notification that `ringmesh serve scmi` answers or sends, as its table of commands has
them. This file is made by `python -m services.scmi_platform.commands_doc`; a test says when it is out of date.

- **§** is the section of DEN0056E. **Since** is the version of the protocol that brought the command: an agent that
  negotiated an older one, and every agent of a profile that is older, is answered NOT_SUPPORTED.
- **Payload** is the size of the request without its header, in bytes; any other is answered PROTOCOL_ERROR.
- **Delayed**: it may be asked for asynchronously, the delayed response follows. That, and what **needs P2A**, is
  answered NOT_SUPPORTED where there is no channel from platform to agent.
- **Repeatable**: a platform that comes back after it was killed executes the command again where it cannot know
  whether it was executed. What is not repeatable, and whatever asks for a delayed response, is answered COMMS_ERROR
  then.
"""


def render(registry: Registry = STANDARD) -> str:
    """The whole file, Markdown."""
    tables = [table for _, (table, _) in sorted(registry.protocols.items())]
    parts = [_INTRODUCTION, _profiles(tables), "## All protocols\n\n" + _commands(GENERIC.values(), 0)]
    return "\n".join(parts + [_protocol(table) for table in tables])


def _title(table: ProtocolTable) -> str:
    if table.protocol >= VENDOR_PROTOCOLS:
        return f"vendor ({table.protocol:#x})"
    return f"{ProtocolId(table.protocol).name.lower().replace('_', ' ')} ({table.protocol:#x})"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _head(*cells: str) -> str:
    return _row(cells) + _row("---" for _ in cells)


def _versions(table: ProtocolTable, profile: str) -> str:
    versions = PROFILES[profile].versions(table)
    return f"{versions[-1]:#x}" if versions else "–"


def _profiles(tables: list[ProtocolTable]) -> str:
    lines = [_head("Version reported", *(f"`{name}`" for name in PROFILES))]
    lines += [_row([_title(table), *(_versions(table, name) for name in PROFILES)]) for table in tables]
    return "## Profiles\n\n" + "".join(lines)


def _protocol(table: ProtocolTable) -> str:
    versions = ", ".join(f"{version:#x}" for version in table.versions)
    head = f"## {_title(table)}\n\nVersions: {versions}.\n\n"
    out = head + _commands(table.commands.values(), table.versions[0])
    if table.notifications is not None:
        out += "\n" + _head("Id", "Notification")
        out += "".join(_row((f"{int(one):#x}", one.name)) for one in sorted(table.notifications))
    return out


def _commands(rows: Iterable[Command], first: int) -> str:
    out = _head("Id", "Command", "§", "Since", "Payload", "Delayed", "Needs P2A", "Repeatable")
    for row in sorted(rows, key=lambda row: row.message):
        size = str(row.size) if row.size == row.max_size else f"{row.size} to {row.max_size}"
        since = f"{max(row.since, first):#x}" if first else "–"
        flags = (row.delayed is not None, row.p2a, row.repeatable)
        out += _row((f"{row.message:#x}", row.name, row.section, since, size, *("yes" if one else "" for one in flags)))
    return out


if __name__ == "__main__":
    sys.stdout.write(render())
