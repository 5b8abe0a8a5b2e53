"""common.wire.reference: docs/wire.md is what the generator prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common.wire.messages import AnyMessage
from common.wire.reference import render

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_the_generated_one() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "common.wire.reference"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "wire.md").read_text(encoding="utf-8") == printed


def test_every_message_has_a_section_with_its_fields() -> None:
    page = render()
    for cls in AnyMessage.__args__:
        section = page.split(f"### `{cls.__struct_config__.tag}`\n")[1].split("\n### ")[0]
        for name in cls.__struct_fields__:
            assert f"`{name}`" in section
    assert "array of [int, bin, array of [int, int, int]]" in page
    assert "bin or nil" in page
    assert "`''`" in page
