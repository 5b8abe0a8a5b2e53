"""What a VMM does with an ITS besides MMIO: KVM's device attributes as operations of a ``Call`` (Linux
Documentation/virt/kvm/devices/arm-vgic-its.rst and arm-vgic-v3.rst).

Each is answered with errno 0 and a value, or with an errno and a sentence. All of them answer EBUSY while vCPUs run.
"""

from __future__ import annotations

from typing import Final

#: No argument: no LPI is delivered, and the operations below are allowed.
STOP_VCPUS: Final = "stop_vcpus"
#: No argument: LPIs are delivered again.
RUN_VCPUS: Final = "run_vcpus"
#: ``(offset)`` → value, ``(offset, value)``: KVM_DEV_ARM_VGIC_GRP_ITS_REGS, always 64 bits wide.
GET_ITS_REG: Final = "get_its_reg"
SET_ITS_REG: Final = "set_its_reg"
#: ``(vcpu, offset)`` → value, ``(vcpu, offset, value)``: KVM_DEV_ARM_VGIC_GRP_REDIST_REGS.
GET_REDIST_REG: Final = "get_redist_reg"
SET_REDIST_REG: Final = "set_redist_reg"
#: ``(offset)`` → value, ``(offset, value)``: KVM_DEV_ARM_VGIC_GRP_DIST_REGS.
GET_DIST_REG: Final = "get_dist_reg"
SET_DIST_REG: Final = "set_dist_reg"
#: No argument: KVM_DEV_ARM_ITS_SAVE_TABLES, _RESTORE_TABLES, _CTRL_RESET, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES.
SAVE_TABLES: Final = "save_tables"
RESTORE_TABLES: Final = "restore_tables"
SAVE_PENDING_TABLES: Final = "save_pending_tables"
CTRL_RESET: Final = "ctrl_reset"

ENXIO: Final = 6
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
EINVAL: Final = 22
ENOMEM: Final = 12
