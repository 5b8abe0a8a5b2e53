"""The guest's device tree: QEMU's own for the machine, and what a board file adds to it.

``firmware/scmi`` gets a child for each protocol that the board has domains for, but none for the base protocol (with
one, Linux's probe fails). So that Linux's drivers have something to manage there is at least one consumer a protocol:

====================  ==============================================================================================
protocol              consumer
====================  ==============================================================================================
performance           the CPUs, spread in groups over the domains with "cpu" in their name (the first domain where
                      none has): cpufreq
clock, power domain,  the first domain of each on the machine's real-time clock: enabled, powered and taken out of
reset                 reset when Linux finds that device; the others are registered and can be looked at
voltage               a *virtual consumer* for each regulator, whose voltage can be set from user space
sensor                a thermal zone for each temperature; hwmon needs no consumer
powercap, pin         none is needed
control, system power
====================  ==============================================================================================

Trees are made with the ``fdt`` package: the format has been the same since version 17 of it, and no device tree
compiler need be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import fdt

from common.errors import RemoteError
from common.scmi.status import ProtocolId
from services.scmi_platform.board import Board

#: A clock that takes at most so many µs to enable is enabled in atomic context, by polled commands.
ATOMIC_THRESHOLD_US: Final = 1000

#: Linux gives up waiting for a response after so many ms.
MAX_RX_TIMEOUT_MS: Final = 60_000

#: QEMU's virt machine: the device that Linux's bus code enables as soon as it finds it.
CONSUMER: Final = "/pl031@9010000"
#: Our phandles, well above QEMU's.
_PHANDLE: Final = 0x9000
_REGULATOR_PHANDLE: Final = 0xA000

#: Protocol → the section of the board that it is about, and how many cells name one of its domains, by what property.
_SECTIONS: Final[dict[int, tuple[str, str]]] = {
    ProtocolId.POWER_DOMAIN: ("power_domains", "#power-domain-cells"),
    ProtocolId.SYSTEM_POWER: ("system_power", ""),
    ProtocolId.PERFORMANCE: ("performance_domains", "#clock-cells"),
    ProtocolId.CLOCK: ("clocks", "#clock-cells"),
    ProtocolId.SENSOR: ("sensors", "#thermal-sensor-cells"),
    ProtocolId.RESET_DOMAIN: ("reset_domains", "#reset-cells"),
    ProtocolId.VOLTAGE: ("voltage_domains", ""),
    ProtocolId.POWERCAP: ("powercap_domains", ""),
    ProtocolId.PIN_CONTROL: ("pin_control", ""),
}
_CELSIUS: Final = "degrees_c"


def protocols(board: Board) -> list[int]:
    """The protocols that the board has something for, in order of their numbers, without the base protocol."""
    return [number for number, (section, _) in sorted(_SECTIONS.items()) if getattr(board, section, None)]


def build(
    base: bytes,
    board: Board,
    *,
    atomic_threshold_us: int = ATOMIC_THRESHOLD_US,
    max_rx_timeout_ms: int = MAX_RX_TIMEOUT_MS,
) -> bytes:
    """The tree for ``board`` on the machine that ``base`` (a flattened tree from QEMU) describes, flattened.

    Raises RemoteError where ``base`` is none of a virt machine.
    """
    try:
        tree = fdt.parse_dtb(base)
        cpus = sorted(
            (node for node in tree.get_node("/cpus").nodes if node.name.startswith("cpu@")),
            key=lambda node: int(node.name.partition("@")[2], 16),
        )
        consumer = tree.get_node(CONSUMER)
    except Exception as error:  # the package raises bare ones
        raise RemoteError("device tree", None, None, f"no tree of QEMU's virt machine: {error}") from None
    present = protocols(board)
    tree.get_node("/").append(_firmware(board, present, atomic_threshold_us, max_rx_timeout_ms))
    if ProtocolId.PERFORMANCE in present:
        for node, domain in zip(cpus, cpu_domains(board, len(cpus)), strict=True):
            node.set_property("clocks", [_phandle(ProtocolId.PERFORMANCE), domain])
    for protocol, name in (
        (ProtocolId.CLOCK, "clocks"),
        (ProtocolId.POWER_DOMAIN, "power-domains"),
        (ProtocolId.RESET_DOMAIN, "resets"),
    ):
        if protocol in present:
            consumer.set_property(name, [_phandle(protocol), 0])
    for index, domain in enumerate(getattr(board, "voltage_domains", ())):
        tree.get_node("/").append(_voltage_consumer(index, domain.name))
    zones = [_thermal_zone(index) for index, sensor in enumerate(board.sensors) if sensor.type == _CELSIUS]
    if zones:
        tree.get_node("/").append(_node("thermal-zones", {}, zones))
    flat: bytes = tree.to_dtb(version=17)
    return flat


def cpu_domains(board: Board, cpus: int) -> list[int]:
    """The performance domain of each CPU: neighbours share one, every domain gets one while there are enough."""
    names = [domain.name.lower() for domain in board.performance_domains]
    mine = [index for index, name in enumerate(names) if "cpu" in name] or [0]
    return [mine[cpu * len(mine) // cpus] if cpus >= len(mine) else mine[cpu] for cpu in range(cpus)]


def text(flat: bytes) -> str:
    """A flattened tree as source, for people."""
    source: str = fdt.parse_dtb(flat).to_dts()
    return source


def _phandle(protocol: int) -> int:
    return _PHANDLE + protocol


def _node(name: str, properties: dict[str, Any], children: Sequence[Any] = ()) -> Any:
    """A node; a property's value is a string or list of strings, a number or list of cells, or None for none."""
    node = fdt.Node(name)
    for key, value in properties.items():
        node.append(fdt.Property(key)) if value is None else node.set_property(key, value)
    for child in children:
        node.append(child)
    return node


def _firmware(board: Board, present: Sequence[int], atomic_threshold_us: int, max_rx_timeout_ms: int) -> Any:
    children = []
    for protocol in present:
        cells = _SECTIONS[protocol][1]
        properties: dict[str, Any] = {"reg": protocol, "phandle": _phandle(protocol)}
        if cells:
            properties[cells] = 1
        node = _node(f"protocol@{protocol:x}", properties)
        if protocol == ProtocolId.VOLTAGE:
            node.append(_regulators(board))
        children.append(node)
    scmi = {
        "compatible": "arm,scmi-virtio",
        "#address-cells": 1,
        "#size-cells": 0,
        "atomic-threshold-us": atomic_threshold_us,
        "arm,max-rx-timeout-ms": max_rx_timeout_ms,
    }
    return _node("firmware", {}, [_node("scmi", scmi, children)])


def _regulators(board: Board) -> Any:
    regulators = []
    for index, domain in enumerate(board.voltage_domains):
        low, high = _span(domain)
        regulators.append(
            _node(
                f"regulator@{index:x}",
                {
                    "reg": index,
                    "regulator-name": domain.name,
                    "regulator-min-microvolt": low,
                    "regulator-max-microvolt": high,
                    "phandle": _REGULATOR_PHANDLE + index,
                },
            )
        )
    return _node("regulators", {"#address-cells": 1, "#size-cells": 0}, regulators)


def _span(domain: Any) -> tuple[int, int]:
    """Lowest and highest voltage of a domain, µV."""
    levels = domain.levels
    return (levels[0], levels[-1]) if isinstance(levels, list) else (levels.min, levels.max)


def _voltage_consumer(index: int, name: str) -> Any:
    return _node(
        f"consumer-{name}",
        {"compatible": "regulator-virtual-consumer", "default-supply": _REGULATOR_PHANDLE + index},
    )


def _thermal_zone(sensor: int) -> Any:
    """Of sensor number ``sensor``. Nothing cools it: the one trip point, which a zone must have, is out of reach."""
    properties = {
        "polling-delay-passive": 0,
        "polling-delay": 0,
        "thermal-sensors": [_phandle(ProtocolId.SENSOR), sensor],
    }
    trip = {"temperature": 200_000, "hysteresis": 1000, "type": "hot"}
    return _node(f"sensor{sensor}-thermal", properties, [_node("trips", {}, [_node("far", trip)])])
