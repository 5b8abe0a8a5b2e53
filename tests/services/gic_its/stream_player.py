"""Plays a command stream against an ITS as a guest would, with all that happens beside it, and looks at what shows.

A stream is cut into *moves*: a batch of commands, an MSI, a vCPU that takes an LPI, LPIs or the ITS off and on again, a
changed configuration byte, tables that are taken away, a move to another machine. The same moves played on two machines
must show the same.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, decode, encode
from tests.services.gic_its import streams
from tests.services.gic_its.case_steps import Adapter
from tests.services.gic_its.stream_tables import DEVICES, FLAT, ICIDS, Shape
from tests.services.gic_its.streams import describe

CTLR, CBASER, CWRITER, CREADR, BASER0, BASER1 = 0x0, 0x80, 0x88, 0x90, 0x100, 0x108
PROPBASER, PENDBASER = 0x70, 0x78
VALID: Final = 1 << 63
PTZ: Final = 1 << 62
STALLED: Final = 1
#: Cacheable, shareable; what the recorded cases write.
ITS_ATTRIBUTES: Final = 7 << 59 | 1 << 10
RD_ATTRIBUTES: Final = 7 << 7
CONFIG_BYTE: Final = 0xA1
CONFIG_BYTES: Final = tuple(priority | enabled for priority in (0x00, 0x40, 0xA0, 0xA4, 0xF0) for enabled in (2, 3))

#: What may happen between two batches, and how often. ``reset`` and ``migrate`` only where asked for.
EXTRAS: Final = {"msi": 8, "ack": 10, "config": 3, "inv": 3, "lpis": 2, "off": 2, "queue": 1, "tables": 0.3}
RARE: Final = {"migrate": 2, "reset": 1}

Seen = dict[str, object]
"""What can be observed, by name."""


@dataclass(frozen=True)
class Move:
    """``kind`` says which of the others mean anything; see the methods of :class:`Player`."""

    kind: str
    commands: tuple[bytes, ...] = ()
    cpu: int = 0
    device: int = 0
    event: int = 0
    value: int = 0

    def __str__(self) -> str:
        text = {
            "run": "",
            "msi": f"MSI of device {self.device:#x}, event {self.event}",
            "ack": f"vCPU {self.cpu} takes {self.value}",
            "config": f"configuration byte of LPI {self.event} = {self.value:#x}, INVALL",
            "inv": f"configuration byte of the own LPI of vCPU {self.cpu} = {self.value:#x}, "
            f"{'INV' if self.device % 2 else 'INVALL'}, INT, acknowledge",
            "lpis": f"EnableLPIs of vCPU {self.cpu} off, these commands, PTZ = {self.value}, on",
            "off": f"ITS off, MSIs of device {self.device:#x}, event {self.event}, and of the own, these commands, on",
            "queue": f"ITS off, a queue of {self.value} pages, on",
            "tables": f"ITS off, {('no devices', 'no collections', 'no tables')[self.value % 3]}, on",
        }.get(self.kind, self.kind)
        return "\n".join([*([text] if text else []), *(f"    {describe(command)}" for command in self.commands)])


def plan(
    commands: Iterable[bytes],
    rng: random.Random,
    cpus: int = 4,
    *,
    batch: tuple[int, int] = (1, 40),
    extras: Collection[str] = tuple(EXTRAS),
) -> list[Move]:
    """The moves of a stream: batches of ``batch`` commands (at most 100), and between them ``extras``."""
    weights = {kind: weight for kind, weight in (EXTRAS | RARE).items() if kind in extras}
    rest, moves = iter(commands), []
    mapped = [(streams.DEVICE_IDS[0], streams.EVENTS[0])]
    while chunk := tuple(islice(rest, rng.randint(*batch))):
        moves.append(Move("run", chunk))
        mapped += [(c.device, c.event) for c in map(decode, chunk) if c.op == op.MAPTI]
        while weights and rng.random() < 0.6:
            kind = rng.choices(tuple(weights), tuple(weights.values()))[0]
            cpu, (device, event) = rng.randrange(cpus), rng.choice(mapped[-40:])
            moves.append(
                Move(
                    kind,
                    _aside(kind, rng, cpu, mapped[-40:]),
                    cpu=cpu,
                    device=device,
                    event=rng.choice(streams.LPIS) if kind == "config" else event,
                    value=rng.randint(1, 4) if kind == "ack" else _value(kind, rng),
                )
            )
    return moves


def _aside(kind: str, rng: random.Random, cpu: int, mapped: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    """Commands of a move that is not a batch. While LPIs are off: INT, also of the vCPU's own event; it is dropped."""
    if kind not in ("lpis", "off"):
        return ()
    made = [Command(rng.choice((op.INT, op.CLEAR, op.DISCARD)), *rng.choice(mapped)) for _ in range(rng.randint(1, 6))]
    if kind == "lpis":
        made.append(Command(op.INT, streams.OWN_DEVICE, cpu))
        made.append(Command(op.MOVALL, rdbase=cpu - 1 if cpu else 1, rdbase2=cpu))
    return tuple(map(encode, made))


def _value(kind: str, rng: random.Random) -> int:
    match kind:
        case "queue":
            return rng.choice((1, 2, 16))
        case "tables":
            return rng.randrange(3)
        case "lpis":
            return rng.randrange(2)
        case _:
            return rng.choice(CONFIG_BYTES)


class Player:
    """One machine and where its queue stands. ``profile`` says what the tables' entries look like, ``shape`` where
    they are. A batch goes to the queue in up to ``writes`` writes of CWRITER, with nobody waiting in between."""

    def __init__(
        self,
        adapter: Adapter,
        cpus: int = 4,
        profile: str = "qemu",
        *,
        queue_pages: int = 1,
        shape: Shape = FLAT,
        writes: int = 1,
    ) -> None:
        self._adapter = adapter
        self._cpus = cpus
        self._entry = 8 if profile == "kvm" else 12
        self._kvm = profile == "kvm"
        self._first_pages = self._pages = queue_pages
        self._shape = shape
        self._writes = writes
        self._at = 0
        self.shown: list[object] = []

    def set_up(self) -> None:
        """The registers as the recorded cases write them, then the player's own mappings."""
        a = self._adapter
        a.mmio_write("gicd", 0, 4, 0x13)
        a.mem_fill(streams.CONFIG, 0x1_0000, CONFIG_BYTE)
        for cpu in range(self._cpus):
            table = streams.PENDING + cpu * streams.PENDING_STEP
            a.mem_fill(table, 0x2000, 0)
            a.mmio_write(f"gicr{cpu}", PROPBASER, 8, streams.CONFIG | RD_ATTRIBUTES | 0xF)
            a.mmio_write(f"gicr{cpu}", PENDBASER, 8, table | RD_ATTRIBUTES | PTZ)
            a.mmio_write(f"gicr{cpu}", CTLR, 4, 1)
        self._new_tables(devices=True, collections=True)
        self._new_queue(self._first_pages)
        self._map_own()

    def _new_tables(self, *, devices: bool, collections: bool) -> None:
        """While the ITS is off: Valid = 0, tables as they are at first, Valid = 1."""
        for register, table, indexes, which in (
            (BASER0, self._shape.devices, DEVICES, devices),
            (BASER1, self._shape.collections, ICIDS, collections),
        ):
            if which:
                self._adapter.mmio_write("its", register, 8, 0)
                table.fill(self._adapter, indexes)
                self._adapter.mmio_write("its", register, 8, table.baser | ITS_ATTRIBUTES)

    def _map_own(self) -> None:
        own = [Command(op.MAPD, device=streams.OWN_DEVICE, size=3, itt=streams.OWN_ITT, valid=1)]
        for cpu in range(self._cpus):
            icid, lpi = streams.OWN_ICID + cpu, streams.OWN_LPI + cpu
            own.append(Command(op.MAPC, icid=icid, rdbase=cpu, valid=1))
            own.append(Command(op.MAPTI, device=streams.OWN_DEVICE, event=cpu, intid=lpi, icid=icid))
        self._run([encode(command) for command in own])

    def play(self, move: Move) -> None:
        """Carry out one move; what it shows at once goes to ``shown``."""
        getattr(self, f"_move_{move.kind}")(move)

    # --- moves ---------------------------------------------------------------------------------------------------

    def _move_run(self, move: Move) -> None:
        self._run(move.commands)

    def _move_msi(self, move: Move) -> None:
        self._adapter.msi(move.device, move.event)

    def _move_ack(self, move: Move) -> None:
        self.shown += [self._adapter.ack(move.cpu) for _ in range(move.value)]

    def _move_config(self, move: Move) -> None:
        self._adapter.mem_write(streams.CONFIG + move.event - 8192, bytes([move.value]))
        cpus = range(self._cpus) if self._kvm else [move.cpu]  # one INVALL in QEMU is for every PE
        self._run([encode(Command(op.INVALL, icid=streams.OWN_ICID + cpu)) for cpu in cpus])

    def _move_inv(self, move: Move) -> None:
        lpi = streams.OWN_LPI + move.cpu
        if any(self._adapter.pending(cpu, lpi) for cpu in range(self._cpus) if cpu != move.cpu):
            return  # MOVALL took it where an INV of the event does not reach
        self._adapter.mem_write(streams.CONFIG + lpi - 8192, bytes([move.value]))
        own = {"device": streams.OWN_DEVICE, "event": move.cpu}
        look = Command(op.INV, **own) if move.device % 2 else Command(op.INVALL, icid=streams.OWN_ICID + move.cpu)
        for command in (look, Command(op.INT, **own)):
            self._run([encode(command)])
        self.shown.append(self._adapter.ack(move.cpu))

    def _move_lpis(self, move: Move) -> None:
        frame, table = f"gicr{move.cpu}", streams.PENDING + move.cpu * streams.PENDING_STEP
        self._adapter.mmio_write(frame, CTLR, 4, 0)
        before = set(self._adapter.pending_all(move.cpu))
        if self._kvm:  # QEMU's is the table
            self.shown.append(sorted(before))
        self._run(move.commands)
        self.shown.append(sorted(set(self._adapter.pending_all(move.cpu)) - before))
        self.shown.append(self._adapter.ack(move.cpu))
        self._adapter.mmio_write(frame, PENDBASER, 8, table | RD_ATTRIBUTES | PTZ * move.value)
        self._adapter.mmio_write(frame, CTLR, 4, 1)

    def _move_off(self, move: Move) -> None:
        self._adapter.mmio_write("its", CTLR, 4, 0)
        for device, event in ((move.device, move.event), (streams.OWN_DEVICE, move.cpu)):
            self._adapter.msi(device, event)
        self._put(move.commands)
        self.shown.append(self._adapter.mmio_read("its", CREADR, 8))
        self._adapter.mmio_write("its", CTLR, 4, 1)
        self._adapter.drain()
        self._mend_stall()

    def _move_queue(self, move: Move) -> None:
        self._new_queue(move.value)

    def _move_tables(self, move: Move) -> None:
        self._adapter.mmio_write("its", CTLR, 4, 0)
        self._new_tables(devices=move.value != 1, collections=move.value != 0)
        self._adapter.mmio_write("its", CTLR, 4, 1)
        self._map_own()

    def _move_migrate(self, move: Move) -> None:
        self._adapter.migrate()

    def _move_reset(self, move: Move) -> None:
        self._adapter.reset()
        self.set_up()

    # --- the queue -----------------------------------------------------------------------------------------------

    def _new_queue(self, pages: int) -> None:
        a = self._adapter
        a.mmio_write("its", CTLR, 4, 0)
        a.mmio_write("its", CBASER, 8, VALID | ITS_ATTRIBUTES | streams.QUEUE | pages - 1)
        a.mmio_write("its", CWRITER, 8, 0)
        a.mmio_write("its", CTLR, 4, 1)
        self._pages, self._at = pages, 0

    def _put(self, commands: Sequence[bytes]) -> None:
        step = -(-len(commands) // self._writes)
        for at, command in enumerate(commands, 1):
            self._adapter.mem_write(streams.QUEUE + self._at, command)
            self._at = (self._at + COMMAND_SIZE) % (self._pages * 4096)
            if at % step == 0 or at == len(commands):
                self._adapter.mmio_write("its", CWRITER, 8, self._at)
        self._adapter.drain()

    def _run(self, commands: Sequence[bytes]) -> None:
        self._put(commands)
        self._mend_stall()

    def _mend_stall(self) -> None:
        """A queue that stalled starts anew, behind what stalled it."""
        creadr = self._adapter.mmio_read("its", CREADR, 8)
        if creadr & STALLED:
            self.shown.append(("stalled", creadr))
            self._new_queue(self._pages)

    # --- what shows ----------------------------------------------------------------------------------------------

    def look(self) -> Seen:
        """Everything that can be observed now, and what was shown since the last look."""
        a = self._adapter
        seen: Seen = {"shown": self.shown}
        self.shown = []
        for name, offset, size in (("CTLR", CTLR, 4), ("CREADR", CREADR, 8), ("CWRITER", CWRITER, 8)):
            seen[name] = hex(a.mmio_read("its", offset, size))
        for cpu in range(self._cpus):
            seen[f"pending {cpu}"] = sorted(a.pending_all(cpu))
        table = self._shape.collections
        rows = [table.place(icid, ICIDS) for icid in (0, *(() if self._kvm else ICIDS[-3:]))]
        seen["collection table"] = b"".join(
            a.mem_read(row, 0x300 if at == 0 else 8) for at, row in enumerate(rows) if row is not None
        ).hex()
        for device in DEVICES:
            place = self._shape.devices.place(device, DEVICES)
            if place is not None:
                self._look_at_device(device, place, seen)
        return seen

    def _look_at_device(self, device: int, place: int, seen: Seen) -> None:
        entry = self._adapter.mem_read(place, 8)
        seen[f"DTE {device:#x}"] = entry.hex()
        word = int.from_bytes(entry, "little")
        if self._kvm:  # an ITT that is not in use is the guest's
            itts = [(word >> 5 & (1 << 44) - 1) << 8] if word & VALID else []
        elif device == streams.OWN_DEVICE:
            itts = [streams.OWN_ITT]
        else:
            itts = [streams.itt_of(device, place) for place in range(2)]
        for itt in itts:
            if itt == streams.NOWHERE:
                continue
            table = self._adapter.mem_read(itt, self._entry * 33)
            for event in (255, 256, *(streams.WIDE_EVENTS if device == streams.WIDE else ())):
                table += self._adapter.mem_read(itt + event * self._entry, self._entry)
            seen[f"ITT {itt:#x}"] = table.hex()


def run_stream(
    adapter: Adapter,
    moves: Sequence[Move],
    cpus: int = 4,
    profile: str = "qemu",
    *,
    check_every: int = 1,
    queue_pages: int = 1,
    shape: Shape = FLAT,
    writes: int = 1,
) -> Iterator[tuple[int, Seen]]:
    """Set up, play the moves; what shows after every ``check_every`` of them and after the last, with its index."""
    player = Player(adapter, cpus, profile, queue_pages=queue_pages, shape=shape, writes=writes)
    player.set_up()
    for index, move in enumerate(moves):
        try:
            player.play(move)
        except Exception as error:
            error.add_note(f"in move {index}: {move}")
            raise
        if (index + 1) % check_every == 0 or index + 1 == len(moves):
            yield index, player.look()
