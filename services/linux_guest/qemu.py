"""QEMU for Arm: found, asked for its version and its device tree, and the command line of a guest.

vhost-user-scmi came with QEMU 8.1. The guest's memory is a memfd that QEMU shares with the platform, which works on
the rings in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import ConfigError, LocalError

PROGRAM: Final = "qemu-system-aarch64"
#: The first version that has the device.
NEEDED: Final = (8, 1)
#: Where it comes from.
HINT: Final = (
    "install Debian's qemu-system-arm; on bookworm from backports: apt-get install -t bookworm-backports "
    "qemu-system-arm (`make qemu` does both)"
)
#: Seconds for QEMU to say its version or to write a device tree.
_ASKED: Final = 30.0
#: In MiB: below this the guest does not boot, above it the machine's memory map has no room beside its devices.
LEAST_MEMORY: Final = 64
MOST_MEMORY: Final = 4096
MAX_CPUS: Final = 8


@dataclass(frozen=True, slots=True)
class Machine:
    """The guest's hardware. ``memory`` is MiB; ``mmio``: the SCMI device on virtio-mmio in place of PCI."""

    cpus: int = 2
    memory: int = 256
    mmio: bool = False

    def arguments(self) -> list[str]:
        """What the device tree depends on."""
        return ["-cpu", "cortex-a57", "-smp", str(self.cpus), "-m", str(self.memory), "-nodefaults", "-display", "none"]


@dataclass(frozen=True, slots=True)
class Qemu:
    path: str
    version: tuple[int, ...]

    @staticmethod
    def find(program: str = PROGRAM) -> Qemu:
        """Raises ConfigError where it is missing or older than NEEDED."""
        path = shutil.which(program)
        if path is None:
            raise ConfigError(program, "", f"there is no such program; {HINT}")
        said = _run([path, "--version"])
        found = re.search(r"version (\d+)\.(\d+)", said)
        version = tuple(int(part) for part in found.groups()) if found else ()
        if version < NEEDED:
            number = ".".join(map(str, version)) or said.strip()[:80]
            needed = ".".join(map(str, NEEDED))
            raise ConfigError(path, "", f"version {number} has no vhost-user-scmi, {needed} is needed; {HINT}")
        return Qemu(path, version)

    def device_tree(self, machine: Machine) -> bytes:
        """The flattened tree of QEMU's virt machine without our device. Raises LocalError where QEMU gives none."""
        with tempfile.TemporaryDirectory(prefix="ringmesh-") as directory:
            at = Path(directory) / "virt.dtb"
            _run([self.path, "-machine", f"virt,dumpdtb={at}", *machine.arguments()])
            try:
                return at.read_bytes()
            except OSError as error:
                raise LocalError(f"{self.path} wrote no device tree: {error}") from None

    def command(
        self, machine: Machine, *, kernel: Path, initrd: Path, tree: Path, socket: Path, append: str
    ) -> list[str]:
        """The whole command line. Its serial port is standard input and output; it ends when the guest powers off or
        restarts."""
        device = "vhost-user-scmi" if machine.mmio else "vhost-user-scmi-pci"
        return [
            self.path,
            "-machine", "virt,memory-backend=mem",
            *machine.arguments(),
            "-object", f"memory-backend-memfd,id=mem,size={machine.memory}M,share=on",
            "-kernel", str(kernel),
            "-initrd", str(initrd),
            "-dtb", str(tree),
            "-append", append,
            "-no-reboot",
            "-serial", "stdio",
            "-chardev", f"socket,id=scmi,path={_escaped(socket)}",
            *(["-global", "virtio-mmio.force-legacy=false"] if machine.mmio else []),
            "-device", f"{device},chardev=scmi",
        ]  # fmt: skip


def _escaped(path: Path) -> str:
    """As the value of an option that has others after commas."""
    return str(path).replace(",", ",,")


def _run(command: list[str]) -> str:
    """What a short run prints. Raises LocalError where it fails or hangs."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ASKED, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or ""
        raise LocalError(f"{command[0]}: {error} {said.strip()}".rstrip()) from None
    return done.stdout
