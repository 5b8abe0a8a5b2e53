"""Lines with a prefix, and panes."""

from __future__ import annotations

import io

from rich.console import Console

from common.scmi.header import pack
from common.scmi.trace_lines import dump_line
from services.linux_guest.screen import Panes, Plain

LINE = dump_line(3.0, "agent", pack(0x14, 0x6, 5), "RESP", 0, b"\x2a", pid=1)


def test_plain_lines() -> None:
    lines: list[str] = []
    with Plain(lines.append) as screen:
        screen.status("starting")
        screen.show("console", "Booting Linux")
        screen.show("scmi", LINE)
        screen.show("log", "oops")
    assert lines == ["starting", "console| Booting Linux", f"   scmi| {LINE}", "    log| oops"]


def test_panes_side_by_side() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, height=12, force_terminal=True, color_system=None)
    with Panes(console) as screen:
        screen.status("admin http://x")
        for number in range(50):
            screen.show("console", f"line {number}")
        screen.show("qemu", "[not] markup")
        screen.show("scmi", LINE)
        screen.show("log", "a warning")
    last = out.getvalue().split("╭")[-2:]
    drawn = "╭".join(last)
    rows = drawn.splitlines()
    assert any("line 42" in row and "→ RESP CLOCK_RATE_GET #5 SUCCESS 2a" in row for row in rows), drawn
    assert "[not] markup" in drawn
    assert "a warning" in drawn
    assert "line 49" in drawn
    assert "line 30" not in drawn  # it has scrolled away
    assert "admin http://x" in drawn
