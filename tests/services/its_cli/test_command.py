"""``ringmesh its`` from end to end: what is printed and written, exit codes, one clear line for what is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from common.gic.entries import Dte, Ite
from common.gic.saved import decode, encode, table_ranges
from services.cli import app
from tests.common.gic.its_memory import DEVICES, ITTS, SMALL, memory_of
from tests.mesh.harness import RINGMESH, ROOT
from tests.services.guest_driver.test_its_routes import OTHER, Mesh, saved
from tests.services.its_cli.conftest import TOKEN


def ringmesh(*words: object) -> Result:
    return CliRunner().invoke(app, ["its", *map(str, words)], env={"RINGMESH_TOKEN": TOKEN})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "saved.its"
    path.write_bytes(encode(saved(SMALL)))
    return path


async def in_thread(work: Callable[..., Any], *words: object) -> Any:
    """The command has a loop of its own; the mesh's goes on here."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *words)


class TestDump:
    def test_tables(self, file: Path) -> None:
        result = ringmesh("dump", file)
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[0] == "profile  kvm"
        assert lines[lines.index("events") + 1 :][:3] == [
            "device  event  lpi   collection  vcpu  enabled  priority  pending",
            "0x2     20     8195  3           3     on       0xa0      pending",
            "0x7     255    8196  2           2     off      0xa0      -",
        ]
        assert "findings" not in lines

    def test_json(self, file: Path) -> None:
        document = json.loads(ringmesh("dump", file, "--json").stdout)
        assert document["devices"][0]["events"][0]["intid"] == 8195
        assert document["pending"][3] == [8195]

    def test_picture(self, file: Path, tmp_path: Path) -> None:
        picture = tmp_path / "its.svg"
        assert ringmesh("dump", file, "--svg", picture).exit_code == 0
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")

    def test_everything(self, tmp_path: Path) -> None:
        memory, state = memory_of(SMALL, "kvm")
        memory.write(DEVICES + 8 * 2, Dte(True, ITTS, 8, 0).pack())
        state.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(state, memory.read)]
        path = tmp_path / "two.its"
        path.write_bytes(encode(state))
        assert "1 valid devices that no `next` leads to" in ringmesh("dump", path).stdout
        assert "0x7" in ringmesh("dump", path, "--everything").stdout

    async def test_of_a_mesh(self, mesh: Mesh, tmp_path: Path) -> None:
        result = await in_thread(ringmesh, "dump", "--admin", mesh.url, "--guest", "guest1", "--json")
        assert json.loads(result.stdout)["devices"][0]["device"] == 5


class TestStandardOutput:
    """With a real process: what is buffered is written when it ends."""

    @pytest.mark.parametrize("words", [(), ("--json",)])
    def test_a_reader_that_has_seen_enough(self, file: Path, words: tuple[str, ...]) -> None:
        command = [*RINGMESH, "its", "dump", str(file), *words]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def test_a_full_disk(self, file: Path) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*RINGMESH, "its", "dump", file], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


class TestSave:
    async def test_file(self, mesh: Mesh, tmp_path: Path) -> None:
        path = tmp_path / "guest1.its"
        result = await in_thread(ringmesh, "save", path, "--admin", mesh.url, "--guest", "guest1")
        assert decode(path.read_bytes()) == saved(OTHER)
        assert (result.exit_code, result.stdout) == (
            0, f"{path.stat().st_size} bytes in {path}: 1 device, 1 event\n",
        )  # fmt: skip

    async def test_nowhere_to_write(self, mesh: Mesh, tmp_path: Path) -> None:
        path = tmp_path / "no" / "such.its"
        result = await in_thread(ringmesh, "save", path, "--admin", mesh.url, "--guest", "guest1")
        assert (result.exit_code, result.stderr) == (2, f"ringmesh its: {path}: No such file or directory\n")

    async def test_what_is_no_saved_its_is_not_kept(self, mesh: Mesh, tmp_path: Path) -> None:
        mesh.admin.post("/nonsense/its/save", lambda _body: {"guest": "guest0", "file": b"nonsense"})
        result = await in_thread(ringmesh, "save", tmp_path / "x", "--admin", mesh.url + "/nonsense")
        assert (result.exit_code, result.stderr) == (
            1, "ringmesh its: what the mesh saved: file: not gzip: not the saved state of an ITS\n",
        )  # fmt: skip
        assert not (tmp_path / "x").exists()

    async def test_an_unknown_guest(self, mesh: Mesh, tmp_path: Path) -> None:
        result = await in_thread(ringmesh, "save", tmp_path / "x", "--admin", mesh.url, "--guest", "guest7")
        assert result.exit_code == 1
        assert "guest7" in result.stderr
        assert not (tmp_path / "x").exists()

    def test_an_admin_url_is_wanted(self, tmp_path: Path) -> None:
        result = ringmesh("save", tmp_path / "x")
        assert result.exit_code == 2
        assert "--admin" in result.stderr

    def test_nobody_there(self, tmp_path: Path) -> None:
        result = ringmesh("save", tmp_path / "x", "--admin", "http://127.0.0.1:1")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


class TestRestore:
    def test_here(self, file: Path) -> None:
        result = ringmesh("restore", file)
        assert result.exit_code == 0
        assert result.stdout == ringmesh("dump", file).stdout

    def test_json(self, file: Path) -> None:
        assert ringmesh("restore", file, "--json").stdout == ringmesh("dump", file, "--json").stdout

    def test_what_kvm_refuses(self, tmp_path: Path) -> None:
        memory, state = memory_of(SMALL, "kvm")
        memory.write(ITTS + 8 * 20, Ite(8195, 77, 0).pack())
        state.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(state, memory.read)]
        path = tmp_path / "bad.its"
        path.write_bytes(encode(state))
        result = ringmesh("restore", path)
        assert (result.exit_code, result.stderr) == (
            1, "ringmesh its: device 0x2 event 20: EINVAL: no collection 77\n",
        )  # fmt: skip

    async def test_into_a_mesh(self, mesh: Mesh, file: Path) -> None:
        words = ("restore", file, "--admin", mesh.url, "--guest", "guest1")
        assert (await in_thread(ringmesh, *words)).stdout == "guest1: 2 events restored\n"
        assert mesh.vmms["guest1"].state == saved(SMALL)
        assert json.loads((await in_thread(ringmesh, *words, "--json")).stdout) == {"guest": "guest1", "events": 2}

    async def test_a_bad_file_does_not_reach_the_mesh(self, mesh: Mesh, tmp_path: Path) -> None:
        path = tmp_path / "bad.its"
        path.write_bytes(b"nonsense")
        result = await in_thread(ringmesh, "restore", path, "--admin", mesh.url, "--guest", "guest1")
        assert result.exit_code == 2
        assert mesh.vmms["guest1"].state == saved(OTHER)


class TestUsage:
    @pytest.mark.parametrize("command", ["dump", "restore"])
    def test_bad_files(self, command: str, file: Path, tmp_path: Path) -> None:
        bad = {"empty": b"", "noise": b"nonsense", "cut": file.read_bytes()[:-9]}
        for name, data in bad.items():
            path = tmp_path / name
            path.write_bytes(data)
            result = ringmesh(command, path)
            assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
            assert result.stderr.startswith(f"ringmesh its: {path}: file")
        for path in (tmp_path, tmp_path / "none"):
            result = ringmesh(command, path)
            assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        result = ringmesh("dump", "no\x1bsuch")
        assert result.stderr == "ringmesh its: no\\x1bsuch: No such file or directory\n"

    def test_a_file_or_a_mesh(self, file: Path) -> None:
        for words in ([], [file, "--admin", "http://127.0.0.1:1"]):
            result = ringmesh("dump", *words)
            assert (result.exit_code, result.stderr) == (2, "ringmesh its: either FILE or --admin URL is wanted\n")

    @pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host", "http://", "http://host:0", "http://host:99999"])
    def test_bad_urls(self, url: str, tmp_path: Path) -> None:
        result = ringmesh("dump", "--admin", url)
        assert result.exit_code == 2
        assert "is not a URL" in result.stderr

    def test_a_picture_that_cannot_be_written(self, file: Path, tmp_path: Path) -> None:
        result = ringmesh("dump", file, "--svg", tmp_path)
        assert (result.exit_code, result.stderr) == (2, f"ringmesh its: {tmp_path}: Is a directory\n")
