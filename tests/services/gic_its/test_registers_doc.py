"""docs/its-registers.md is what the tables give, and has every register of both profiles."""

from __future__ import annotations

from pathlib import Path

from services.gic_its.profile import PROFILES
from services.gic_its.registers_doc import render
from services.gic_its.regmap import TRANSLATION_FRAME, distributor_frame, its_frame, redistributor_frame, resets

DOC = Path(__file__).resolve().parents[3] / "docs" / "its-registers.md"


def cells(page: str) -> dict[str, list[str]]:
    """Of every register by name: the cells of its row."""
    registers = page.partition("## ITS commands")[0]
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in registers.splitlines()]
    return {row[1]: row for row in lines if row[0].startswith("0x")}


def test_the_file_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == render(), "python -m services.gic_its.registers_doc > docs/…"


def test_every_register_has_a_row_with_its_values() -> None:
    rows = cells(render())
    names = set()
    for name, profile in PROFILES.items():
        for frame in (its_frame(profile), redistributor_frame(profile), distributor_frame(profile), TRANSLATION_FRAME):
            for row in frame:
                names.add(row.name)
                offset, _, width, sizes, access, _, writable, section, _ = rows[row.name]
                assert (offset, width, section) == (f"{row.offset:#06x}", str(row.width), row.section)
                assert sizes == "/".join(map(str, row.allowed))
                assert row.access.value == access or f"{name}: {row.access.value}" in access.split("<br>")
                assert f"{row.writable:#x}" == writable or f"{name}: {row.writable:#x}" in writable.split("<br>")
    assert rows.keys() == names


def test_profiles_that_differ_are_named_in_the_cell() -> None:
    rows = cells(render())
    assert rows["GITS_CREADR"][4] == "kvm: RO<br>qemu: RW"
    assert rows["GITS_IIDR"][5] == "kvm: 0x4b00043b<br>qemu: 0x43b"
    assert rows["GITS_BASER0"][5] == f"{resets(PROFILES['kvm'])['GITS_BASER0']:#x}"  # the same in both
    assert rows["GITS_CWRITER"][6] == "kvm: 0xfffe0<br>qemu: 0xfffffffffffffffe"


def test_fields_of_typer() -> None:
    page = render()
    assert "| 7:4 | ITT_entry_size | 8 | 12 |" in page
    assert "| 35:32 | CIDbits | – | 16 |" in page
    assert "| 0 | Physical | 1 | 1 |" in page
