"""docs/its-registers.md, from the tables: ``python -m services.gic_its.registers_doc > docs/its-registers.md``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from common.gic import commands
from common.gic.fields import Field
from common.gic.registers import (
    TYPER_CIDBITS,
    TYPER_DEVBITS,
    TYPER_HCC,
    TYPER_ID_BITS,
    TYPER_ITT_ENTRY_SIZE,
)
from common.registers import Register, RegisterMap
from services.gic_its.profile import PROFILES, Profile
from services.gic_its.regmap import (
    TRANSLATION_FRAME,
    distributor_frame,
    distributor_resets,
    its_frame,
    redistributor_frame,
    redistributor_resets,
    resets,
)

_INTRODUCTION = """\
# The registers of the ITS

Every register of `ringmesh serve its`, as its tables have it. This file is made by
`python -m services.gic_its.registers_doc`; a test says when it is out of date. Sections are those of Arm IHI 0069.

The configuration chooses a profile: **kvm** is Linux KVM's ITS, **qemu** is QEMU's (values and masks read from the
machine `virt` of QEMU 10.0.2). A cell that differs between them says both; a cell with one value holds for both.

- **offset** is in the frame, in bytes; **bits** is the register's width.
- **sizes** are the widths of access in bytes. A 64-bit register may be read and written by aligned halves, which merge
  into the whole; of GITS_TRANSLATER the lower half may be written alone. Any other access, and any offset that is not
  listed, reads as zero and ignores writes.
- **access**: RW, RO (writes are ignored), WO (reads as zero), RAZ/WI.
- **reset** is the value out of reset, **writable** has a 1 for each bit that a write can change; the other bits keep
  their value.
"""

_Frames = Callable[[Profile], RegisterMap]
_Resets = Callable[[Profile], Mapping[str, int]]


def _no_resets(profile: Profile) -> Mapping[str, int]:
    return {}


#: Heading, what stands below it, rows by profile, reset values by profile.
_FRAMES: Final[tuple[tuple[str, str, _Frames, _Resets], ...]] = (
    ("`its`: GITS_*, the control frame", "", its_frame, resets),
    ("`trans`: the translation frame", "", lambda profile: TRANSLATION_FRAME, _no_resets),
    (
        "`gicr0`, `gicr1`, …: GICR_*, RD_base of one redistributor",
        "GICR_TYPER as PE 0 of several has it: the last PE has Last, and each its own number and affinity.\n\n",
        redistributor_frame,
        lambda profile: redistributor_resets(profile, 0, 2),
    ),
    (
        "`gicd`: GICD_*, the distributor",
        "One Security state, affinity routing always on. The registers of SPIs are not there.\n\n",
        distributor_frame,
        distributor_resets,
    ),
)

#: GITS_TYPER: name, field, and what is added to give the number that engineers mean.
_TYPER: Final = (
    ("Physical", Field(0, 0), 0, "physical LPIs"),
    ("ITT_entry_size", TYPER_ITT_ENTRY_SIZE, 1, "bytes of an ITT entry"),
    ("ID_bits", TYPER_ID_BITS, 1, "bits of an EventID"),
    ("Devbits", TYPER_DEVBITS, 1, "bits of a DeviceID"),
    ("PTA", Field(19, 19), 0, "0: RDbase is a PE number, 1: an address"),
    ("HCC", TYPER_HCC, 0, "collections that need no memory"),
    ("CIDbits", TYPER_CIDBITS, 1, "bits of an ICID, where CIL = 1; otherwise 16"),
    ("CIL", Field(36, 36), 0, "CIDbits counts"),
)


def render() -> str:
    """The whole file, Markdown."""
    parts = [_INTRODUCTION, _waits()]
    for heading, note, frame, values in _FRAMES:
        parts.append(f"## {heading}\n\n{note}{_table(frame, values)}")
    parts.append(_typer())
    parts.append(commands.markdown())
    return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _head(*cells: str) -> str:
    return _row(cells) + _row("---" for _ in cells)


def _both(cells: Iterable[str]) -> str:
    """One cell for all profiles: each with its name where they differ."""
    by_profile = dict(zip(PROFILES, cells, strict=True))
    if len(set(by_profile.values())) == 1:
        return next(iter(by_profile.values()))
    return "<br>".join(f"{name}: {cell}" for name, cell in by_profile.items())


def _table(frame: _Frames, values: _Resets) -> str:
    maps = [frame(profile) for profile in PROFILES.values()]
    starts = [values(profile) for profile in PROFILES.values()]
    lines = [_head("offset", "register", "bits", "sizes", "access", "reset", "writable", "section", "what")]
    for first in maps[0]:
        rows: list[Register] = [rows.row(first.name) for rows in maps]
        lines.append(
            _row(
                (
                    f"{first.offset:#06x}",
                    first.name,
                    str(first.width),
                    "/".join(map(str, first.allowed)),
                    _both(row.access.value for row in rows),
                    _both(f"{start.get(row.name, row.reset):#x}" for row, start in zip(rows, starts, strict=True)),
                    _both(f"{row.writable:#x}" for row in rows),
                    first.section,
                    _both(row.doc for row in rows),
                )
            )
        )
    return "".join(lines)


def _waits() -> str:
    names = {row.name: None for _, _, frame, _ in _FRAMES for p in PROFILES.values() for row in frame(p) if row.waits}
    return f"Writes of these take effect in their order, and are answered when they have: {', '.join(names)}.\n"


def _typer() -> str:
    lines = ["## GITS_TYPER by field (§12.19)\n\n", _head("bits", "field", *PROFILES, "what")]
    for name, field, more, what in _TYPER:
        top = field.lsb + field.limit.bit_length() - 1
        bits = f"{top}:{field.lsb}" if top > field.lsb else str(top)
        counts = (
            "–" if field is TYPER_CIDBITS and not p.cil else str(field.get(p.typer) + more) for p in PROFILES.values()
        )
        lines.append(_row([bits, name, *counts, what]))
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render())
