"""The boards that ship: each loads, and each of its agents discovers all that it is served, without an error."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from common.errors import ConfigError, ScmiError
from common.scmi.clock import ATTR_EXTENDED_NAME as LONG_CLOCK_NAME
from common.scmi.clock import ATTR_PARENTS
from common.scmi.pinctrl import Selector
from common.scmi.power import OFF, ON
from common.scmi.sensor import ATTR_EXTENDED_NAME as LONG_SENSOR_NAME
from common.scmi.status import ProtocolId, Status
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import KINDS, protocol_number
from services.scmi_platform.profile import PROFILES
from tests.deploy.deployment import PROJECT
from tests.services.guest_driver.scmi_loop import Loop

BOARDS: Final = sorted((PROJECT / "deploy" / "boards").glob("*.toml"))
NAMES: Final = [path.stem for path in BOARDS]
#: of every board, each of its agents
WALKS: Final = [(path, agent.name) for path in BOARDS for agent in Board.load(path).agents]


def board(name: str) -> Board:
    return Board.load(BOARDS[NAMES.index(name)])


class Guest(Loop):
    """A loop whose guest is the agent ``name``."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        super().__init__(board=path, profile=Board.load(path).platform.profile)

    def new_device(self) -> None:
        self.agents.allot("vm0", self.name)
        super().new_device()


class Walk:
    """Everything that an agent can ask for without changing anything. ``names`` are what it found, by protocol."""

    def __init__(self, agent: ScmiAgent, path: Path) -> None:
        self.agent = agent
        #: sensors that have update intervals, which an agent may ask all for, and be told that there are none
        self.paced = {one.name for one in Board.load(path).sensors if one.update_intervals}
        self.names: dict[int, list[str]] = {}
        self.versions: dict[int, int] = {}

    async def run(self) -> None:
        base = self.agent.base
        assert await base.vendor()
        assert await base.sub_vendor()
        await base.implementation_version()
        for number in range(1 + (await base.attributes()).agents):
            await base.discover_agent(number)
        self.versions[ProtocolId.BASE] = await base.version()
        for protocol in await base.protocols():
            self.names[protocol] = await self.STEPS[protocol](self)

    async def clocks(self) -> list[str]:
        client = self.agent.clock
        self.versions[client.protocol] = await client.version()
        names = []
        for clock in range((await client.attributes()).clocks):
            about = await client.clock_attributes(clock)
            long = about.attributes & LONG_CLOCK_NAME
            names.append(await client.name_get(clock) if long else about.name)
            rates = await client.describe_rates(clock)
            rate = await client.rate_get(clock)
            assert rates.rates[0] <= rate <= rates.rates[1] if rates.triplet else rate in rates.rates
            await client.config_get(clock)
            if about.attributes & ATTR_PARENTS:
                assert await client.parents(clock)
        return names

    async def sensors(self) -> list[str]:
        client = self.agent.sensor
        self.versions[client.protocol] = await client.version()
        names = []
        for one in await client.discover():
            long = one.attributes_low & LONG_SENSOR_NAME
            names.append(await client.name_get(one.id) if long else one.name)
            if names[-1] in self.paced:
                await client.update_intervals(one.id)
            await client.config_get(one.id)
            if one.axes:
                assert len(await client.axes(one.id)) == one.axes
            assert len(await client.reading_get(one.id)) == max(one.axes, 1)
        return names

    async def power_domains(self) -> list[str]:
        client = self.agent.power
        self.versions[client.protocol] = await client.version()
        names = []
        for domain in range((await client.attributes()).domains):
            assert (await client.domain_attributes(domain)).name
            names.append(await client.name_get(domain))
            await client.state_get(domain)
        return names

    async def performance_domains(self) -> list[str]:
        client = self.agent.perf
        self.versions[client.protocol] = await client.version()
        names = []
        for domain in range((await client.attributes()).domains):
            assert (await client.domain_attributes(domain)).name
            names.append(await client.name_get(domain))
            assert await client.describe_levels(domain)
            await client.limits_get(domain)
            await client.level_get(domain)
        return names

    async def reset_domains(self) -> list[str]:
        client = self.agent.reset
        self.versions[client.protocol] = await client.version()
        names = []
        for domain in range(await client.attributes()):
            assert (await client.domain_attributes(domain)).name
            names.append(await client.name_get(domain))
        return names

    async def voltage_domains(self) -> list[str]:
        client = self.agent.voltage
        self.versions[client.protocol] = await client.version()
        names = []
        for domain in range(await client.attributes()):
            assert (await client.domain_attributes(domain)).name
            names.append(await client.name_get(domain))
            levels = await client.describe_levels(domain)
            level = await client.level_get(domain)
            assert levels.levels[0] <= level <= levels.levels[1] if levels.triplet else level in levels.levels
            await client.config_get(domain)
        return names

    async def powercap_domains(self) -> list[str]:
        client = self.agent.powercap
        self.versions[client.protocol] = await client.version()
        names = []
        for domain in range(await client.attributes()):
            assert (await client.domain_attributes(domain)).name
            names.append(await client.name_get(domain))
            await client.cap_get(domain)
            await client.pai_get(domain)
        return names

    async def pins(self) -> list[str]:
        client = self.agent.pinctrl
        self.versions[client.protocol] = await client.version()
        found = await client.attributes()
        names = []
        for selector, count in ((Selector.PIN, found.pins), (Selector.GROUP, found.groups)):
            for number in range(count):
                assert (await client.pin_attributes(number, selector)).name
                names.append(await client.name_get(number, selector))
                await client.settings_get(number, selector)
        for number in range(found.functions):
            assert (await client.pin_attributes(number, Selector.FUNCTION)).members
            names.append(await client.name_get(number, Selector.FUNCTION))
            await client.associations(number, Selector.FUNCTION)
        return names

    async def system(self) -> list[str]:
        client = self.agent.system
        self.versions[client.protocol] = await client.version()
        await client.state_get()
        await client.set_attributes()
        return []

    STEPS: Final[dict[int, Callable[[Walk], Awaitable[list[str]]]]] = {
        ProtocolId.POWER_DOMAIN: power_domains,
        ProtocolId.SYSTEM_POWER: system,
        ProtocolId.PERFORMANCE: performance_domains,
        ProtocolId.CLOCK: clocks,
        ProtocolId.SENSOR: sensors,
        ProtocolId.RESET_DOMAIN: reset_domains,
        ProtocolId.VOLTAGE: voltage_domains,
        ProtocolId.POWERCAP: powercap_domains,
        ProtocolId.PIN_CONTROL: pins,
    }


def expected(path: Path, name: str) -> dict[int, list[str]]:
    """The names of what the agent ``name`` must find, by protocol; none listed: the protocol is not there."""
    whole = Board.load(path)
    agent = next(one for one in whole.agents if one.name == name)
    found: dict[int, list[str]] = {}
    for protocol, kind in KINDS.items():
        seen = agent.sees.of(protocol)
        names = [one.name for one in getattr(whole, kind)] if seen is None else seen
        if names:
            found[protocol] = names
    if whole.system_power is not None:
        found[ProtocolId.SYSTEM_POWER] = []
    control = whole.pin_control
    if control is not None:
        found[ProtocolId.PIN_CONTROL] = [
            *(one.name for one in control.pins),
            *(one.name for one in control.groups),
            *(one.name for one in control.functions),
        ]
    served = set(found) if agent.protocols is None else {protocol_number(one) for one in agent.protocols}
    known = PROFILES[whole.platform.profile].newest
    return {protocol: names for protocol, names in found.items() if protocol in served and protocol in known}


@pytest.mark.parametrize(("path", "name"), WALKS, ids=[f"{path.stem}-{name}" for path, name in WALKS])
async def test_an_agent_discovers_all_that_it_is_served(path: Path, name: str) -> None:
    guest = Guest(path, name)
    await guest.start()
    walk = Walk(guest.agent, path)
    await guest.run(walk.run())
    assert walk.names == expected(path, name)
    newest = PROFILES[Board.load(path).platform.profile].newest
    assert walk.versions == {protocol: newest[protocol] for protocol in walk.versions}
    stats = guest.agents.platform.stats
    assert {one.name: count for one in Status if one and (count := getattr(stats, one.name.lower()))} == {}
    await guest.close()


def test_shipped() -> None:
    assert {"juno-r2", "imx95-evk", "stm32mp135f-dk", "virt"} <= set(NAMES)


@pytest.mark.parametrize("path", BOARDS, ids=NAMES)
def test_a_key_that_is_misspelt_is_refused(path: Path) -> None:
    """Wherever a key stands at the beginning of a line."""
    text = path.read_text(encoding="utf-8")
    for key in sorted(set(re.findall(r"^(\w+) = ", text, re.MULTILINE))):
        wrong = re.sub(rf"^{key} = ", f"{key}z = ", text, count=1, flags=re.MULTILINE)
        with pytest.raises(ConfigError, match=key):
            Board.parse(wrong, path.name)
    with pytest.raises(ConfigError, match="unknown field `clockz`"):
        Board.parse(text + "[[clockz]]\n", path.name)


# --- ids that Linux's bindings name -----------------------------------------------------------------------------------


def test_juno_r2() -> None:
    """juno-scmi.dtsi, and what the firmware lets PSCI do."""
    juno = board("juno-r2")
    assert [one.name for one in juno.power_domains][8:10] == ["DBGSYS", "GPUTOP"]
    assert [juno.clocks[number].name for number in (0, 1, 2, 3, 5)] == [
        "BIG_CLK", "LITTLE_CLK", "GPU_CLK", "HDLCD_0", "I2SCLK",
    ]  # fmt: skip
    assert [one.name for one in juno.performance_domains] == ["BIG_CPU", "LITTLE_CPU", "GPU"]
    assert juno.system_power is not None
    assert (juno.system_power.agents, juno.system_power.shutdown_timeout_ms) == (["PSCI"], 1000)
    assert juno.agents[1].protocols == ["power_domain", "system_power"]


def test_imx95_evk() -> None:
    """imx95-clock.h and imx95-power.h."""
    imx = board("imx95-evk")
    clocks = {
        1: "osc32k", 2: "osc24m", 6: "syspll1_pfd0", 15: "audiopll1", 20: "reserved20", 40: "ext2", 41: "adc",
        41 + 11: "lpuart1", 41 + 43: "gpu", 41 + 79: "can2", 41 + 117: "usdhc1", 41 + 122: "xspislvroot",
        41 + 123: "ext_gpr_sel", 41 + 123 + 10: "gpu_cgc",
    }  # fmt: skip
    assert {number: imx.clocks[number].name for number in clocks} == clocks
    assert len(imx.clocks) == 41 + 123 + 11
    domains = {0: "ana", 3: "camera", 11: "a55p", 13: "display", 14: "gpu", 15: "hsio_top", 20: "npu", 22: "wakeup"}
    assert {number: imx.power_domains[number].name for number in domains} == domains
    assert [one.name for one in imx.performance_domains] == [
        "ele", "m33", "wakeup", "m7", "dram", "hsio", "npu", "noc", "a55", "gpu", "vpu", "cam", "disp",
    ]  # fmt: skip
    assert all(one.level_indexing for one in imx.performance_domains)
    assert [one.name for one in imx.sensors][:2] == ["temp_ana", "temp_a55"]
    assert imx.pin_control is not None
    assert imx.pin_control.pins[116].name == "uart1rxd"
    gpu = next(one for one in imx.clocks if one.name == "gpu")
    assert (gpu.parent, gpu.parents) == ("syspll1_pfd0", ["osc24m", *gpu.parents[1:]])


async def test_linux_is_the_non_secure_agent_of_the_imx95() -> None:
    """A guest that asks for no agent is Linux; it may not touch what is the platform's, nor see less than all."""
    guest = Guest(BOARDS[NAMES.index("imx95-evk")], "")
    await guest.start()

    async def work() -> None:
        assert await guest.agent.base.discover_agent() == (3, "AP-NS")
        with pytest.raises(ScmiError, match="DENIED"):
            await guest.agent.clock.rate_set(6, 24_000_000)
        with pytest.raises(ScmiError, match="NOT_SUPPORTED"):
            await guest.agent.power.state_set(22, OFF)
        await guest.agent.power.state_set(14, ON)
        # by index: the clock of the GPU follows
        await guest.agent.perf.level_set(9, 2)
        assert await guest.agent.clock.rate_get(84) == 500_000_000
        with pytest.raises(ScmiError, match="DENIED"):
            await guest.agent.perf.level_set(7, 2)

    await guest.run(work())
    await guest.close()


def test_stm32mp135f_dk() -> None:
    """stm32mp13-clks.h, stm32mp13-resets.h, st,stm32mp13-regulator.h."""
    stm = board("stm32mp135f-dk")
    clocks = {0: "ck_hse", 5: "clk-hse-div2", 8: "pll3_p", 14: "ck_mpu", 17: "ck_per", 24: "timg1_ck", 29: "bsec"}
    assert {number: stm.clocks[number].name for number in clocks} == clocks
    assert len(stm.clocks) == 30
    assert [one.name for one in stm.reset_domains] == ["ltdc", "mdma"]
    regulators = {0: "reg11", 3: "sdmmc1", 5: "vrefbuf", 6: "buck1", 10: "ldo1", 16: "vref_ddr", 19: "pwr_sw2"}
    assert {number: stm.voltage_domains[number].name for number in regulators} == regulators
    assert len(stm.voltage_domains) == 20
    (cpu,) = stm.performance_domains
    assert [opp.frequency for opp in cpu.opps] == stm.clocks[14].rates
