"""Packet buffers of one size on banks of guest memory that come and go.

A bank that is added is used at once: its buffers, never handed out before, go first. One that shall go is *retired*:
nothing more of it is handed out, and who asked is told when the last of its buffers is back.

Addresses are plain ints. While no bank is retiring nobody asks to which bank an address belongs, so that handing out
and taking back cost two slices of a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.errors import LocalError
from common.world import Memory


class _Retiring:
    """A bank on its way out: addresses ``start`` … ``stop`` - 1, of which ``outstanding`` are not back yet."""

    __slots__ = ("done", "outstanding", "start", "stop")

    def __init__(self, start: int, stop: int, outstanding: int, done: Callable[[], object] | None) -> None:
        self.start: Final = start
        self.stop: Final = stop
        self.outstanding = outstanding
        self.done: Final = done


class BufferPool:
    """Buffers of ``size`` bytes each.

    ``views[addr]`` are the bytes of the buffer at guest address ``addr``, for as long as its bank is there. A buffer
    that is given back must be one that was taken: that is not checked one by one (it is what the hot path would spend
    most on); a pool that holds more than there is raises LocalError, and retire() looks for what was given twice.
    """

    __slots__ = ("_banks", "_free", "_fresh", "_memory", "_retiring", "_total", "_waiting", "size", "views")

    def __init__(self, memory: Memory, size: int) -> None:
        if size <= 0:
            raise LocalError(f"buffers of {size} bytes")
        self.size: Final = size
        self._memory: Final = memory
        self.views: Final[dict[int, memoryview]] = {}
        #: base → bytes of every bank, those that retire too
        self._banks: Final[dict[int, int]] = {}
        #: buffers that were never handed out; the newest bank's are at the end, which is where they are taken from
        self._fresh: list[int] = []
        #: buffers that came back, the latest at the end
        self._free: list[int] = []
        self._retiring: Final[list[_Retiring]] = []
        #: buffers of all banks that do not retire
        self._total = 0
        self._waiting: list[Callable[[], object]] = []

    # --- banks --------------------------------------------------------------------------------------------------------

    def add_bank(self, base: int, size: int) -> int:
        """``size`` bytes of guest memory at ``base`` hold buffers from now on; the next ones handed out are these.
        What is left behind the last whole buffer stays unused. Returns how many buffers there are.

        Raises LocalError for a bank that holds no buffer, overlaps another (one that retires too) or is not in one
        region of guest memory.
        """
        if size < self.size:
            raise LocalError(f"bank {base:#x}: {size} bytes hold no buffer of {self.size}")
        for other, length in self._banks.items():
            if base < other + length and other < base + size:
                raise LocalError(f"bank {base:#x}+{size:#x} overlaps {other:#x}+{length:#x}")
        data = self._memory.buffer(base, size)
        if data is None:
            raise LocalError(f"bank {base:#x}+{size:#x} is not in one region of guest memory")
        self._banks[base] = size
        count = size // self.size
        addrs = [base + i * self.size for i in range(count)]
        self.views.update((addr, data[addr - base : addr - base + self.size]) for addr in addrs)
        self._fresh += reversed(addrs)
        self._total += count
        self._wake()
        return count

    def retire(self, base: int, done: Callable[[], object] | None = None) -> int:
        """Hand out nothing more of the bank at ``base``. Returns how many of its buffers are not back yet.

        Once they all are, which may be now, the bank is forgotten and ``done()`` is called (an event's ``set``, say).
        Raises LocalError where there is no such bank, where it retires already, or where a buffer of it was given back
        twice.
        """
        if base not in self._banks or any(bank.start == base for bank in self._retiring):
            raise LocalError(f"no bank at {base:#x} that could retire")
        stop = base + self._banks[base]
        here = [addr for addr in (*self._fresh, *self._free) if base <= addr < stop]
        count = (stop - base) // self.size
        if len(here) != len(set(here)):
            raise LocalError(f"bank {base:#x}: a buffer was given back twice")
        self._fresh = [addr for addr in self._fresh if not base <= addr < stop]
        self._free = [addr for addr in self._free if not base <= addr < stop]
        self._total -= count
        bank = _Retiring(base, stop, count - len(here), done)
        self._retiring.append(bank)
        self._settle(bank)
        return bank.outstanding

    def outstanding(self, base: int) -> int:
        """Buffers of the bank at ``base`` that are handed out; 0 where there is no such bank (any more)."""
        for bank in self._retiring:
            if bank.start == base:
                return bank.outstanding
        stop = base + self._banks.get(base, 0)
        here = sum(base <= addr < stop for addr in (*self._fresh, *self._free))
        return (stop - base) // self.size - here

    @property
    def banks(self) -> list[int]:
        """Bases of the banks that buffers are handed out from, the oldest first."""
        retiring = {bank.start for bank in self._retiring}
        return [base for base in self._banks if base not in retiring]

    def _settle(self, bank: _Retiring) -> None:
        """Forget a bank of which nothing is outstanding."""
        if bank.outstanding:
            return
        self._retiring.remove(bank)
        size = self._banks.pop(bank.start)
        for i in range(size // self.size):
            del self.views[bank.start + i * self.size]
        if bank.done is not None:
            bank.done()

    # --- buffers ------------------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Buffers that can be taken now."""
        return len(self._fresh) + len(self._free)

    def take(self) -> int | None:
        """A buffer, or None where there is none."""
        taken = self.take_batch(1)
        return taken[0] if taken else None

    def take_batch(self, count: int) -> list[int]:
        """Up to ``count`` buffers: fewer where there are no more."""
        fresh = self._fresh
        taken: list[int] = []
        if fresh:
            at = max(0, len(fresh) - count)
            taken = fresh[at:]
            taken.reverse()
            del fresh[at:]
            count -= len(taken)
        free = self._free
        at = max(0, len(free) - count)
        taken += free[at:]
        del free[at:]
        return taken

    def give(self, addr: int) -> None:
        """A buffer comes back."""
        self.give_batch([addr])

    def give_batch(self, addrs: list[int]) -> None:
        """Buffers come back. Raises LocalError where the pool then holds more than all banks have."""
        self._put(addrs)
        if self._waiting:
            self._wake()

    def exchange(self, addrs: list[int]) -> list[int]:
        """Give ``addrs`` back and take as many: mostly the same ones, others where a new bank waits to be used or some
        of ``addrs`` lie in a bank that retires. Fewer only where there are not enough."""
        if not (self._fresh or self._retiring):
            return addrs
        self._put(addrs)
        taken = self.take_batch(len(addrs))
        if self._waiting:
            self._wake()
        return taken

    def when_free(self, call: Callable[[], object]) -> None:
        """``call()`` once, when next buffers come back or a bank is added: for who found too few of them."""
        self._waiting.append(call)

    def _put(self, addrs: list[int]) -> None:
        retiring = self._retiring
        if retiring:
            addrs = [addr for addr in addrs if not self._leaves(addr)]
        self._free += addrs
        if len(self._free) + len(self._fresh) > self._total:
            raise LocalError(f"{self.free} buffers in a pool of {self._total}: some were given back twice")
        if retiring:
            for bank in tuple(retiring):
                self._settle(bank)

    def _leaves(self, addr: int) -> bool:
        """Does ``addr`` belong to a bank that retires? Then it is not handed out again."""
        for bank in self._retiring:
            if bank.start <= addr < bank.stop:
                bank.outstanding -= 1
                return True
        return False

    def _wake(self) -> None:
        """Who waits takes what it can; who still has too few says so again."""
        if self.free:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()
