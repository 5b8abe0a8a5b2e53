"""A back end around another one, that writes every packet of both directions to a pcapng file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from common.pcap import INBOUND, OUTBOUND, interface_block, packet_block, section_block
from common.virtio.net_header import NET_HEADER_BYTES
from services.vdpa_nic.backends.backend import Backend, Waiting

#: Bytes of a frame that are recorded, unless told: every Ethernet frame is shorter, and tcpdump's default is no less.
SNAPLEN: Final = 262144


@dataclass(slots=True)
class RecordStats:
    """What a recording counts."""

    packets: int = 0
    bytes: int = 0
    #: packets that passed after the recording had ended
    missed: int = 0
    #: the file could not be written: that ended the recording
    write_errors: int = 0


class Recording:
    """One file. ``write`` takes all of what it is given and returns its length, as an unbuffered file does; ``wall``
    is the time of day (seconds since 1970).

    The recording ends, and traffic goes on, when the next packet would make the file longer than ``limit`` bytes, or
    when ``write`` raises OSError or takes less. ``log`` hears of it, once.
    """

    def __init__(
        self,
        write: Callable[[bytes], int],
        wall: Callable[[], float],
        *,
        limit: int,
        snaplen: int = SNAPLEN,
        log: Callable[..., None],
    ) -> None:
        self.stats: Final = RecordStats()
        self.snaplen: Final = snaplen
        self._write_out: Final = write
        self._wall: Final = wall
        self._room = limit
        self._log: Final = log
        self._ended = False
        #: name → number
        self._interfaces: dict[str, int] = {}
        self._stamp = 0.0
        self._write(section_block())

    def interface(self, name: str) -> int:
        """The number of the interface ``name``; made at its first use."""
        number = self._interfaces.get(name)
        if number is None:
            number = self._interfaces[name] = len(self._interfaces)
            self._write(interface_block(name, self.snaplen))
        return number

    def packets(self, interface: int, direction: int, pair: int, packets: Sequence[bytes]) -> None:
        """``packets``, with their headers, passed ``interface`` now. Their frames are written in one go."""
        stats = self.stats
        if self._ended:
            stats.missed += len(packets)
            return
        # a clock that was set back must not turn the file's order round
        self._stamp = stamp = max(self._stamp, self._wall())
        blocks = []
        size = 0
        for packet in packets:
            block = packet_block(interface, pair, direction, stamp, packet[NET_HEADER_BYTES:], self.snaplen)
            size += len(block)
            if size > self._room:
                break
            blocks.append(block)
        written = len(blocks) if blocks and self._write(b"".join(blocks)) else 0
        stats.packets += written
        if written < len(packets):
            stats.missed += len(packets) - written
            self.end("limit")

    def _write(self, data: bytes) -> bool:
        if self._ended:
            return False
        if len(data) > self._room:
            self.end("limit")
            return False
        try:
            taken = self._write_out(data)
        except OSError as error:
            self._failed(str(error))
            return False
        if taken != len(data):
            self._failed(f"{taken} of {len(data)} bytes written")
            return False
        self._room -= len(data)
        self.stats.bytes += len(data)
        return True

    def _failed(self, reason: str) -> None:
        self.stats.write_errors += 1
        self.end(reason)

    def end(self, reason: str) -> None:
        """Write nothing more; the file may be closed."""
        if not self._ended:
            self._ended = True
            self._log("recording ended", reason=reason, packets=self.stats.packets, bytes=self.stats.bytes)


class _Tap(Waiting):
    """A backlog that says what is put in. What the NIC puts back at the left, or moves here from another pair, had been
    said before."""

    def __init__(self, waiting: Waiting, said: Callable[[Sequence[bytes]], None]) -> None:
        super().__init__(waiting)
        self._said = said

    def append(self, item: tuple[bytes, float], /) -> None:
        super().append(item)
        self._said((item[0],))

    def extend(self, items: Iterable[tuple[bytes, float]], /) -> None:
        if isinstance(items, _Tap):
            super().extend(items)
            return
        new = list(items)
        super().extend(new)
        self._said([packet for packet, _ in new])


class Record:
    """``inner`` with everything recorded as what passes the guest's interface ``name``: what the driver sends is
    outbound; inbound is what comes for it, at the moment when it begins to wait for a receive buffer."""

    def __init__(self, inner: Backend, recording: Recording, name: str) -> None:
        self.inner: Final = inner
        self.answers = inner.answers
        self._recording: Final = recording
        self._interface: Final = recording.interface(name)
        self.backlog: Sequence[Waiting] = [
            _Tap(waiting, partial(recording.packets, self._interface, INBOUND, pair))
            for pair, waiting in enumerate(inner.backlog)
        ]
        inner.backlog = self.backlog

    @property
    def pairs(self) -> int:
        return self.inner.pairs

    @pairs.setter
    def pairs(self, pairs: int) -> None:
        self.inner.pairs = pairs

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        self._recording.packets(self._interface, OUTBOUND, pair, packets)
        self.inner.transmit(pair, packets, now)

    def tick(self, now: float) -> None:
        self.inner.tick(now)
