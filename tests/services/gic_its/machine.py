"""One ITS with guest memory in plain code, programmed as the recorded cases do it, with a VMM beside it.

Imported as ``tests.services.gic_its.machine``.
"""

from __future__ import annotations

from typing import Any, Final

from common.gic import commands as op
from common.gic import vmm_ops as ops
from common.gic.commands import COMMAND_SIZE, Command, encode
from common.gic.registers import (
    BASER_INDIRECT,
    BASER_VALID,
    CBASER_VALID,
    GICR_CTLR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GITS_BASER,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
)
from common.gic.saved import SavedIts, table_ranges
from common.gic.saved import decode as decode_file
from common.gic.saved import encode as encode_file
from services.gic_its.adapter import CaseAdapter
from services.gic_its.snapshot import restore, save
from services.gic_its.uaccess import Uaccess

QUEUE, QUEUE_BYTES = 0x4200_0000, 0x1_0000
DEVICES, COLLECTIONS = 0x4220_0000, 0x4240_0000
CONFIG, PENDING, PENDING_STEP = 0x4260_0000, 0x4270_0000, 0x2_0000
ITT: Final = 0x4300_0000
NOWHERE: Final = 0x7000_0000_0000
#: Second-level page of a device table of two levels.
LEVEL2: Final = 0x4230_0000
PTZ: Final = 1 << 62
PAGES_64K: Final = 2 << 8


def standard() -> tuple[Command, ...]:
    """As kvm-unit-tests has it: devices 2 and 7 with 8 EventID bits, 2/20 → 8195 → PE 3, 7/255 → 8196 → PE 2."""
    return (
        Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
        Command(op.MAPD, device=7, size=7, itt=ITT + 0x1_0000, valid=1),
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.MAPC, icid=2, rdbase=2, valid=1),
        Command(op.INVALL, icid=3),
        Command(op.INVALL, icid=2),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
        Command(op.MAPTI, device=7, event=255, intid=8196, icid=2),
    )


class Machine(CaseAdapter):
    """A CaseAdapter with a guest's driver and a VMM."""

    def __init__(self, profile: str = "kvm", cpus: int = 4) -> None:
        super().__init__({"config": {"cpus": cpus}}, profile)
        self.cpus: Final = cpus
        self.at = 0

    def lpis(self, enabled: bool = True, ptz: bool = True) -> None:
        """Distributor on, LPI tables; every LPI enabled in the configuration table."""
        self.mmio_write("gicd", 0, 4, 0x13)
        self.mem_fill(CONFIG, 0x1_0000, 0xA1)
        for cpu in range(self.cpus):
            self.mmio_write(f"gicr{cpu}", GICR_PROPBASER, 8, CONFIG | 0x78F)
            self.mmio_write(f"gicr{cpu}", GICR_PENDBASER, 8, PENDING + cpu * PENDING_STEP | 0x780 | ptz << 62)
            self.mmio_write(f"gicr{cpu}", GICR_CTLR, 4, int(enabled))

    def tables(self, indirect: bool = False, device_pages: int = 8) -> None:
        """Queue and tables; of a device table of two levels there is the page of the first 8192 DeviceIDs."""
        self.mmio_write("its", GITS_CBASER, 8, CBASER_VALID | QUEUE | QUEUE_BYTES // 4096 - 1)
        flags = BASER_VALID | PAGES_64K | (BASER_INDIRECT if indirect else 0)
        self.mmio_write("its", GITS_BASER, 8, flags | DEVICES | (0 if indirect else device_pages - 1))
        self.mmio_write("its", GITS_BASER + 8, 8, BASER_VALID | PAGES_64K | COLLECTIONS)
        if indirect:
            self.mem_write(DEVICES, (1 << 63 | LEVEL2).to_bytes(8, "little"))
        self.at = 0

    def start(self, *commands: Command, indirect: bool = False) -> Machine:
        """All of it, enabled; then the commands."""
        self.lpis()
        self.tables(indirect)
        self.mmio_write("its", GITS_CTLR, 4, 1)
        self.run(*commands)
        return self

    def put(self, *commands: Command | bytes) -> None:
        """Into the queue; CWRITER stays."""
        for command in commands:
            self.mem_write(QUEUE + self.at, command if isinstance(command, bytes) else encode(command))
            self.at = (self.at + COMMAND_SIZE) % QUEUE_BYTES

    def run(self, *commands: Command | bytes) -> None:
        """Through the queue."""
        self.put(*commands)
        self.mmio_write("its", GITS_CWRITER, 8, self.at)

    def interrupt(self, device: int, event: int) -> None:
        """The command INT."""
        self.run(Command(op.INT, device=device, event=event))

    @property
    def creadr(self) -> int:
        return self.mmio_read("its", GITS_CREADR, 8)

    def all_pending(self) -> list[list[int]]:
        """By vCPU."""
        return [self.pending_all(cpu) for cpu in range(self.cpus)]

    def word(self, addr: int) -> int:
        return int.from_bytes(self.mem_read(addr, 8), "little")

    def put_word(self, addr: int, value: int) -> None:
        self.mem_write(addr, value.to_bytes(8, "little"))

    # --- the VMM -----------------------------------------------------------------------------------------------------

    def vmm(self, name: str, *args: Any) -> int:
        """An operation; vCPUs are stopped."""
        return self._run(Uaccess(self.its).call(name, args))

    def power_cycle(self) -> None:
        """Everything is lost but guest memory and what the VMM writes again: distributor, redistributors, tables."""
        self.vmm(ops.CTRL_RESET)
        self.lpis(ptz=False)
        self.tables()

    def saved(self) -> SavedIts:
        return self._run(save(self.its))

    def restored(self, saved: SavedIts) -> None:
        self._run(restore(self.its, saved))

    def file(self) -> bytes:
        """All of the ITS as a VMM saves it, guest memory that belongs to it included."""
        saved = self.saved()
        saved.memory = [(addr, self.mem_read(addr, length)) for addr, length in table_ranges(saved, self._memory.read)]
        return encode_file(saved)

    def load(self, file: bytes) -> None:
        """What was saved, here."""
        saved = decode_file(file)
        for addr, data in saved.memory:
            self.mem_write(addr, data)
        self.restored(saved)
        self.at = saved.its["GITS_CWRITER"]
