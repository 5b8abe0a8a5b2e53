"""A VMM's access to the ITS: KVM's device attributes, with KVM's errors (Linux Documentation/virt/kvm/devices/
arm-vgic-its.rst and arm-vgic-v3.rst).

Registers of KVM_DEV_ARM_VGIC_GRP_ITS_REGS are 64 bits wide whatever their width is. A write is one of the guest, but
for IIDR (which carries the revision of the ABI) and CREADR. Operations raise CallError:

====== ==============================================================================================================
ENXIO  no such register, no such redistributor; tables: BASERs or CBASER are not valid
EINVAL misaligned offset; CREADR past the queue; an IIDR that is not this ITS's, or of another revision of the ABI; an
       operation without a name
EBUSY  vCPUs run; CREADR while the ITS is enabled; BASERs that are written while tables are restored
====== ==============================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from common.errors import CallError
from common.gic import vmm_ops as ops
from common.gic.registers import (
    CREADR_STALLED,
    GICR_CTLR,
    GITS_CREADR,
    GITS_CTLR,
    GITS_IIDR,
    QUEUE_OFFSET,
)
from common.gic.vmm_ops import EBUSY, EINVAL, ENXIO
from common.registers import Register, RegisterFile
from services.gic_its.core import Its
from services.gic_its.saving import restore_tables, save_tables

Operation = Callable[..., Coroutine[Any, Any, int]]

#: Arguments of each operation; all of them are ints.
ARGUMENTS: Final = {
    ops.STOP_VCPUS: 0,
    ops.RUN_VCPUS: 0,
    ops.GET_ITS_REG: 1,
    ops.SET_ITS_REG: 2,
    ops.GET_REDIST_REG: 2,
    ops.SET_REDIST_REG: 3,
    ops.GET_DIST_REG: 1,
    ops.SET_DIST_REG: 2,
    ops.SAVE_TABLES: 0,
    ops.RESTORE_TABLES: 0,
    ops.SAVE_PENDING_TABLES: 0,
    ops.CTRL_RESET: 0,
}
#: Values are unsigned and at most this wide.
VALUE_BITS: Final = 64


class Uaccess:
    """The VMM operations of one ITS, by the names of :mod:`common.gic.vmm_ops`."""

    __slots__ = ("_its",)

    def __init__(self, its: Its) -> None:
        self._its: Final = its

    async def call(self, name: str, args: Sequence[object]) -> int:
        """Carry out an operation; its value, 0 where it has none. Raises CallError."""
        count = ARGUMENTS.get(name)
        if count is None:
            raise CallError(name[:32], EINVAL, "no such operation")
        if len(args) != count:
            raise CallError(name, EINVAL, f"{len(args)} arguments instead of {count}")
        values: list[int] = []
        for arg in args:
            if not isinstance(arg, int) or isinstance(arg, bool) or not 0 <= arg < 1 << VALUE_BITS:
                raise CallError(name, EINVAL, f"argument {str(arg)[:32]} is no unsigned number of {VALUE_BITS} bits")
            values.append(arg)
        if name not in (ops.STOP_VCPUS, ops.RUN_VCPUS) and not self._its.control.held:
            raise CallError(name, EBUSY, "vCPUs run")
        operation: Operation = getattr(self, name)
        return await operation(*values)

    async def stop_vcpus(self) -> int:
        """No LPI is delivered from here on."""
        self._its.hold()
        return 0

    async def run_vcpus(self) -> int:
        """LPIs are delivered again."""
        self._its.resume()
        return 0

    # --- registers -----------------------------------------------------------------------------------------------

    async def get_its_reg(self, offset: int) -> int:
        row = self._row(self._its.registers, offset)
        return self._its.registers.read(offset, row.bytes)

    async def set_its_reg(self, offset: int, value: int) -> int:
        its = self._its
        row = self._row(its.registers, offset)
        if offset == GITS_CREADR:
            if its.control.enabled:
                raise CallError("GITS_CREADR", EBUSY, "the ITS is enabled")
            if value & QUEUE_OFFSET >= its.queue.bytes:
                raise CallError("GITS_CREADR", EINVAL, f"{value:#x} is past the queue of {its.queue.bytes:#x} bytes")
            its.registers.set("GITS_CREADR", value & (QUEUE_OFFSET | (CREADR_STALLED if its.profile.stalls else 0)))
        elif offset == GITS_CTLR and its.registers.get("GITS_CREADR") & CREADR_STALLED:
            # the guest is to try again, by CWRITER or by CTLR
            its.queue.pause()
            its.registers.write(offset, row.bytes, value)
        elif offset == GITS_IIDR:
            if value != its.profile.iidr:
                raise CallError("GITS_IIDR", EINVAL, f"{value:#x} has tables of its own; this is {its.profile.iidr:#x}")
        else:
            await its.mmio_write("its", offset, row.bytes, value)
        return 0

    async def get_redist_reg(self, vcpu: int, offset: int) -> int:
        registers = self._redistributor(vcpu)
        row = self._row(registers, offset)
        return registers.get(row.name) if row.readable else 0

    async def set_redist_reg(self, vcpu: int, offset: int, value: int) -> int:
        """EnableLPIs reads the pending table whatever PTZ says: the table was saved, or written through."""
        registers = self._redistributor(vcpu)
        row = self._row(registers, offset)
        redistributor = self._its.redistributors[vcpu]
        async with redistributor.mutex, self._its.tables_mutex:
            registers.write(offset, row.bytes, value)
            if offset == GICR_CTLR:
                await redistributor.settle(zeroed=False)
        return 0

    async def get_dist_reg(self, offset: int) -> int:
        registers = self._its.distributor.registers
        return registers.read(offset, self._row(registers, offset).bytes)

    async def set_dist_reg(self, offset: int, value: int) -> int:
        registers = self._its.distributor.registers
        registers.write(offset, self._row(registers, offset).bytes, value)
        return 0

    def _redistributor(self, vcpu: int) -> RegisterFile:
        redistributors = self._its.redistributors
        if vcpu >= len(redistributors):
            raise CallError("vcpu", ENXIO, f"{vcpu} is none of {len(redistributors)}")
        return redistributors[vcpu].registers

    @staticmethod
    def _row(registers: RegisterFile, offset: int) -> Register:
        for row in registers.map:
            if row.offset <= offset < row.offset + row.bytes:
                if row.offset != offset:
                    raise CallError(row.name, EINVAL, f"offset {offset:#x} is not aligned to the register")
                return row
        raise CallError("offset", ENXIO, f"no register at {offset:#x}")

    # --- tables --------------------------------------------------------------------------------------------------

    async def save_tables(self) -> int:
        """KVM_DEV_ARM_ITS_SAVE_TABLES."""
        async with self._its.tables_mutex:
            await save_tables(self._its)
        return 0

    async def restore_tables(self) -> int:
        """KVM_DEV_ARM_ITS_RESTORE_TABLES."""
        async with self._its.tables_mutex:
            await restore_tables(self._its)
        return 0

    async def save_pending_tables(self) -> int:
        """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES."""
        async with self._its.tables_mutex:
            for redistributor in self._its.redistributors:
                redistributor.write_pending()
            self._its.dma.commit()
        return 0

    async def ctrl_reset(self) -> int:
        """KVM_DEV_ARM_ITS_CTRL_RESET, and the redistributors and the distributor with it; vCPUs stay stopped."""
        async with self._its.tables_mutex:  # never within a command
            self._its.reset()
        return 0
