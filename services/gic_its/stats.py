"""What the ITS counts: plain ints on slotted objects. The shell exports each field as a metric."""

from __future__ import annotations

from dataclasses import dataclass

from common.gic.commands import COMMANDS


@dataclass(slots=True)
class ItsStats:
    """Interrupts. ``msis`` = ``repeated`` + ``coalesced`` + the first ones of a delivery, refused ones not included."""

    msis: int = 0
    delivered: int = 0
    coalesced: int = 0
    repeated: int = 0
    confirmed: int = 0
    unmapped: int = 0
    lpis_off: int = 0
    disabled: int = 0
    eois: int = 0
    stray_eois: int = 0
    config_faults: int = 0
    pending_faults: int = 0
    pending_limit: int = 0
    cwriter_dropped: int = 0
    enables_refused: int = 0
    creadr_writes: int = 0
    unreadable_msis: int = 0


@dataclass(slots=True)
class CommandStats:
    """Commands executed, by name, faulty ones included."""

    command_movi: int = 0
    command_int: int = 0
    command_clear: int = 0
    command_sync: int = 0
    command_mapd: int = 0
    command_mapc: int = 0
    command_mapti: int = 0
    command_mapi: int = 0
    command_inv: int = 0
    command_invall: int = 0
    command_movall: int = 0
    command_discard: int = 0


@dataclass(slots=True)
class ErrorStats:
    """Commands skipped, by kind; the names are those of KVM's E_ITS_* codes."""

    unknown: int = 0
    unreadable: int = 0
    table_fault: int = 0
    mapd_device_oor: int = 0
    mapd_ittsize_oor: int = 0
    mapd_limit: int = 0
    mapc_limit: int = 0
    mapc_procnum_oor: int = 0
    mapc_collection_oor: int = 0
    mapti_unmapped_device: int = 0
    mapti_id_oor: int = 0
    mapti_physicalid_oor: int = 0
    mapti_limit: int = 0
    movi_unmapped_interrupt: int = 0
    movi_unmapped_collection: int = 0
    discard_unmapped_interrupt: int = 0
    clear_unmapped_interrupt: int = 0
    inv_unmapped_interrupt: int = 0
    invall_unmapped_collection: int = 0
    movall_procnum_oor: int = 0
    int_unmapped_interrupt: int = 0
    int_lpis_off: int = 0


_OP_FIELDS = {spec.op: f"command_{spec.name.lower()}" for spec in COMMANDS}


def op_field(opcode: int) -> str:
    """The field of CommandStats that counts the command with ``opcode``."""
    return _OP_FIELDS[opcode]
