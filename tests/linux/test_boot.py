"""Linux 6.12 on our platform: one boot, and what its drivers made of every protocol of the board."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.linux_guest.console import Section
from services.linux_guest.guest import LinuxGuest
from services.scmi_platform.board import Board
from services.scmi_platform.boards.voltage import LevelRange
from tests.linux.conftest import GUARD, Booted

pytestmark = [pytest.mark.linux, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3 * GUARD)]

#: hwmon's classes of sensors and the exponent of their unit (Documentation/hwmon/sysfs-interface in Linux's sources).
HWMON = {
    "degrees_c": ("temp", -3),
    "volts": ("in", -3),
    "amps": ("curr", -3),
    "watts": ("power", -6),
    "joules": ("energy", -6),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(booted: Booted) -> AsyncIterator[LinuxGuest]:
    yield await booted()


@pytest.fixture(scope="module")
def board(guest: LinuxGuest) -> Board:
    return Board.load(guest.boot.board)


def section(guest: LinuxGuest, name: str) -> Section:
    found = guest.console.section(name)
    assert found is not None
    assert found.status == 0, found.text
    return found


async def test_the_banner_has_our_vendor(guest: LinuxGuest, board: Board) -> None:
    banner = guest.console.banner
    assert banner is not None
    assert (banner.major, banner.minor) == (2, 1)
    platform = board.platform
    assert (banner.vendor, banner.sub_vendor) == (platform.vendor, platform.sub_vendor)
    assert banner.implementation == platform.implementation_version


async def test_every_driver_has_its_device(guest: LinuxGuest) -> None:
    bound = {tuple(line.split()[1:]) for line in section(guest, "devices").lines}
    assert bound >= {
        ("protocol@11", "scmi-power-domain"),
        ("protocol@12", "scmi-system-power"),
        ("protocol@13", "scmi-cpufreq"),
        ("protocol@14", "scmi-clocks"),
        ("protocol@15", "scmi-hwmon"),
        ("protocol@16", "scmi-reset"),
        ("protocol@17", "scmi-regulator"),
        ("protocol@18", "scmi-powercap"),
        ("protocol@19", "scmi-pinctrl"),
    }


async def test_every_frequency_is_set_and_read_back(guest: LinuxGuest, board: Board) -> None:
    lines = section(guest, "cpufreq").lines
    wanted = [opp.frequency // 1000 for opp in board.performance_domains[0].opps]
    assert "policy0 scaling_driver: scmi" in lines
    assert "policy0 affected_cpus: 0 1" in lines
    assert f"policy0 scaling_available_frequencies: {' '.join(map(str, wanted))}" in [line.strip() for line in lines]
    assert [line for line in lines if line.startswith("set ")] == [f"set {khz} -> {khz}" for khz in wanted]


async def test_hwmon_values_are_the_boards(guest: LinuxGuest, board: Board) -> None:
    shown = {}
    for line in section(guest, "hwmon").lines:
        where, value = line.rsplit(": ", 1)
        driver, channel, name = where.split(" ", 2)
        assert driver == "scmi_sensors"
        shown[name] = (channel.rstrip("0123456789"), int(value))
    expected = {}
    for sensor in board.sensors:
        kind, exponent = HWMON[sensor.type]
        assert sensor.signal is not None
        expected[sensor.name] = (kind, sensor.signal.base * 10 ** (sensor.exponent - exponent))
    assert shown == expected


async def test_a_thermal_zone_a_temperature(guest: LinuxGuest, board: Board) -> None:
    expected = {
        f"sensor{number}-thermal": sensor.signal.base * 10 ** (sensor.exponent + 3)
        for number, sensor in enumerate(board.sensors)
        if sensor.type == "degrees_c" and sensor.signal is not None
    }
    assert section(guest, "thermal").numbers() == expected


async def test_clocks_have_the_boards_names_and_rates(guest: LinuxGuest, board: Board) -> None:
    rates = {name: value.split()[0] for name, value in section(guest, "clocks").values().items()}
    assert rates.items() >= {clock.name: str(clock.rate) for clock in board.clocks}.items()


async def test_power_domains(guest: LinuxGuest, board: Board) -> None:
    assert section(guest, "power_domains").values().keys() == {domain.name for domain in board.power_domains}


async def test_regulators_are_set_and_read_back(guest: LinuxGuest, board: Board) -> None:
    found = section(guest, "regulators")
    domain = board.voltage_domains[0]
    assert isinstance(domain.levels, LevelRange)
    assert found.values()[domain.name] == f"{domain.level} disabled"
    assert [line for line in found.lines if line.startswith("set ")] == [
        f"set {domain.name} {level} -> {level}" for level in (domain.levels.min, domain.levels.max, domain.level)
    ]


async def test_power_zones(guest: LinuxGuest, board: Board) -> None:
    values = section(guest, "powercap").values()
    for zone, domain in zip(("arm-scmi:0", "arm-scmi:0:0"), board.powercap_domains, strict=True):
        assert domain.signal is not None
        assert values[f"{zone} name"] == domain.name
        assert values[f"{zone} power_uw"] == str(domain.signal.base)
        assert values[f"{zone} constraint_0_power_limit_uw"] == str(domain.cap)
        assert values[f"{zone} constraint_0_max_power_uw"] == str(domain.caps.max)
        assert values[f"{zone} constraint_0_time_window_us"] == str(domain.pai)


async def test_pins_groups_and_functions(guest: LinuxGuest, board: Board) -> None:
    lines = [line.strip() for line in section(guest, "pinctrl").lines]
    pins = board.pin_control
    assert pins is not None
    for number, pin in enumerate(pins.pins):
        assert f"pin {number} ({pin.name})" in lines
    for group in pins.groups:
        assert f"group: {group.name}" in lines
    for number, function in enumerate(pins.functions):
        assert f"function {number}: {function.name}, groups = [ {' '.join(function.groups)} ]" in lines


async def test_the_transport_is_atomic_and_nothing_went_wrong(guest: LinuxGuest) -> None:
    shown = section(guest, "scmi").values()
    assert shown["transport/is_atomic"] == "Y"
    assert shown["transport/type"] == "arm,scmi-virtio"
    counters = section(guest, "scmi").numbers()
    assert counters["transport/counters/response_polled_ok"] > 0
    assert counters["transport/counters/delayed_response_ok"] > 0
    assert counters["atomic_threshold_us"] == guest.boot.atomic_threshold_us
    for name, count in counters.items():
        if any(word in name for word in ("timeout:", "_timeout", "err_", "fail")) and "max_rx" not in name:
            assert count == 0, name
    complaints = ("not a head", "timed out", "warn", "not expected", "invalid")
    assert not [line for line in section(guest, "dmesg").lines if any(word in line.lower() for word in complaints)]


async def test_the_first_clock_is_polled_for_and_the_slow_one_is_not(guest: LinuxGuest) -> None:
    begun = (await guest.run("grep 'scmi_xfer_begin: pt=14 msg_id=07' $TRACE/trace")).lines
    assert begun
    assert all("poll=1" in line for line in begun)
    sensors = (await guest.run("grep 'scmi_xfer_begin: pt=15' $TRACE/trace")).lines
    assert sensors
    assert all("poll=0" in line for line in sensors)


async def test_a_reset_of_the_clocks_consumer_was_asked_for(guest: LinuxGuest) -> None:
    dumped = (await guest.run("grep 'pt=16 t=[A-Z]* msg_id=04' $TRACE/trace")).lines
    assert [line for line in dumped if "t=RESP" in line and "s=0" in line], dumped


async def test_raw_mode_answers_beside_the_drivers(guest: LinuxGuest, board: Board) -> None:
    # base protocol, BASE_DISCOVER_VENDOR, token 0
    answer = bytes.fromhex((await guest.run("scmi_raw 03400000")).text)
    assert answer[4:] == bytes(4) + board.platform.vendor.encode().ljust(16, b"\0")
