"""A stand-in for QEMU, for what happens around a guest where no QEMU is: it answers its questions, and "boots" a guest
that prints its marks and runs no command but ``poweroff``."""

from __future__ import annotations

import sys
from pathlib import Path

import fdt

from services.linux_guest.device_tree import CONSUMER

PROGRAM = """\
#!{python}
import sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("QEMU emulator version {version} (Debian 1:10)")
elif arguments[0] == "-machine" and "dumpdtb=" in arguments[1]:
    open(arguments[1].split("dumpdtb=")[1], "wb").write(open({tree!r}, "rb").read())
else:
    print("qemu: " + " ".join(arguments), file=sys.stderr, flush=True)
    print("\\n".join({said!r}), flush=True)
    for number, line in enumerate(sys.stdin if {stays!r} else (), start=1):
        print(f"@begin run {{number}}\\n{{line.strip()}}\\n@end run {{number}} status 0", flush=True)
        if line.strip() == "poweroff":
            break
"""

READY = (
    "[    0.7] arm-scmi: SCMI Protocol v2.1 'ringmesh:virt' Firmware version 0x10000",
    "GUEST-INIT uptime 0.5",
    "GUEST-READY uptime 1.5",
)


def machine(cpus: int = 2) -> bytes:
    """As much of a virt machine's tree as a board is added to."""
    tree = fdt.FDT()
    tree.header.version = 17
    root = tree.get_node("/")
    root.append(fdt.Node("cpus", *(fdt.Node(f"cpu@{number:x}") for number in range(cpus))))
    root.append(fdt.Node(CONSUMER.strip("/")))
    flat: bytes = tree.to_dtb(version=17, last_comp_version=16)
    return flat


def install(directory: Path, version: str = "10.0.2", said: tuple[str, ...] = READY, *, stays: bool = True) -> Path:
    """Make the program in ``directory``, which is to be put on the path. ``stays``: until it is told to power off."""
    directory.mkdir(exist_ok=True)
    tree = directory / "machine.dtb"
    tree.write_bytes(machine())
    program = directory / "qemu-system-aarch64"
    program.write_text(
        PROGRAM.format(python=sys.executable, version=version, tree=str(tree), said=list(said), stays=stays)
    )
    program.chmod(0o755)
    return directory
