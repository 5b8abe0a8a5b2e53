"""A hostile platform behind both rings of virtio-scmi: it reads commands and answers with whatever it likes.

Ring entries are well formed (each chain is used once); :meth:`HostilePlatform.break_ring` makes the ones that are not.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from common.memory import GuestMemory
from common.scmi import clock, header, sensor
from common.scmi.status import Status
from common.virtio.split_device import SplitDevice
from common.virtio.split_layout import SplitLayout, SplitViews
from common.world import World

#: Raw commands go to these; their payload begins with IDENTITY, and so does the right answer's.
VENDOR: Final = (0x80, 0x81)
#: command id, is it asynchronous?
IDENTITY: Final = struct.Struct("<Q?")
#: Clocks, and sensors, of an honest platform.
SOURCES: Final = 3
BUFFER: Final = 136
_STATUS: Final = (0, 0, 1, 77, -1, -3, -10, -11, -12, -128, -(2**31), 2**31 - 1)
_EDGES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 17, 23, 31, 63)
_LIES: Final = (0, 0, 1, 3, 8, 137, 200, 0x1_0000, 0x7FFF_FFFF, 0xFFFF_FFFF)


@dataclass(slots=True)
class Sent:
    """What a raw command may be completed with: messages that the platform meant for it, as they lie in memory."""

    data: bytes
    #: the right answer, in the command's own chain (or the right delayed response)
    right: bool


@dataclass(slots=True, eq=False)
class Command:
    """A raw command that somebody waits for."""

    answers: list[Sent] = field(default_factory=list)
    delayed: list[Sent] = field(default_factory=list)
    #: its own chain came back with something that is not its answer
    spoilt: bool = False

    def check_status(self, status: int) -> None:
        """It ended with ``status``: one that it was told, or a malformed answer's."""
        told = [int.from_bytes(one.data[4:8], "little", signed=True) for one in self.answers + self.delayed]
        assert status in told or (status == Status.PROTOCOL_ERROR and self.spoilt), f"{status} of {told}"


@dataclass(slots=True, eq=False)
class Chain:
    """A command as the platform took it off the cmdq."""

    head: int
    word: int
    request: bytes
    addr: int
    room: int
    id: int
    slow: bool
    #: types of messages that answered it: each once
    told: set[int] = field(default_factory=set)


class HostilePlatform:
    """``commands`` maps ids of raw commands to who waits for them; the fuzz fills it."""

    def __init__(self, world: World, memory: GuestMemory, rng: random.Random, commands: dict[int, Command]) -> None:
        self.world = world
        self.memory = memory
        self.rng = rng
        self.commands = commands
        self.kinds: Counter[str] = Counter()
        #: used entries published by each queue since :meth:`connect`
        self.pushed = [0, 0]
        self.irq = [False, False]
        #: a word → the last command that had it
        self.latest: dict[int, Chain] = {}
        self.recent: deque[Chain] = deque(maxlen=48)
        self.owed: deque[Chain] = deque(maxlen=48)
        self.owned: list[Chain] = []
        #: commands that it keeps for as long as it likes
        self.held: list[Chain] = []
        self.buffers: list[tuple[int, int]] = []
        #: iterated replies never end
        self.stubborn = rng.random() < 0.3
        self._cmdq_kinds = self._weighed(
            (40, self.right), (4, self.wrong_token), (4, self.token_of_another), (3, self.wrong_command),
            (4, self.wrong_type), (2, self.reserved_bits), (5, self.bad_status), (6, self.cut), (5, self.long_lie),
            (4, self.garbage), (2, self.untouched), (5, self.again), (3, self.delayed_on_cmdq),
            (3, self.notification_on_cmdq), (10, self.lying_payload),
        )  # fmt: skip
        self._eventq_kinds = self._weighed(
            (20, self.delayed), (6, self.delayed_early), (6, self.delayed_again), (5, self.delayed_unasked),
            (4, self.delayed_cut), (20, self.notification), (1, self.notification_burst), (6, self.notification_cut),
            (4, self.event_garbage),
            (3, self.event_type), (5, self.response_on_eventq), (3, self.event_lie), (2, self.event_untouched),
        )  # fmt: skip

    @staticmethod
    def _weighed(*kinds: tuple[int, Callable[..., None]]) -> list[Callable[..., None]]:
        return [kind for weight, kind in kinds for _ in range(weight)]

    def connect(self, layouts: list[SplitLayout], *, event_idx: bool, start: int) -> None:
        """New queues: what was owned is gone."""
        self.queues = [
            SplitDevice(self.world, self.memory, at, event_idx=event_idx, avail=start, used=start) for at in layouts
        ]
        self.layouts = layouts
        self.owned.clear()
        self.held.clear()
        self.owed.clear()
        self.buffers.clear()
        self.pushed = [0, 0]
        self.irq = [False, False]

    # --- taking -------------------------------------------------------------------------------------------------------

    def take(self) -> None:
        """Take everything that waits on both rings."""
        cmdq, eventq = self.queues
        for head, segments, readable in cmdq.pop_batch(cmdq.size):
            assert readable == 1
            assert len(segments) == 2
            (at, length, _), (addr, room, _) = segments
            request = self.memory.read(at, length)
            word = int.from_bytes(request[:4], "little")
            protocol, message = word >> header.PROTOCOL_SHIFT & 0xFF, word & 0xFF
            number, slow = 0, False
            if protocol in VENDOR:
                number, slow = IDENTITY.unpack_from(request, 4)
            elif protocol == clock.PROTOCOL and message == clock.Command.CLOCK_RATE_SET:
                slow = bool(request[4] & clock.RATE_ASYNC)
            elif protocol == sensor.PROTOCOL and message == sensor.Command.SENSOR_READING_GET:
                slow = bool(request[8] & sensor.READ_ASYNC)
            chain = Chain(head, word, request, addr, room, number, slow)
            self.latest[word] = chain
            self.owned.append(chain)
            if slow:
                self.owed.append(chain)
        cmdq.enable_notify()
        for head, segments, _ in eventq.pop_batch(eventq.size):
            self.buffers.append((head, segments[0][0]))
        eventq.enable_notify()

    def owes(self) -> list[int]:
        """Headers of commands that it has not answered yet, or whose delayed response is to come."""
        words = [chain.word for chain in self.owned + self.held if header.COMMAND not in chain.told]
        return words + [chain.word for chain in self.owed if header.DELAYED_RESPONSE not in chain.told]

    # --- putting ------------------------------------------------------------------------------------------------------

    def _publish(self, queue: int, head: int, addr: int, length: int, right: Chain | None) -> None:
        """One used entry; ``right`` is the command whose right answer this is. What lies in memory now is what the
        platform has said, whoever wrote it."""
        data = self.memory.read(addr, min(length, BUFFER))
        word = int.from_bytes(data[:4], "little")
        kind = word >> header.TYPE_SHIFT & 3
        if right is not None and kind in right.told:
            right = None  # a repetition: whoever has the token now may take it for its own
        chain = right or self.latest.get(word & ~header.TYPE_MASK)
        if chain is not None and len(data) >= 4 and kind in (header.COMMAND, header.DELAYED_RESPONSE):
            chain.told.add(kind)
            if data[4:8] != bytes(4):
                chain.told.add(header.DELAYED_RESPONSE)  # refused
            command = self.commands.get(chain.id)
            if command is not None and len(data) >= 8:
                (command.delayed if kind else command.answers).append(Sent(data, right is not None))
        self.queues[queue].push(head, length)
        self.pushed[queue] += 1
        self.irq[queue] |= self.queues[queue].need_interrupt()

    def _answer(self, chain: Chain, data: bytes, length: int | None = None, *, right: bool = False) -> None:
        """Use ``chain``."""
        data = data[: chain.room]
        if data:
            self.memory.write(chain.addr, data)
        if not right:
            chain.told |= {header.COMMAND, header.DELAYED_RESPONSE}  # whatever comes later, the right answer never does
            if chain.id in self.commands:
                self.commands[chain.id].spoilt = True
        self._publish(0, chain.head, chain.addr, len(data) if length is None else length, chain if right else None)
        self.recent.append(chain)

    def _tell(self, data: bytes, length: int | None = None, right: Chain | None = None) -> None:
        """Use a buffer of the eventq; there is one."""
        head, addr = self.buffers.pop(self.rng.randrange(len(self.buffers)))
        if data:
            self.memory.write(addr, data[:BUFFER])
        self._publish(1, head, addr, min(len(data), BUFFER) if length is None else length, right)

    def act(self, replies: int) -> None:
        """Up to ``replies`` messages of any kind, as far as there are chains and buffers."""
        rng = self.rng
        for _ in range(replies):
            if self.owned and rng.random() < 0.75:
                chain = self.owned.pop(rng.randrange(len(self.owned)))
                if 8 * len(self.held) < self.queues[0].size and rng.random() < 0.01:
                    self.held.append(chain)
                    continue
                kind = rng.choice(self._cmdq_kinds)
                kind(chain)
            elif self.held and rng.random() < 0.01:
                kind = self.right
                kind(self.held.pop(0))
                self.kinds["right, kept for long"] += 1
                continue
            elif self.buffers and rng.random() < (0.8 if self.owned else 0.3):
                kind = rng.choice(self._eventq_kinds)
                if kind == self.delayed and not self.owed:
                    kind = self.notification
                kind()
            else:
                continue
            self.kinds[kind.__name__] += 1

    def answer_all(self) -> None:
        """Become honest: every command gets its right answer, every asynchronous one its delayed response."""
        while self.owned or self.held:
            self.right((self.owned or self.held).pop())
            self.kinds["right"] += 1

    def answer_token(self, word: int, slow: bool) -> bool:
        """The answer that is owed under ``word``, by the eventq: its chain came back with something else. False: no
        buffer is left."""
        if not self.buffers:
            return False
        self._tell(struct.pack("<Ii", word, 0))
        self.kinds["owed"] += 1
        if slow and self.buffers:
            self._tell(struct.pack("<Ii", header.as_delayed(word), 0))
            self.kinds["owed"] += 1
        return True

    # --- what it says on the cmdq -------------------------------------------------------------------------------------

    def _good(self, chain: Chain) -> bytes:
        """The right answer."""
        return struct.pack("<Ii", chain.word, 0) + self._values(chain)

    def _values(self, chain: Chain) -> bytes:
        rng, request, room = self.rng, chain.request, chain.room - 8
        if chain.id:
            return (request[4:12] + rng.randbytes(8) + bytes(112))[:room]
        protocol, message = chain.word >> header.PROTOCOL_SHIFT & 0xFF, chain.word & 0xFF
        command = (protocol, message)
        skip = int.from_bytes(request[8:12], "little")
        total = 5
        count = 1 if self.stubborn else max(0, min(2, total - skip))
        left = 9 if self.stubborn else max(0, total - skip - count)
        if command == (clock.PROTOCOL, clock.Command.PROTOCOL_ATTRIBUTES):
            return clock.ATTRIBUTES_REPLY.pack(SOURCES, 2, 0)
        if command == (sensor.PROTOCOL, sensor.Command.PROTOCOL_ATTRIBUTES):
            return sensor.ATTRIBUTES_REPLY.pack(SOURCES, 2, 0, 0, 0)
        if command == (clock.PROTOCOL, clock.Command.CLOCK_DESCRIBE_RATES):
            return clock.build_rates([10 * (skip + i) for i in range(count)], left, False)
        if command == (clock.PROTOCOL, clock.Command.CLOCK_POSSIBLE_PARENTS_GET):
            return clock.build_parents(list(range(skip, skip + count)), left)
        if command == (sensor.PROTOCOL, sensor.Command.SENSOR_LIST_UPDATE_INTERVALS):
            return struct.pack(f"<I{count}I", count | left << 16, *range(count))
        if command == (sensor.PROTOCOL, sensor.Command.SENSOR_AXIS_DESCRIPTION_GET):
            return struct.pack("<I", count | left << 26) + b"".join(
                sensor.DESCRIPTOR.pack(skip + i, 0, 0, b"axis") for i in range(count)
            )
        if command == (sensor.PROTOCOL, sensor.Command.SENSOR_DESCRIPTION_GET):
            skip = int.from_bytes(request[4:8], "little")
            count = 1 if self.stubborn else max(0, min(2, total - skip))
            left = 9 if self.stubborn else max(0, total - skip - count)
            return struct.pack("<I", count | left << 16) + b"".join(
                sensor.DESCRIPTOR.pack(skip + i, 0, 0, b"a sensor") for i in range(count)
            )
        return rng.randbytes(room)

    def right(self, chain: Chain) -> None:
        self._answer(chain, self._good(chain), right=True)

    def wrong_token(self, chain: Chain) -> None:
        word = chain.word & ~header.TOKEN_MASK | self.rng.randrange(header.TOKENS) << header.TOKEN_SHIFT
        self._answer(chain, struct.pack("<Ii", word, 0) + self._values(chain))

    def token_of_another(self, chain: Chain) -> None:
        """The whole answer of another command in flight, or this one's under that token."""
        other = self.rng.choice(self.owned) if self.owned else chain
        if self.rng.random() < 0.5:
            self._answer(chain, self._good(other))
        else:
            word = chain.word & ~header.TOKEN_MASK | other.word & header.TOKEN_MASK
            self._answer(chain, struct.pack("<Ii", word, 0) + self._values(chain))

    def wrong_command(self, chain: Chain) -> None:
        """Another protocol or message id."""
        word = chain.word ^ self.rng.choice((1, 2, 0x80, 1 << 10, 1 << 12, 0xFF << 10))
        self._answer(chain, struct.pack("<Ii", word, 0) + self._values(chain))

    def wrong_type(self, chain: Chain) -> None:
        word = chain.word | self.rng.choice((1, 2, 3)) << header.TYPE_SHIFT
        self._answer(chain, struct.pack("<Ii", word, 0) + self._values(chain))

    def reserved_bits(self, chain: Chain) -> None:
        word = chain.word | self.rng.randrange(1, 16) << 28
        self._answer(chain, struct.pack("<Ii", word, 0) + self._values(chain))

    def bad_status(self, chain: Chain) -> None:
        status = self.rng.choice((*_STATUS, self.rng.randrange(-(2**31), 2**31)))
        self._answer(chain, struct.pack("<Ii", chain.word, status) + self._values(chain))

    def cut(self, chain: Chain) -> None:
        self._answer(chain, self._good(chain)[: self.rng.choice(_EDGES)])

    def long_lie(self, chain: Chain) -> None:
        """A used length that has nothing to do with what was written."""
        self._answer(chain, self._good(chain), self.rng.choice((*_LIES, chain.room + 1)))

    def garbage(self, chain: Chain) -> None:
        self._answer(chain, self.rng.randbytes(self.rng.randrange(chain.room + 1)))

    def untouched(self, chain: Chain) -> None:
        """Used without a byte written: what an earlier answer left is there still."""
        self._answer(chain, b"", self.rng.choice((8, chain.room, *_LIES)))

    def again(self, chain: Chain) -> None:
        """An answer that was given before, in another command's chain."""
        self._answer(chain, self._good(self.rng.choice(self.recent) if self.recent else chain))

    def delayed_on_cmdq(self, chain: Chain) -> None:
        other = self.rng.choice(self.owed) if self.owed else chain
        self._answer(chain, struct.pack("<Ii", header.as_delayed(other.word), 0) + self._late_values(other))

    def notification_on_cmdq(self, chain: Chain) -> None:
        self._answer(chain, self._event())

    def lying_payload(self, chain: Chain) -> None:
        """A good header, then counts and names that lie."""
        rng = self.rng
        values = self._values(chain)
        if rng.random() < 0.5:
            first = rng.choice((0xFFFF_FFFF, 0xFFF, 0x3F, 0xFF, 0xFFFF_0000, 0xFFFF_0001, rng.randrange(1 << 32)))
            values = first.to_bytes(4, "little") + values[4:]
        if rng.random() < 0.5:
            values = values[: rng.randrange(len(values) + 1)]
        if rng.random() < 0.5:
            values += bytes(rng.choice((0xFF, 0x80, 0x41)) for _ in range(rng.randrange(80)))
        self._answer(chain, struct.pack("<Ii", chain.word, 0) + values)

    # --- what it says on the eventq -----------------------------------------------------------------------------------

    def _late_values(self, chain: Chain) -> bytes:
        if chain.id:
            return chain.request[4:12] + self.rng.randbytes(self.rng.randrange(100))
        return self.rng.randbytes(self.rng.choice((12, 20, 20, 36, self.rng.randrange(100))))

    def _delayed(self, chain: Chain, status: int = 0) -> bytes:
        return struct.pack("<Ii", header.as_delayed(chain.word), status) + self._late_values(chain)

    def delayed(self) -> None:
        """The delayed response to a command that asked for one: answered, not answered yet, or long given up."""
        chain = self.owed.popleft()
        self._tell(self._delayed(chain), right=chain)

    def delayed_early(self) -> None:
        """It overtakes the response."""
        slow = [chain for chain in self.owned if chain.slow]
        if slow:
            chain = self.rng.choice(slow)
            self._tell(self._delayed(chain), right=chain)
        else:
            self.delayed_unasked()

    def delayed_again(self) -> None:
        chain = self.rng.choice([*self.recent, *self.owed] or [None])
        if chain is None:
            self.delayed_unasked()
        else:
            data = self._delayed(chain, self.rng.choice(_STATUS))
            self._tell(data)
            if self.buffers:
                self._tell(data)
                self.kinds["delayed_twice"] += 1

    def delayed_unasked(self) -> None:
        rng = self.rng
        word = rng.randrange(1 << 28) & ~header.TYPE_MASK
        if self.owned and rng.random() < 0.5:
            word = rng.choice(self.owned).word
        self._tell(struct.pack("<Ii", header.as_delayed(word), 0) + rng.randbytes(12))

    def delayed_cut(self) -> None:
        chain = self.rng.choice([*self.owed, *self.owned] or [None])
        data = self._delayed(chain) if chain else b""
        self._tell(data[: self.rng.choice(_EDGES)])

    def _event(self) -> bytes:
        rng = self.rng
        protocol = rng.choice((0x10, 0x14, 0x14, 0x15, 0x15, 0x15, 0x16, rng.randrange(256)))
        word = header.pack(protocol, rng.choice((0, 0, 0, 1, 2, 0xFF)), rng.choice((0, 0, 5)), header.NOTIFICATION)
        length = rng.choice((4, 8, 12, 16, 24, 128, rng.randrange(129)))
        source = rng.choice((0, 1, 2, 3, 0xFFFF_FFFF))
        return struct.pack("<III", word, 0, source)[: 4 + length] + rng.randbytes(max(0, length - 8))

    def notification(self) -> None:
        self._tell(self._event())

    def notification_burst(self) -> None:
        """More than the worker's queue may hold, all of one protocol."""
        while True:
            word = header.pack(sensor.PROTOCOL, sensor.Notification.SENSOR_UPDATE, 0, header.NOTIFICATION)
            self._tell(struct.pack("<III", word, 0, 1) + self.rng.randbytes(64))
            if not self.buffers:
                return
            self.kinds["notification_burst"] += 1

    def notification_cut(self) -> None:
        self._tell(self._event()[: self.rng.choice(_EDGES)])

    def event_garbage(self) -> None:
        self._tell(self.rng.randbytes(self.rng.randrange(BUFFER + 1)))

    def event_type(self) -> None:
        self._tell(struct.pack("<Ii", self.rng.randrange(1 << 32) & ~header.TYPE_MASK | 1 << header.TYPE_SHIFT, 0))

    def response_on_eventq(self) -> None:
        """What belongs on the cmdq: an answer of a command in flight or of an earlier one, or a command."""
        chain = self.rng.choice([*self.owned, *self.recent] or [None])
        self._tell(self._good(chain) if chain else struct.pack("<I", self.rng.randrange(1 << 32)))

    def event_lie(self) -> None:
        self._tell(self._event(), self.rng.choice(_LIES))

    def event_untouched(self) -> None:
        self._tell(b"", self.rng.choice((8, 20, *_LIES)))

    # --- lies of the ring itself --------------------------------------------------------------------------------------

    def break_ring(self, queue: int) -> str:
        """Publish what no device may. Returns its name."""
        rng, device = self.rng, self.queues[queue]
        views = SplitViews(self.memory, self.layouts[queue])
        # a buffer of the eventq goes back at once, so that a second entry for it is as good as any
        name = rng.choice(("used_idx_jump", "used_id") if queue else ("used_idx_jump", "used_id", "used_twice"))
        self.kinds[name] += 1
        if name == "used_idx_jump":
            device.used_idx = device.used_idx + device.size + rng.randrange(1, 0x8000) & 0xFFFF
            views.used[1] = device.used_idx
        elif name == "used_id":
            # one that only its low bits make a head in flight
            heads = [head for head, _ in self.buffers] if queue else [chain.head for chain in self.owned]
            device.push((heads or [0])[0] + rng.choice((device.size, 0x1_0000, 0xFFFF_0000)), 8)
        else:
            head = self.owned[0].head if self.owned else 0
            device.push(head, 8)
            device.push(head, 8)
        return name
