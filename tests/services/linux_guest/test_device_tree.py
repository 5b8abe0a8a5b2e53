"""The device tree of a board: what is in it is what the board has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import fdt
import pytest

from common.errors import RemoteError
from common.scmi.status import ProtocolId
from services.linux_guest.device_tree import CONSUMER, build, cpu_domains, protocols, text
from services.linux_guest.files import BOARD, PROJECT
from services.scmi_platform.board import Board
from tests.services.linux_guest.fake_qemu import machine

JUNO = PROJECT / "deploy" / "boards" / "juno-r2.toml"

LEAST = """
[platform]
vendor = "v"
[[agents]]
name = "a"
"""


def tree(board: Board | str, **options: Any) -> Any:
    made = Board.parse(board) if isinstance(board, str) else board
    return fdt.parse_dtb(build(machine(), made, **options))


def value(node: Any, name: str) -> Any:
    found = node.get_property(name)
    assert found is not None, name
    values = list(found)
    return values[0] if len(values) == 1 else values


def children(node: Any) -> list[str]:
    return [child.name for child in node.nodes]


def test_a_child_for_each_protocol_and_none_for_base() -> None:
    board = Board.load(BOARD)
    assert protocols(board) == [*range(0x11, 0x1A)]
    scmi = tree(board).get_node("/firmware/scmi")
    assert value(scmi, "compatible") == "arm,scmi-virtio"
    assert value(scmi, "atomic-threshold-us") == 1000
    assert value(scmi, "arm,max-rx-timeout-ms") == 60_000
    assert children(scmi) == [f"protocol@{number:x}" for number in range(0x11, 0x1A)]
    for child in scmi.nodes:
        assert value(child, "reg") == int(child.name.partition("@")[2], 16)
    cells = {child.name[-2:]: [prop.name for prop in child.props if prop.name.startswith("#")] for child in scmi.nodes}
    assert cells["11"] == ["#power-domain-cells"]
    assert cells["13"] == cells["14"] == ["#clock-cells"]
    assert cells["15"] == ["#thermal-sensor-cells"]
    assert cells["16"] == ["#reset-cells"]


def test_a_board_without_anything_has_no_consumers() -> None:
    made = tree(LEAST)
    assert children(made.get_node("/firmware/scmi")) == []
    assert made.get_node(CONSUMER).props == []
    assert children(made.get_node("/")) == ["cpus", CONSUMER.strip("/"), "firmware"]


def test_settings() -> None:
    scmi = tree(LEAST, atomic_threshold_us=5, max_rx_timeout_ms=7).get_node("/firmware/scmi")
    assert (value(scmi, "atomic-threshold-us"), value(scmi, "arm,max-rx-timeout-ms")) == (5, 7)


def test_consumers_name_the_providers() -> None:
    made = tree(Board.load(BOARD))
    scmi = made.get_node("/firmware/scmi")
    phandle = {value(child, "reg"): value(child, "phandle") for child in scmi.nodes}
    consumer = made.get_node(CONSUMER)
    assert value(consumer, "clocks") == [phandle[ProtocolId.CLOCK], 0]
    assert value(consumer, "power-domains") == [phandle[ProtocolId.POWER_DOMAIN], 0]
    assert value(consumer, "resets") == [phandle[ProtocolId.RESET_DOMAIN], 0]
    for cpu in made.get_node("/cpus").nodes:
        assert value(cpu, "clocks") == [phandle[ProtocolId.PERFORMANCE], 0]
    assert children(made.get_node("/thermal-zones")) == ["sensor0-thermal", "sensor1-thermal"]
    zone = made.get_node("/thermal-zones/sensor1-thermal")
    assert value(zone, "thermal-sensors") == [phandle[ProtocolId.SENSOR], 1]
    assert value(zone.get_subnode("trips").nodes[0], "type") == "hot"


def test_regulators_and_their_consumers() -> None:
    made = tree(Board.load(BOARD))
    first, second = made.get_node("/firmware/scmi/protocol@17/regulators").nodes
    assert (value(first, "regulator-name"), value(first, "reg")) == ("vdd0", 0)
    assert (value(first, "regulator-min-microvolt"), value(first, "regulator-max-microvolt")) == (800_000, 1_100_000)
    assert (value(second, "regulator-min-microvolt"), value(second, "reg")) == (1_800_000, 1)  # levels as a list
    consumer = made.get_node("/consumer-vio")
    assert value(consumer, "compatible") == "regulator-virtual-consumer"
    assert value(consumer, "default-supply") == value(second, "phandle") != value(first, "phandle")


def test_processors_are_spread_over_the_cpu_domains() -> None:
    juno = Board.load(JUNO)
    assert [domain.name for domain in juno.performance_domains] == ["BIG_CPU", "LITTLE_CPU", "GPU"]
    assert cpu_domains(juno, 1) == [0]
    assert cpu_domains(juno, 2) == [0, 1]
    assert cpu_domains(juno, 4) == [0, 0, 1, 1]
    assert cpu_domains(juno, 6) == [0, 0, 0, 1, 1, 1]
    assert cpu_domains(Board.load(BOARD), 3) == [0, 0, 0]


@pytest.mark.parametrize("base", [b"", b"garbage" * 40, b"\xd0\r\xfe\xed" + bytes(60), machine()[:100]])
def test_what_is_no_tree_is_refused(base: bytes) -> None:
    with pytest.raises(RemoteError, match="virt machine"):
        build(base, Board.parse(LEAST))


def test_a_tree_of_another_machine_is_refused() -> None:
    empty = fdt.FDT()
    empty.header.version = 17
    with pytest.raises(RemoteError, match="virt machine"):
        build(empty.to_dtb(version=17, last_comp_version=16), Board.parse(LEAST))


def test_as_source() -> None:
    source = text(build(machine(), Board.load(BOARD)))
    assert 'compatible = "arm,scmi-virtio"' in source
    assert source.startswith("/dts-v1/;")


@pytest.mark.skipif(shutil.which("dtc") is None, reason="there is no device tree compiler")
@pytest.mark.parametrize("board", [BOARD, JUNO])
def test_the_device_tree_compiler_reads_it(board: Path, tmp_path: Path) -> None:
    flat = tmp_path / "guest.dtb"
    flat.write_bytes(build(machine(), Board.load(board)))
    done = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", str(flat)], capture_output=True, text=True, check=True)
    assert "arm,scmi-virtio" in done.stdout
