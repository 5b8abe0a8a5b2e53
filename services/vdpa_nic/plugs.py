"""What the guests' NICs of one service are plugged into, with the files that the back ends read and write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from common.errors import ConfigError, RemoteError
from common.pcap import SECTION_TYPE, read_capture
from common.runtime.clock import wall
from common.runtime.metrics import Metrics
from common.virtio.net_header import MAX_ETHERNET
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.backends.record import Record, Recording
from services.vdpa_nic.backends.replay import Pace, Replay, as_captured, at_rate
from services.vdpa_nic.backends.switch import LearningSwitch, SwitchPort
from services.vdpa_nic.config import BackendConfig


class Plugs:
    """Makes the back end of each guest. ``wake(guest)`` is called when another guest sent it packets; ``log(event,
    **context)`` writes one line. Raises ConfigError for a file that cannot be read or written."""

    def __init__(
        self, config: BackendConfig, max_pairs: int, log: Callable[..., None], wake: Callable[[str], None]
    ) -> None:
        self._config: Final = config
        self._max_pairs: Final = max_pairs
        self._wake: Final = wake
        self._switch: LearningSwitch | None = LearningSwitch() if config.kind == "switch" else None
        #: guest → its port of the switch
        self._ports: dict[str, SwitchPort] = {}
        self._frames: list[bytes] = []
        self._pace: Pace = at_rate(config.rate)
        if config.kind == "replay":
            self._read(config)
        self._file: BinaryIO | None = None
        self._recording: Recording | None = None
        if config.record:
            try:
                path = Path(config.record)
                if path.is_file() and _first_bytes(path) not in (b"", SECTION_TYPE):
                    raise ConfigError(config.record, "backend.record", "exists and is no pcapng file")
                # a NIC that is started again goes on: a pcapng file may have any number of sections
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                raise ConfigError(config.record, "backend.record", str(error)) from error
            self._recording = Recording(self._file.write, wall, limit=config.record_limit, log=log)

    def _read(self, config: BackendConfig) -> None:
        try:
            with Path(config.pcap).open("rb") as file:
                capture = read_capture(file, MAX_ETHERNET)
            if config.pace == "capture":
                self._pace = as_captured([time for time, _ in capture], config.speed)
        except (OSError, RemoteError) as error:
            raise ConfigError(config.pcap, "backend.pcap", str(error)) from error
        self._frames = [frame for _, frame in capture]

    def plug(self, guest: str) -> Backend:
        """The back end of the NIC that ``guest`` has now; one that it had before is unplugged."""
        backend: Backend
        if self._switch is not None:
            old = self._ports.pop(guest, None)
            if old is not None:
                old.leave()
            backend = self._ports[guest] = self._switch.port(lambda: self._wake(guest), max_pairs=self._max_pairs)
        elif self._frames:
            backend = Replay(self._frames, self._pace, max_pairs=self._max_pairs)
        else:
            backend = Echo(self._max_pairs)
        if self._recording is not None:
            backend = Record(backend, self._recording, guest)
        return backend

    def measure(self, metrics: Metrics) -> None:
        """Export what the switch and the recording count."""
        if self._switch is not None:
            metrics.counters_of("switch", "Learning switch", self._switch.stats)
        if self._recording is not None:
            metrics.counters_of("record", "Recording of packets", self._recording.stats)

    def close(self) -> None:
        """The recording ends."""
        if self._recording is not None:  # packets may still come
            self._recording.end("the service stops")
        if self._file is not None:
            self._file.close()


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(SECTION_TYPE))
