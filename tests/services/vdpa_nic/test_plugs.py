"""What the NICs of one service are plugged into: kinds of back end, files that cannot be used, recording."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.pcap import SECTION_TYPE, interface_block, packet_block, read_capture, section_block
from common.runtime.metrics import Metrics
from common.virtio.net_header import TX_PLAIN
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.backends.record import Record
from services.vdpa_nic.backends.replay import Replay
from services.vdpa_nic.backends.switch import SwitchPort
from services.vdpa_nic.config import BackendConfig
from services.vdpa_nic.plugs import Plugs


def frame(to: int, source: int) -> bytes:
    return TX_PLAIN + bytes([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, source]) + b"\x88\xb5" + bytes(46)


class Rig:
    def __init__(self, max_pairs: int = 2, **config: Any) -> None:
        self.logged: list[str] = []
        self.woken: list[str] = []
        self.plugs = Plugs(
            BackendConfig(**config), max_pairs, lambda event, **_context: self.logged.append(event), self.woken.append
        )

    def metrics(self) -> str:
        metrics = Metrics("nic")
        self.plugs.measure(metrics)
        return metrics.render().decode()


def capture(path: Path, times: list[float]) -> Path:
    blocks = [section_block(), interface_block("eth0", 65535)]
    blocks += [packet_block(0, 0, 1, time, frame(1, n)[12:], 65535) for n, time in enumerate(times)]
    path.write_bytes(b"".join(blocks))
    return path


def test_an_echo_of_ones_own() -> None:
    rig = Rig(max_pairs=3)
    backend = rig.plugs.plug("a")
    assert isinstance(backend, Echo)
    assert len(backend.backlog) == 3
    assert rig.plugs.plug("b") is not backend
    assert "ringmesh_switch" not in rig.metrics()
    rig.plugs.close()


def test_the_capture_that_ships_is_played_at_a_rate() -> None:
    rig = Rig(kind="replay", rate=100.0)
    backend = rig.plugs.plug("a")
    assert isinstance(backend, Replay)
    backend.tick(1.0)
    backend.tick(1.0 + 0.055)
    assert sum(map(len, backend.backlog)) == 5


def test_a_capture_in_its_own_time(tmp_path: Path) -> None:
    path = capture(tmp_path / "x.pcapng", [10.0, 10.0, 14.0])
    rig = Rig(kind="replay", pcap=str(path), pace="capture", speed=2.0)
    backend = rig.plugs.plug("a")
    backend.tick(5.0)
    assert sum(map(len, backend.backlog)) == 2
    backend.tick(6.9)
    assert sum(map(len, backend.backlog)) == 2
    backend.tick(7.0)
    assert sum(map(len, backend.backlog)) == 3


@pytest.mark.parametrize("content", [None, b"", b"no capture at all"])
def test_a_capture_that_cannot_be_replayed(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "frames.pcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Rig(kind="replay", pcap=str(path))
    assert (caught.value.key, caught.value.source) == ("backend.pcap", str(path))
    Rig(kind="echo", pcap=str(path))  # nobody reads it


def test_a_capture_of_one_instant_has_no_time_of_its_own(tmp_path: Path) -> None:
    path = capture(tmp_path / "x.pcapng", [10.0, 10.0])
    with pytest.raises(ConfigError) as caught:
        Rig(kind="replay", pcap=str(path), pace="capture")
    assert caught.value.key == "backend.pcap"
    assert "one instant" in str(caught.value)
    Rig(kind="replay", pcap=str(path), pace="rate")


def test_a_switch_joins_the_guests() -> None:
    rig = Rig(kind="switch")
    a, b, c = (rig.plugs.plug(name) for name in "abc")
    assert isinstance(a, SwitchPort)
    a.transmit(0, [frame(9, 1)], 1.0)
    assert rig.woken == ["b", "c"], "flooded"
    b.transmit(0, [frame(1, 2)], 1.0)
    assert rig.woken == ["b", "c", "a"], "learned"
    assert [len(port.backlog[0]) for port in (a, b, c)] == [1, 1, 1]
    assert 'ringmesh_switch_flooded_total{service="nic"} 1.0' in rig.metrics()


def test_a_guest_that_starts_anew_gets_a_port_of_its_own() -> None:
    rig = Rig(kind="switch")
    a, old = rig.plugs.plug("a"), rig.plugs.plug("b")
    old.transmit(0, [frame(1, 2)], 1.0)
    new = rig.plugs.plug("b")
    assert new is not old
    a.transmit(0, [frame(2, 1)], 1.0)
    assert len(new.backlog[0]) == 1
    assert not old.backlog[0]
    old.transmit(0, [frame(1, 2)], 1.0)
    assert len(a.backlog[0]) == 1, "what it still sends goes nowhere"


def test_everything_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    rig = Rig(record=str(path))
    for name in "ab":
        backend = rig.plugs.plug(name)
        assert isinstance(backend, Record)
        backend.transmit(0, [frame(1, 2)], 1.0)
    assert 'ringmesh_record_packets_total{service="nic"} 4.0' in rig.metrics()
    rig.plugs.close()
    rig.plugs.close()
    with path.open("rb") as file:
        assert [data for _, data in read_capture(file, 1514)] == [frame(1, 2)[12:]] * 4


def test_a_recording_ends_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    rig = Rig(record=str(path), record_limit=4096)
    backend = rig.plugs.plug("a")
    for _ in range(100):
        backend.transmit(0, [frame(1, 2)], 1.0)
    assert len(backend.backlog[0]) == 100, "traffic goes on"
    assert path.stat().st_size <= 4096
    assert len(rig.logged) == 1
    rig.plugs.close()


def test_a_recording_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Rig(record=str(tmp_path / "no" / "x.pcapng"))
    assert caught.value.key == "backend.record"


def test_a_switch_is_recorded_port_by_port(tmp_path: Path) -> None:
    rig = Rig(kind="switch", record=str(tmp_path / "x.pcapng"))
    a, b = rig.plugs.plug("a"), rig.plugs.plug("b")
    a.transmit(0, [frame(9, 1)], 1.0)
    assert len(b.backlog[0]) == 1
    rig.plugs.plug("a")
    assert "ringmesh_switch_flooded_total" in rig.metrics()
    assert "ringmesh_record_packets_total" in rig.metrics()
    rig.plugs.close()


def test_a_nic_that_starts_again_goes_on_recording(tmp_path: Path) -> None:
    path = tmp_path / "r.pcapng"
    config = BackendConfig(record=str(path))
    for _ in range(2):
        plugs = Plugs(config, 1, lambda *_a, **_k: None, lambda _guest: None)
        backend = plugs.plug("guest0")
        backend.transmit(0, [bytes(12 + 60)], 1.0)
        plugs.close()
        backend.transmit(0, [bytes(12 + 60)], 1.0)  # too late, and harmless
    assert path.read_bytes().count(SECTION_TYPE) == 2
    assert len(re.findall(b"guest0", path.read_bytes())) == 2


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("\\documentclass")
    with pytest.raises(ConfigError, match="no pcapng file"):
        Plugs(BackendConfig(record=str(path)), 1, lambda *_a, **_k: None, lambda _guest: None)
    assert path.read_text() == "\\documentclass"
