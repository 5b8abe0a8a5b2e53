"""Random command streams: small sets of devices, events, LPIs and collections, so that they meet often.

Commands are 32 bytes each. What of memory a stream uses (queue, tables, ITTs) is as in the recorded cases.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, COMMANDS, Command, decode, encode

QUEUE, DEVICES, COLLECTIONS = 0x4200_0000, 0x4220_0000, 0x4240_0000
CONFIG, PENDING, PENDING_STEP = 0x4260_0000, 0x4270_0000, 0x2_0000
ITT, ITT_STEP = 0x4300_0000, 0x1_0000
WIDE_ITT, WIDE_STEP = 0x4310_0000, 0x4_0000
NOWHERE: Final = 0x7000_0000_0000

#: 0x2000 is the first on the table's second page; 0xffff is farther from it than a DTE's ``next`` reaches.
DEVICE_IDS: Final = (0, 1, 2, 7, 0x10, 0x2000, 0xFFFF)
#: The last DeviceID of a table of one page, the last but one of eight; only hostile streams name them.
EDGE_IDS: Final = (0x1FFF, 0xFFFE)
EDGE_ITT: Final = 0x4319_0000
#: The device with an ITT of 14 bits, for MAPI.
WIDE: Final = 0x30
EVENTS: Final = (0, 1, 2, 3, 7, 20, 31, 255)
WIDE_EVENTS: Final = (0, 5, 8192, 8195, 8300, 16383)
LPIS: Final = (8192, 8193, 8195, 8196, 8200, 8255, 8300, 65535)
ICIDS: Final = (0, 1, 2, 3, 9, 8191)
#: Sizes of an ITT less 1, in EventID bits.
SIZES: Final = (0, 1, 4, 7)
WIDE_SIZE: Final = 13

#: The player's own, which no stream touches: a collection, a device with one event and an LPI for each vCPU.
OWN_ICID: Final = 0x40
OWN_DEVICE: Final = 0x100
OWN_ITT: Final = 0x4318_0000
OWN_LPI: Final = 8448

#: How often which command.
WEIGHTS: Final = {
    op.MAPD: 3, op.MAPC: 4, op.MAPTI: 24, op.MAPI: 4, op.MOVI: 11, op.INT: 27, op.CLEAR: 6, op.INV: 4, op.INVALL: 3,
    op.MOVALL: 4, op.DISCARD: 6, op.SYNC: 4,
}  # fmt: skip


def itt_of(device: int, place: int) -> int:
    """Address of the first or second ITT of a device of the streams; no two overlap."""
    if device == WIDE:
        return WIDE_ITT + place * WIDE_STEP
    if device in EDGE_IDS:
        return EDGE_ITT + EDGE_IDS.index(device) * ITT_STEP
    return ITT + (DEVICE_IDS.index(device) * 2 + place) * ITT_STEP


class _Valid:
    """Commands whose operands are in range; most name events that are mapped at that time, but not all."""

    def __init__(self, rng: random.Random, cpus: int, orphans: bool) -> None:
        self.rng = rng
        self.cpus = cpus
        self._orphans = orphans
        self._sizes: dict[int, int] = {}
        self._mapped: list[tuple[int, int]] = []

    def mapd(self, device: int, valid: bool = True) -> Command:
        size = WIDE_SIZE if device == WIDE else self.rng.choice(SIZES)
        self._sizes[device] = size if valid else -1
        self._mapped = [pair for pair in self._mapped if pair[0] != device]
        return Command(op.MAPD, device=device, size=size, itt=itt_of(device, self.rng.randrange(2)), valid=int(valid))

    def mapc(self, icid: int, valid: bool = True) -> Command:
        return Command(op.MAPC, icid=icid, rdbase=self.rng.randrange(self.cpus), valid=int(valid))

    def event(self) -> tuple[int, int]:
        device = self.rng.choice((*DEVICE_IDS, WIDE))
        return device, self.rng.choice(WIDE_EVENTS if device == WIDE else EVENTS)

    def _known_event(self) -> tuple[int, int]:
        return self.rng.choice(self._mapped) if self._mapped and self.rng.random() < 0.8 else self.event()

    def _note(self, device: int, event: int) -> None:
        size = self._sizes.get(device, -1)
        if size >= 0 and event < 2 << size:
            self._mapped.append((device, event))

    def next(self) -> Command:
        rng = self.rng
        code = rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        device, event = self.event() if code in (op.MAPD, op.MAPTI) else self._known_event()
        icid, cpu = rng.choice(ICIDS), rng.randrange(self.cpus)
        if code == op.MAPTI:
            self._note(device, event)
        match code:
            case op.MAPD:
                return self.mapd(device, rng.random() < 0.7)
            case op.MAPC:
                return self.mapc(icid, not self._orphans or rng.random() < 0.8)
            case op.MAPTI:
                return Command(code, device=device, event=event, intid=rng.choice(LPIS), icid=icid)
            case op.MAPI:
                return Command(code, device=WIDE, event=rng.choice(WIDE_EVENTS), icid=icid)
            case op.MOVI:
                return Command(code, device=device, event=event, icid=icid)
            case op.INVALL:
                return Command(code, icid=icid)
            case op.MOVALL:
                return Command(code, rdbase=cpu, rdbase2=rng.randrange(self.cpus))
            case op.SYNC:
                return Command(code, rdbase=cpu)
            case _:
                return Command(code, device=device, event=event)


def valid_stream(rng: random.Random, n: int, cpus: int = 4, *, orphans: bool = True) -> Iterator[bytes]:
    """``n`` commands with operands in range, after those that map all devices and collections once.

    Without ``orphans`` no collection is ever unmapped, so that no event loses its own.
    """
    make = _Valid(rng, cpus, orphans)
    first = [make.mapd(device) for device in (*DEVICE_IDS, WIDE)] + [make.mapc(icid) for icid in ICIDS]
    for at in range(n):
        yield encode(first[at] if at < len(first) else make.next())


def hostile_stream(
    rng: random.Random,
    n: int,
    cpus: int = 4,
    *,
    orphans: bool = True,
    nowhere: bool = False,
    wide_pes: bool = False,
) -> Iterator[bytes]:
    """Half of it valid, half with operands out of range, reserved bits, unknown opcodes or garbage.

    ``nowhere``: also ITTs where there is no memory; they stall the queue in the qemu profile, and what kvm holds of
    them can not be migrated. ``wide_pes``: also PE numbers with bits above those that QEMU (16) and KVM (32) look at.
    """
    make = _Valid(rng, cpus, orphans)
    spoilers = [_out_of_range, _reserved_bits, _garbage, _unknown]
    for command in valid_stream(rng, n, cpus, orphans=orphans):
        if rng.random() < 0.5:
            yield command
        elif nowhere and rng.random() < 0.02:
            device = rng.choice(DEVICE_IDS)
            yield encode(Command(op.MAPD, device=device, size=4, itt=NOWHERE, valid=1))
        elif wide_pes and rng.random() < 0.05:
            yield encode(Command(op.MAPC, icid=rng.choice(ICIDS), rdbase=rng.choice((1 << 16, 1 << 32)) | 1, valid=1))
        else:
            yield rng.choice(spoilers)(make, command)


def _out_of_range(make: _Valid, data: bytes) -> bytes:
    """The command with one operand that is impossible or at an edge."""
    rng, command = make.rng, decode(data)
    bad = {
        "device": (0x1_0000, 0x1234_5678, 0xFFFF_FFFF, *EDGE_IDS),
        "event": (1, 2, 5, 32, 256, 16384, 65536, 0xFFFF_FFFF),
        "intid": (0, 1, 40, 1023, 8191, 65536, 65536 + 8200, 0xFFFF_FFFF),
        "icid": (8192, 65520, 65535),
        "rdbase": (make.cpus, 200, 65535),
        "rdbase2": (make.cpus, 200, 65535),
        "size": (16, 17, 31),
    }
    fields = [name for name, _, _ in op.SPEC[command.op].fields if name in bad]
    if fields:
        name = rng.choice(fields)
        setattr(command, name, rng.choice(bad[name]))
        if command.op == op.MAPD and command.device in EDGE_IDS:
            command.itt = itt_of(command.device, 0)  # ITTs that overlap have no defined contents
            command.size = min(command.size, max(SIZES))
    return encode(command)


def _reserved_bits(make: _Valid, data: bytes) -> bytes:
    """The command with random bits where it has no field; it means the same."""
    command = decode(data)
    used = [0xFF, 0, 0, 0]
    for _, word, field in op.SPEC[command.op].fields:
        used[word] |= field.mask
    noise = b"".join((make.rng.getrandbits(64) & ~mask & (1 << 64) - 1).to_bytes(8, "little") for mask in used)
    return bytes(a | b for a, b in zip(data, noise, strict=True))


def _garbage(make: _Valid, _data: bytes) -> bytes:
    """Random bytes. As MAPC and MOVALL they would say too much: those get an impossible PE."""
    data = bytearray(make.rng.randbytes(COMMAND_SIZE))
    if data[0] in (op.MAPC, op.MOVALL):
        data[18:20] = b"\xff\xff"
    return bytes(data)


def _unknown(make: _Valid, data: bytes) -> bytes:
    known = {spec.op for spec in COMMANDS}
    return bytes([make.rng.choice([code for code in range(256) if code not in known])]) + data[1:]


def describe(data: bytes) -> str:
    """One command, readable: ``MAPTI device=0x2 event=20 intid=8195 icid=3``."""
    command = decode(data)
    spec = op.SPEC.get(command.op)
    if spec is None:
        return f"{command.op:#04x}? {data.hex()}"
    plain = {"event", "intid", "icid", "rdbase", "rdbase2", "size", "valid"}
    fields = [(name, getattr(command, name)) for name, _, _ in spec.fields]
    text = " ".join([spec.name, *(f"{name}={value if name in plain else hex(value)}" for name, value in fields)])
    return text if encode(command) == data else f"{text} (reserved bits: {data.hex()})"
