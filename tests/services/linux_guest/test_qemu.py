"""QEMU: found or not, its version, its command line."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from common.errors import ConfigError, LocalError
from services.linux_guest.qemu import Machine, Qemu
from tests.services.linux_guest.fake_qemu import install, machine


def find(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Qemu:
    monkeypatch.setenv("PATH", str(directory))
    return Qemu.find()


def command(qemu: Qemu, hardware: Machine, **changes: Path) -> list[str]:
    paths = {"kernel": Path("/k"), "initrd": Path("/i"), "tree": Path("/t"), "socket": Path("/s")} | changes
    return qemu.command(hardware, append="console=x y", **paths)


def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such program.*qemu-system-arm.*backports"):
        find(monkeypatch, tmp_path)


@pytest.mark.parametrize("version", ["7.2.11", "8.0.5", "unknown"])
def test_too_old(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"8\.1 is needed; install"):
        find(monkeypatch, install(tmp_path, version))


@pytest.mark.parametrize(("version", "expected"), [("8.1.0", (8, 1)), ("10.0.2", (10, 0))])
def test_new_enough(version: str, expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find(monkeypatch, install(tmp_path, version)).version == expected


def test_it_says_its_device_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find(monkeypatch, install(tmp_path)).device_tree(Machine()) == machine()


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/nowhere/qemu"])
def test_one_that_does_not(program: str) -> None:
    with pytest.raises(LocalError, match=program):
        Qemu(program, (10, 0)).device_tree(Machine())


def test_the_memory_is_shared_and_the_device_is_ours() -> None:
    line = command(Qemu("/q", (10, 0)), Machine(cpus=3, memory=300))
    pairs = list(itertools.pairwise(line))
    assert line[0] == "/q"
    assert ("-object", "memory-backend-memfd,id=mem,size=300M,share=on") in pairs
    assert ("-machine", "virt,memory-backend=mem") in pairs
    assert ("-smp", "3") in pairs
    assert ("-m", "300") in pairs
    assert ("-append", "console=x y") in pairs
    assert ("-chardev", "socket,id=scmi,path=/s") in pairs
    assert ("-device", "vhost-user-scmi-pci,chardev=scmi") in pairs
    assert "-no-reboot" in line
    assert "-global" not in line


def test_on_virtio_mmio() -> None:
    line = command(Qemu("/q", (10, 0)), Machine(mmio=True))
    pairs = list(itertools.pairwise(line))
    assert ("-device", "vhost-user-scmi,chardev=scmi") in pairs
    assert ("-global", "virtio-mmio.force-legacy=false") in pairs


def test_commas_in_the_sockets_path() -> None:
    assert "socket,id=scmi,path=/a,,b" in command(Qemu("/q", (10, 0)), Machine(), socket=Path("/a,b"))
