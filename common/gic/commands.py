"""ITS commands (IHI 0069 §5.3): 32 bytes, four little-endian doublewords; the opcode is in DW0[7:0].

:data:`COMMANDS` is the one place where the layout stands: encoder, decoder, reference page and tests are driven by it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Final

from common.errors import LocalError
from common.gic.fields import Field

COMMAND_SIZE: Final = 32

#: The four doublewords of a command.
WORDS: Final = struct.Struct("<4Q")

MOVI: Final = 0x01
INT: Final = 0x03
CLEAR: Final = 0x04
SYNC: Final = 0x05
MAPD: Final = 0x08
MAPC: Final = 0x09
MAPTI: Final = 0x0A
MAPI: Final = 0x0B
INV: Final = 0x0C
INVALL: Final = 0x0D
MOVALL: Final = 0x0E
DISCARD: Final = 0x0F


@dataclass(slots=True)
class Command:
    """One command. Fields that its opcode does not have are 0.

    ``itt`` is the address of the ITT; ``size`` the number of EventID bits minus 1; ``rdbase`` and ``rdbase2`` are
    PE numbers (GITS_TYPER.PTA = 0).
    """

    op: int
    device: int = 0
    event: int = 0
    intid: int = 0
    icid: int = 0
    rdbase: int = 0
    rdbase2: int = 0
    size: int = 0
    itt: int = 0
    valid: int = 0


#: The fields, by the doubleword that they are in: the same one has the same place in every command that has it.
DW0_DEVICE: Final = Field(63, 32)
DW1_EVENT: Final = Field(31, 0)
DW1_INTID: Final = Field(63, 32)
DW1_SIZE: Final = Field(4, 0)
DW2_ICID: Final = Field(15, 0)
DW2_RDBASE: Final = Field(50, 16)
DW2_ITT: Final = Field(51, 8, scale=8)
DW2_VALID: Final = Field(63, 63)
DW3_RDBASE2: Final = Field(50, 16)

#: Attribute of Command, doubleword, field.
_DEVICE: Final = ("device", 0, DW0_DEVICE)
_EVENT: Final = ("event", 1, DW1_EVENT)
_INTID: Final = ("intid", 1, DW1_INTID)
_ICID: Final = ("icid", 2, DW2_ICID)
_RDBASE: Final = ("rdbase", 2, DW2_RDBASE)
_RDBASE2: Final = ("rdbase2", 3, DW3_RDBASE2)
_SIZE: Final = ("size", 1, DW1_SIZE)
_ITT: Final = ("itt", 2, DW2_ITT)
_VALID: Final = ("valid", 2, DW2_VALID)


@dataclass(slots=True, frozen=True)
class CommandSpec:
    """Name, opcode, what it does, and where its fields lie."""

    name: str
    op: int
    fields: tuple[tuple[str, int, Field], ...]
    doc: str


COMMANDS: Final = (
    CommandSpec("MOVI", MOVI, (_DEVICE, _EVENT, _ICID), "give an event another collection, pending state included"),
    CommandSpec("INT", INT, (_DEVICE, _EVENT), "make the event's LPI pending"),
    CommandSpec("CLEAR", CLEAR, (_DEVICE, _EVENT), "make the event's LPI not pending"),
    CommandSpec("SYNC", SYNC, (_RDBASE,), "earlier commands have taken effect at this redistributor"),
    CommandSpec("MAPD", MAPD, (_DEVICE, _SIZE, _ITT, _VALID), "give a device an ITT, or take it away"),
    CommandSpec("MAPC", MAPC, (_ICID, _RDBASE, _VALID), "give a collection a redistributor, or take it away"),
    CommandSpec("MAPTI", MAPTI, (_DEVICE, _EVENT, _INTID, _ICID), "map an event to an LPI and a collection"),
    CommandSpec("MAPI", MAPI, (_DEVICE, _EVENT, _ICID), "map an event to the LPI of the same number"),
    CommandSpec("INV", INV, (_DEVICE, _EVENT), "read the configuration of the event's LPI again"),
    CommandSpec("INVALL", INVALL, (_ICID,), "read the configuration of all LPIs of a collection again"),
    CommandSpec("MOVALL", MOVALL, (_RDBASE, _RDBASE2), "move all pending LPIs to another redistributor"),
    CommandSpec("DISCARD", DISCARD, (_DEVICE, _EVENT), "unmap an event and drop its pending state"),
)

SPEC: Final = {spec.op: spec for spec in COMMANDS}
if len(SPEC) != len(COMMANDS):  # pragma: no cover
    raise LocalError("two ITS commands with one opcode")

_ATTRIBUTES: Final = tuple(f.name for f in fields(Command))[1:]


def encode(command: Command) -> bytes:
    """The 32 bytes. Raises LocalError for an unknown opcode, a field the command lacks or a value that does not fit."""
    spec = SPEC.get(command.op)
    if spec is None:
        raise LocalError(f"no ITS command has opcode {command.op:#x}")
    words = [command.op, 0, 0, 0]
    present = set()
    for name, word, field in spec.fields:
        value = getattr(command, name)
        present.add(name)
        if not 0 <= value <= field.limit << field.scale or value & (1 << field.scale) - 1:
            raise LocalError(f"{spec.name}.{name} = {value:#x} does not fit its field")
        words[word] |= field.put(value)
    for name in _ATTRIBUTES:
        if name not in present and getattr(command, name):
            raise LocalError(f"{spec.name} has no field {name}")
    return WORDS.pack(*words)


def decode(data: bytes, offset: int = 0) -> Command:
    """The command at ``offset``. Reserved bits are ignored; an unknown opcode gives a Command with only ``op`` set."""
    words = WORDS.unpack_from(data, offset)
    command = Command(words[0] & 0xFF)
    spec = SPEC.get(command.op)
    if spec is not None:
        for name, word, field in spec.fields:
            setattr(command, name, field.get(words[word]))
    return command


def markdown() -> str:
    """The reference page of the commands."""
    lines = ["## ITS commands (IHI 0069 §5.3)", "", "| opcode | command | fields | |", "|---|---|---|---|"]
    for spec in COMMANDS:
        where = ", ".join(
            f"{name} DW{word}[{field.mask.bit_length() - 1}:{field.lsb}]" for name, word, field in spec.fields
        )
        lines.append(f"| {spec.op:#04x} | {spec.name} | {where} | {spec.doc} |")
    return "\n".join(lines) + "\n"
