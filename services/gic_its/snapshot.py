"""All of an ITS as a :class:`common.gic.saved.SavedIts`, and an ITS from one, in one process.

A guest's VMM does the same over its link; both go through :class:`services.gic_its.uaccess.Uaccess`.
"""

from __future__ import annotations

from typing import Literal

from common.gic import vmm_ops as ops
from common.gic.saved import DIST_REGISTERS, ITS_REGISTERS, REDIST_REGISTERS, SavedIts, read_registers
from services.gic_its.core import Its
from services.gic_its.saving import configured
from services.gic_its.uaccess import Uaccess

#: Registers of the ITS in the order of their restore: CREADR after CBASER, which resets it; CTLR after the tables.
_BEFORE_TABLES = ("GITS_IIDR", "GITS_CBASER", "GITS_CWRITER", "GITS_CREADR", *(f"GITS_BASER{n}" for n in range(8)))


async def save(its: Its) -> SavedIts:
    """Registers and pending tables; ``memory`` stays empty, for it is where it was. vCPUs are stopped afterwards.

    Raises CallError.
    """
    user = Uaccess(its)
    await user.call(ops.STOP_VCPUS, ())
    await user.call(ops.SAVE_PENDING_TABLES, ())
    if configured(its):
        await user.call(ops.SAVE_TABLES, ())
    cpus = len(its.redistributors)
    dist, redists, registers = await read_registers(lambda op, *arguments: user.call(op, arguments), cpus)
    profile: Literal["kvm", "qemu"] = "kvm" if its.profile.holds_tables else "qemu"
    return SavedIts(profile=profile, cpus=cpus, dist=dist, redists=redists, its=registers, memory=[])


async def restore(its: Its, saved: SavedIts, *, at_rest: bool = False) -> None:
    """``its``, which is out of reset and whose guest memory has the tables, becomes what was saved, in KVM's order.

    ``at_rest``: the queue was at rest when it was saved; what is between CREADR and CWRITER even so (a stalled
    queue, a CREADR that the guest moved) waits for the guest's next write of CWRITER. vCPUs stay stopped. Raises
    CallError for what the ITS refuses, and leaves it as after a reset.
    """
    user = Uaccess(its)
    await user.call(ops.STOP_VCPUS, ())
    await user.call(ops.CTRL_RESET, ())
    try:
        for vcpu, registers in enumerate(saved.redists):
            for name in ("GICR_WAKER", "GICR_PROPBASER", "GICR_PENDBASER", "GICR_CTLR"):
                await user.call(ops.SET_REDIST_REG, (vcpu, REDIST_REGISTERS[name], registers[name]))
        for name, at in DIST_REGISTERS.items():
            await user.call(ops.SET_DIST_REG, (at, saved.dist[name]))
        for name in _BEFORE_TABLES:
            await user.call(ops.SET_ITS_REG, (ITS_REGISTERS[name], saved.its[name]))
        if configured(its):
            await user.call(ops.RESTORE_TABLES, ())
        if at_rest:
            its.queue.pause()
            its.registers.write(ITS_REGISTERS["GITS_CTLR"], 4, saved.its["GITS_CTLR"])
        else:
            await user.call(ops.SET_ITS_REG, (ITS_REGISTERS["GITS_CTLR"], saved.its["GITS_CTLR"]))
    except BaseException:
        its.reset()
        raise
