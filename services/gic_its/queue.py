"""The command queue (IHI 0069 §5.3): who runs commands, when, and who waits for them.

The ITS has one *runner*, as hardware has, an actor that is there while CREADR is not at CWRITER. It stands where
KVM's command mutex stands. A vCPU that writes CWRITER stores it at once and waits until the commands that were queued
then have run, its own among them: at most one lap of the queue, and never for commands that others queued later. So
batches stay whole and in order, nobody runs the commands of others, and a vCPU that writes nonsense holds up itself.

* The runner works in slices of at most :data:`SLICE` commands, or fewer that walk over many entries. Between slices,
  and in long walks, the others have their turn: MSIs are translated, EOIs taken.
* At the end of a slice the ITS *commits*: what the commands wrote, the LPIs that they delivered and CREADR take effect
  in guest memory as one, so that memory is never between two commands.
* CTLR, CBASER, BASERs and a CREADR that is written go through the runner, too, after what was queued before them; a
  CWRITER that is written after one of those waits behind it.
* A reset waits for nobody: it changes ``control.generation``. What is under way ends at its next read or turn.
* A fault in a table stalls the queue where the profile says so: CREADR.Stalled, and the command is tried again with the
  next write of CWRITER or CTLR. Nobody waits for a stalled queue.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from common.errors import MemoryFaultError
from common.gic.commands import COMMAND_SIZE, WORDS
from common.gic.registers import (
    CBASER_ADDR,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    CREADR_STALLED,
    GITS_CREADR,
    GITS_CWRITER,
    QUEUE_OFFSET,
)
from common.registers import RegisterFile
from common.world import Fifo, World
from services.gic_its.commands import WORK, Commands
from services.gic_its.dma import Dma, SupersededError
from services.gic_its.profile import Profile
from services.gic_its.state import Control
from services.gic_its.stats import CommandStats, ErrorStats, op_field
from services.gic_its.tables import TableFaultError

#: Offset of the control frame that holds no register.
NOTHING: Final = 0x18
#: Bytes of commands that are read at a time: 64 commands.
FETCH: Final = 2048
#: Commands that are run before others have their turn.
SLICE: Final = 16
#: The same where every command is several looks at guest memory, and MSIs wait for the tables.
LOOKS: Final = 2

Done = Callable[[], None]
Words = tuple[int, int, int, int]


@dataclass(slots=True, frozen=True)
class Write:
    """A register write that the runner carries out, in its turn."""

    offset: int
    size: int
    value: int
    done: Done


@dataclass(slots=True, frozen=True)
class Waiter:
    """Somebody who is told when ``QueueState.passed`` has come to ``target``."""

    target: int
    done: Done


@dataclass(slots=True)
class QueueState:
    """``running``: there is a runner. ``passed``: bytes of commands that CREADR has passed since the beginning.
    ``stalled``: nothing runs before the next write of CWRITER or CTLR, after a fault or a write of CREADR."""

    running: bool = False
    passed: int = 0
    stalled: bool = False


class CommandQueue:
    """The queue between CREADR and CWRITER of ``registers``, and the writes that its runner carries out."""

    __slots__ = (
        "_commands", "_control", "_creadr", "_cwriter", "_dma", "_errors", "_lock", "_profile", "_registers", "_state",
        "_stats", "_tables_mutex", "_waiters", "_world", "_writes",
    )  # fmt: skip

    #: Commands of a slice; the lab takes fewer.
    slice: ClassVar[int] = SLICE

    _world: Final[World]
    _profile: Final[Profile]
    _control: Final[Control]
    _registers: Final[RegisterFile]
    _creadr: Final[int]
    _cwriter: Final[int]
    _dma: Final[Dma]
    _commands: Final[Commands]
    _stats: Final[CommandStats]
    _errors: Final[ErrorStats]
    _lock: Final[AbstractContextManager[Any]]
    _tables_mutex: Final[AbstractAsyncContextManager[Any]]
    _state: Final[QueueState]
    _waiters: Final[Fifo[Waiter]]
    _writes: Final[Fifo[Write]]

    def __init__(
        self,
        world: World,
        *,
        profile: Profile,
        control: Control,
        registers: RegisterFile,
        dma: Dma,
        commands: Commands,
        stats: CommandStats,
        errors: ErrorStats,
        lock: AbstractContextManager[Any],
        tables_mutex: AbstractAsyncContextManager[Any],
    ) -> None:
        self._world = world
        self._profile = profile
        self._control = control
        self._registers = registers
        self._creadr = registers.map.index("GITS_CREADR")
        self._cwriter = registers.map.index("GITS_CWRITER")
        self._dma = dma
        self._commands = commands
        self._stats = stats
        self._errors = errors
        self._lock = lock
        self._tables_mutex = tables_mutex
        self._state = world.new(QueueState)
        self._waiters = world.queue()
        self._writes = world.queue()

    # --- where the queue is ----------------------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """How long CBASER says that the queue is."""
        return (CBASER_PAGES.get(self._registers.get("GITS_CBASER")) + 1) * CBASER_PAGE

    @property
    def size(self) -> int:
        """Bytes of the queue; 0 while CBASER is not valid."""
        return self.bytes if self._registers.get("GITS_CBASER") & CBASER_VALID else 0

    @property
    def outstanding(self) -> int:
        """Bytes between CREADR and CWRITER; 0 where one of them is outside of the queue, so that nothing runs."""
        size = self.size
        read = self._registers.values[self._creadr] & QUEUE_OFFSET
        write = self._registers.values[self._cwriter] & QUEUE_OFFSET
        return (write - read) % size if read < size and write < size else 0

    # --- the writers' side -------------------------------------------------------------------------------------------

    def post(self, offset: int, size: int, value: int, done: Done) -> None:
        """A write to a register whose effect waits; ``done()`` when it has taken effect. Nothing here waits."""
        complete = False
        with self._lock:
            if offset & ~7 == GITS_CWRITER and not len(self._writes):
                complete = not self._store_cwriter(offset, size, value, done)
            else:
                self._writes.append(Write(offset, size, value, done))
            start = not complete and not self._state.running
            if start:
                self._state.running = True
        if start:
            self._world.spawn("its queue", self._run())
        if complete:
            done()

    def _store_cwriter(self, offset: int, size: int, value: int, done: Done) -> bool:
        """CWRITER takes its value; whether ``done`` will be called when the commands before it have run."""
        if self._registers.write(offset, size, value) is None:
            return False
        self._state.stalled = False
        waits = self._control.enabled and self.outstanding > 0
        if waits:
            self._waiters.append(Waiter(self._state.passed + self.outstanding, done))
        return waits

    def pause(self) -> None:
        """Nothing runs before the next write of CWRITER or CTLR."""
        with self._lock:
            self._state.stalled = True

    def when_at_rest(self, done: Done) -> None:
        """``done()`` when nothing is left to run, as far as the ITS gets."""
        self.post(NOTHING, 4, 0, done)

    def reset(self) -> None:
        """Nothing is queued, nobody waits; the registers are the caller's affair."""
        self._state.stalled = False
        due = self._due(None)
        while len(self._writes):
            due.append(self._writes.popleft().done)
        for done in due:
            done()

    # --- the runner --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Until there is nothing left: slices of commands, then one waiting write, and again."""
        state, control = self._state, self._control
        more = True
        try:
            while more:
                if control.enabled and not state.stalled and self.outstanding:
                    try:
                        await self._slice()
                    except SupersededError:
                        control.in_slice = False
                else:
                    more = await self._rest()
        except Exception:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """The runner ends before its time, by a fault of the ITS itself: nobody may wait for it."""
        with self._lock:
            self._state.running = self._control.in_slice = False
            due = self._due(None)
        for done in due:
            done()

    async def _rest(self) -> bool:
        """The queue is at rest: carry out a write that waits. False if there is none, and the runner is to end."""
        with self._lock:
            if self._control.enabled and not self._state.stalled and self.outstanding:
                return True  # a writer was quicker
            due = self._due(None)
            if len(self._writes):
                write = self._writes.popleft()
                waits = self._carry_out(write)
                if not waits:
                    due.append(write.done)
            else:
                # a writer that comes after this finds no runner, and starts one
                self._state.running = False
            running = self._state.running
        if self._control.purge:
            try:
                await self._commands.purge()
            except SupersededError:
                pass  # a reset purges, too
        for done in due:
            done()
        if running:
            await self._world.turn()
        return running

    def _carry_out(self, write: Write) -> bool:
        """Whether its ``done`` will be called when commands have run."""
        if write.offset & ~7 == GITS_CWRITER:
            return self._store_cwriter(write.offset, write.size, write.value, write.done)
        taken = self._registers.write(write.offset, write.size, write.value)
        if taken is None:
            return False
        self._dma.commit()  # CREADR may be elsewhere
        # a CREADR that the guest moved counts from the next CWRITER on
        self._state.stalled = write.offset & ~7 == GITS_CREADR
        # the ITS may have been enabled with commands in its queue
        waits = self._control.enabled and not self._state.stalled and self.outstanding > 0
        if waits:
            self._waiters.append(Waiter(self._state.passed + self.outstanding, write.done))
        return waits

    async def _slice(self) -> None:
        """Fetch at most FETCH bytes of commands and run them, a slice after the other."""
        registers, generation = self._registers, self._control.generation
        base = CBASER_ADDR.get(registers.get("GITS_CBASER"))
        at = registers.values[self._creadr] & QUEUE_OFFSET
        words = await self._fetch(base + at, min(self.outstanding, self.size - at, FETCH))
        await self._commands.prepare(word for word in words if word is not None)
        done = 0
        while done < len(words) and self.outstanding:  # CWRITER may have been moved back meanwhile
            async with self._tables_mutex:
                if self._control.generation != generation:
                    raise SupersededError("the ITS was reset")
                count = min(self.slice if self._profile.holds_tables else LOOKS, self.outstanding // COMMAND_SIZE)
                done += await self._execute(words[done : done + count])
            self._dma.commit()
            self._control.in_slice = False
            self._tell(self._state.passed)
            if self._state.stalled:
                return  # what is tried again is fetched again
            await self._world.turn()
            if self._control.generation != generation:
                raise SupersededError("the ITS was reset")

    async def _execute(self, words: list[Words | None]) -> int:
        """Run commands until they are done or have walked over WORK entries; how many CREADR has passed."""
        control, state, errors = self._control, self._state, self._errors
        values, creadr = self._registers.values, self._creadr
        handlers, size = self._commands.handlers, self.size
        at, stall_bit = values[creadr] & QUEUE_OFFSET, values[creadr] & CREADR_STALLED
        counts: dict[int, int] = {}
        dirty = self._commands.dirty
        control.in_slice = True
        control.work = 0
        done = 0
        for word in words:
            opcode = -1 if word is None else word[0] & 0xFF
            handler = handlers.get(opcode)
            if word is None:
                errors.unreadable += 1
            elif handler is None:
                errors.unknown += 1
            else:
                counts[opcode] = counts.get(opcode, 0) + 1
                try:
                    kind = await handler(*word)
                except TableFaultError:
                    kind = "table_fault"
                if kind is not None:
                    setattr(errors, kind, getattr(errors, kind) + 1)
                    if kind == "table_fault" and self._profile.stalls:
                        values[creadr] = at | CREADR_STALLED
                        state.stalled = True
                        break
            if len(dirty):
                with self._lock:
                    self._commands.store_pending()
            at += COMMAND_SIZE
            done += 1
            with self._lock:  # a writer counts from both
                state.passed += COMMAND_SIZE
                values[creadr] = (0 if at == size else at) | stall_bit
            if control.work > WORK:
                break
        for opcode, count in counts.items():
            name = op_field(opcode)
            setattr(self._stats, name, getattr(self._stats, name) + count)
        return done

    async def _fetch(self, addr: int, length: int) -> list[Words | None]:
        """A slice of the queue; None for each command that cannot be read: it is skipped, in every profile."""
        try:
            return list(WORDS.iter_unpack(await self._dma.read(addr, length)))
        except MemoryFaultError:
            pass
        words: list[Words | None] = []
        for at in range(addr, addr + length, COMMAND_SIZE):
            try:
                words.append(WORDS.unpack(await self._dma.read(at, COMMAND_SIZE)))
            except MemoryFaultError:
                words.append(None)
        return words

    # --- those who wait ----------------------------------------------------------------------------------------------

    def _tell(self, passed: int) -> None:
        with self._lock:
            due = self._due(passed)
        for done in due:
            done()

    def _due(self, passed: int | None) -> list[Done]:
        """Take off the list who has waited long enough: until ``passed``; all of them where the queue is at rest."""
        waiters = self._waiters
        due = []
        while len(waiters):
            waiter = waiters.popleft()
            if passed is not None and waiter.target > passed:
                waiters.appendleft(waiter)
                break
            due.append(waiter.done)
        return due
