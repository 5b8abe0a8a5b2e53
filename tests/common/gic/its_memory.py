"""Guest memory with the tables of an ITS in it, written in either layout from a plain mapping: what a walk must read
back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.gic import entries, entries_qemu
from common.gic.entries import L1, NOT_MAPPED
from common.gic.lpi import LPI_BASE, config_byte
from common.gic.registers import (
    BASER_ENTRY_SIZE,
    BASER_INDIRECT,
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_PAGES,
    BASER_TYPE,
    BASER_VALID,
    CBASER_ADDR,
    CBASER_PAGES,
    CBASER_VALID,
    GITS_BASERS,
    PENDBASER_ADDR,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
    baser_with_address,
)
from common.gic.saved import SavedIts
from common.memory import GuestMemory

BASE = 0x4000_0000
SIZE = 8 << 20
QUEUE, DEVICES, COLLECTIONS, CONFIG = BASE, BASE + 0x10_0000, BASE + 0x20_0000, BASE + 0x30_0000
PENDING, PENDING_STEP, LEVEL2, ITTS = BASE + 0x32_0000, 0x1_0000, BASE + 0x40_0000, BASE + 0x60_0000
PAGE = 64 * 1024

Profile = Literal["kvm", "qemu"]


@dataclass
class Mapping:
    """What is mapped: device → (EventID bits, event → (INTID, ICID)); ICID → vCPU or None; what is pending where;
    which LPIs are off."""

    devices: dict[int, tuple[int, dict[int, tuple[int, int]]]]
    collections: dict[int, int | None]
    pending: set[tuple[int, int]] = field(default_factory=set)
    disabled: set[int] = field(default_factory=set)
    cpus: int = 4


#: Two devices, as kvm-unit-tests set them up.
SMALL = Mapping(
    devices={2: (8, {20: (8195, 3)}), 7: (8, {255: (8196, 2)})},
    collections={2: 2, 3: 3},
    pending={(3, 8195)},
    disabled={8196},
)


def memory_of(mapping: Mapping, profile: Profile, *, indirect: bool = False) -> tuple[GuestMemory, SavedIts]:
    """The memory and the registers; ``memory`` of what is saved is empty."""
    memory = GuestMemory(SIZE, BASE)
    itt = ITTS
    places: dict[int, bytes] = {}
    numbers = sorted(mapping.devices)
    for at, device in enumerate(numbers):
        bits, events = mapping.devices[device]
        step = numbers[at + 1] - device if at + 1 < len(numbers) else 0
        if profile == "kvm":
            places[device] = entries.Dte(True, itt, bits, step).pack()
        else:
            places[device] = entries_qemu.Dte(True, itt, bits).pack()
        itt += _write_itt(memory, itt, bits, events, profile)
    _write_devices(memory, places, indirect)
    for index, (icid, vcpu) in enumerate(sorted(mapping.collections.items())):
        if profile == "kvm":
            rdbase = NOT_MAPPED if vcpu is None else vcpu
            memory.write(COLLECTIONS + 8 * index, entries.Cte(True, rdbase, icid).pack())
        elif vcpu is not None:
            memory.write(COLLECTIONS + 8 * icid, entries_qemu.Cte(True, vcpu).pack())
    memory.write(CONFIG, bytes(config_byte(LPI_BASE + n not in mapping.disabled) for n in range(65536 - LPI_BASE)))
    for vcpu, intid in mapping.pending:
        addr = PENDING + vcpu * PENDING_STEP + intid // 8
        memory.write(addr, bytes([memory.read(addr, 1)[0] | 1 << intid % 8]))
    return memory, registers(mapping, profile, indirect)


def registers(mapping: Mapping, profile: Profile, indirect: bool) -> SavedIts:
    basers = dict.fromkeys((f"GITS_BASER{n}" for n in range(GITS_BASERS)), 0)
    basers["GITS_BASER0"] = baser(TYPE_DEVICES, DEVICES, 1 if indirect else 8) | (BASER_INDIRECT if indirect else 0)
    basers["GITS_BASER1"] = baser(TYPE_COLLECTIONS, COLLECTIONS, 8)
    return SavedIts(
        profile=profile,
        cpus=mapping.cpus,
        dist={"GICD_CTLR": 0x13},
        redists=[
            {
                "GICR_CTLR": 1,
                "GICR_WAKER": 0,
                "GICR_PROPBASER": PROPBASER_ADDR.put(CONFIG) | PROPBASER_ID_BITS.put(15),
                "GICR_PENDBASER": PENDBASER_ADDR.put(PENDING + vcpu * PENDING_STEP),
            }
            for vcpu in range(mapping.cpus)
        ],
        its={
            "GITS_CTLR": 1,
            "GITS_IIDR": 0x4B00043B if profile == "kvm" else 0x43B,
            "GITS_TYPER": 0,
            "GITS_CBASER": CBASER_VALID | CBASER_ADDR.put(QUEUE) | CBASER_PAGES.put(15),
            "GITS_CWRITER": 0x40,
            "GITS_CREADR": 0x40,
        }
        | basers,
        memory=[],
    )


def baser(kind: int, addr: int, pages: int) -> int:
    """A GITS_BASER with 64 KiB pages and entries of 8 bytes."""
    value = BASER_VALID | BASER_TYPE.put(kind) | BASER_ENTRY_SIZE.put(7) | baser_with_address(addr)
    return value | BASER_PAGE_SIZE.put(BASER_PAGE_64K) | BASER_PAGES.put(pages - 1)


def _write_devices(memory: GuestMemory, places: dict[int, bytes], indirect: bool) -> None:
    held = PAGE // 8
    for device, entry in places.items():
        if indirect:
            page = LEVEL2 + device // held * PAGE
            memory.write(DEVICES + device // held * 8, L1(True, page).pack())
            memory.write(page + device % held * 8, entry)
        else:
            memory.write(DEVICES + 8 * device, entry)


def _write_itt(
    memory: GuestMemory, itt: int, bits: int, events: dict[int, tuple[int, int]], profile: Profile
) -> int:  # fmt: skip
    """Bytes that the ITT takes, to a multiple of 256."""
    numbers = sorted(events)
    step = 8 if profile == "kvm" else 12
    for at, event in enumerate(numbers):
        intid, icid = events[event]
        following = numbers[at + 1] - event if at + 1 < len(numbers) else 0
        if profile == "kvm":
            memory.write(itt + step * event, entries.Ite(intid, icid, following).pack())
        else:
            memory.write(itt + step * event, entries_qemu.Ite(True, intid, icid).pack())
    return -(-(step << bits) // 256) * 256
