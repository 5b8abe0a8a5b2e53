"""``ringmesh guest``: what is missing is named, trees and ladders are printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.linux_guest import files
from services.linux_guest.screen import Plain
from tests.services.linux_guest.fake_qemu import install
from tests.services.linux_guest.test_ftrace import REAL
from tests.services.linux_guest.test_trace_ladder import platform

runner = CliRunner()


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(install(tmp_path / "bin")))


def test_help_lists_what_there_is() -> None:
    assert "guest" in runner.invoke(app, ["--help"]).output
    shown = runner.invoke(app, ["guest", "--help"]).output
    assert all(name in shown for name in ("boot", "tree", "ladder"))


def test_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("boot", "tree"):
        done = runner.invoke(app, ["guest", name])
        assert done.exit_code == 2
        assert "qemu-system-arm" in done.output


@pytest.mark.usefixtures("qemu")
def test_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BUILD", tmp_path)
    monkeypatch.delenv(files.VARIABLE, raising=False)
    done = runner.invoke(app, ["guest", "boot"])
    assert done.exit_code == 2
    assert "make linux-guest" in done.output


@pytest.mark.usefixtures("qemu")
def test_a_setting_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"")
    paths = ["--kernel", str(tmp_path / "k"), "--initrd", str(tmp_path / "k")]
    done = runner.invoke(app, ["guest", "boot", *paths, "--set", "NONSENSE"])
    assert done.exit_code == 2
    assert "NAME=VALUE is wanted" in done.output


@pytest.mark.usefixtures("qemu")
def test_a_tree(tmp_path: Path) -> None:
    done = runner.invoke(app, ["guest", "tree", "--threshold", "77"])
    assert done.exit_code == 0
    assert "atomic-threshold-us = <0x4D>" in done.output or "atomic-threshold-us = <0x4d>" in done.output
    out = tmp_path / "guest.dtb"
    assert runner.invoke(app, ["guest", "tree", "--out", str(out)]).exit_code == 0
    assert out.read_bytes()[:4] == b"\xd0\r\xfe\xed"
    assert runner.invoke(app, ["guest", "tree", "--out", str(tmp_path / "no" / "x")]).exit_code == 1


def test_a_ladder(tmp_path: Path) -> None:
    trace, lines, answer, wrong = (tmp_path / name for name in ("trace", "lines", "answer", "wrong"))
    trace.write_text(REAL)
    lines.write_text(platform())
    answer.write_text(json.dumps({"lines": platform().splitlines()}))
    wrong.write_text(platform(b"\x00"))
    alone = runner.invoke(app, ["guest", "ladder", str(trace)])
    assert alone.exit_code == 0
    assert "begin CLOCK_RATE_GET #48 poll" in alone.output
    assert runner.invoke(app, ["guest", "ladder", "-"], input=REAL).output == alone.output
    for theirs in (lines, answer):
        done = runner.invoke(app, ["guest", "ladder", str(trace), "--platform", str(theirs)])
        assert done.exit_code == 0
        assert done.output.endswith("guest and platform agree on 2 messages\n")
    done = runner.invoke(app, ["guest", "ladder", str(trace), "--platform", str(wrong)])
    assert done.exit_code == 1
    assert "!! RESP" in done.output


def test_a_ladder_of_what_boot_printed(tmp_path: Path) -> None:
    printed = tmp_path / "boot.txt"
    lines: list[str] = []
    screen = Plain(lines.append)
    again = f"@begin trace\n{REAL}\n@end trace status 0\n" * 2  # when it is ready, and at its end
    for source, text in (("console", again), ("scmi", platform())):
        for line in text.splitlines():
            screen.show(source, line)
    printed.write_text("\n".join(lines))
    done = runner.invoke(app, ["guest", "ladder", str(printed)])
    assert done.exit_code == 0
    assert done.output.endswith("guest and platform agree on 2 messages\n")


def test_a_ladder_of_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("GUEST-READY uptime 1\n")
    done = runner.invoke(app, ["guest", "ladder", str(empty)])
    assert done.exit_code == 2
    assert "no scmi events" in done.output
    done = runner.invoke(app, ["guest", "ladder", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "nowhere: No such file" in done.output


def test_a_platforms_trace_without_messages(tmp_path: Path) -> None:
    trace, other = tmp_path / "trace", tmp_path / "other"
    trace.write_text(REAL)
    other.write_text("no trace\n")
    done = runner.invoke(app, ["guest", "ladder", str(trace), "--platform", str(other)])
    assert done.exit_code == 2
    assert "--platform: no scmi_msg_dump lines" in done.output


@pytest.mark.usefixtures("qemu")
def test_a_shutdown_that_the_board_cannot_ask_for(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text('[platform]\nvendor = "acme"\n[[agents]]\nname = "OSPM"\n')
    done = runner.invoke(app, ["guest", "boot", "--board", str(board), "--power-off-after", "1"])
    assert done.exit_code == 2
    assert "--power-off-after" in done.output
    assert "no [system_power]" in done.output


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(REAL + "CPU:0 [LOST 17 EVENTS]\n[000] scmi_rx_done: x\n  x scmi_rx_done: y\n")
    done = runner.invoke(app, ["guest", "ladder", str(trace)])
    assert "17 events were lost by ftrace" in done.output
    assert "2 events could not be read" in done.output
