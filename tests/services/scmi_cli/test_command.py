"""``ringmesh scmi`` against a real platform: what is printed, what is refused, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from services.mesh.ports import free_ports
from tests.services.scmi_cli.conftest import GUARD, ROOT, TOKEN, clean_env, scmi
from tests.services.scmi_platform.scmi_rig import SMALL


@pytest.fixture
def ask(platform: str) -> Any:
    """``ask("get", …)``: a command that must succeed; what it printed, without the newline."""

    def ask(*args: str) -> Any:
        said = scmi(*args, address=platform)
        assert said.code == 0, said
        return json.loads(said.out) if "--json" in args else said.out.rstrip("\n")

    return ask


# --- protocols, describe ----------------------------------------------------------------------------------------------


def test_protocols(ask: Any) -> None:
    lines = ask("protocols").splitlines()
    assert lines[0].split() == ["vendor", "acme"]
    assert lines[1].split() == ["sub_vendor", "toys"]
    assert lines[2].split() == ["implementation_version", "0x01020304"]
    assert "0 platform, 1 OSPM, 2 BOSS" in lines[3]
    assert lines[4].split() == ["this_agent", "1", "OSPM"]
    assert lines[6].split() == ["id", "name", "version", "domains", "attributes"]
    assert [line.split()[:3] for line in lines[7:]] == [
        ["0x10", "base", "2.1"], ["0x14", "clock", "3.0"], ["0x15", "sensor", "3.1"],
    ]  # fmt: skip


def test_protocols_as_json(ask: Any) -> None:
    said = ask("protocols", "--json", "--poll")
    assert said["platform"]["vendor"] == "acme"
    assert said["platform"]["implementation_version"] == 0x01020304
    assert said["platform"]["agents"][2] == {"id": 2, "name": "BOSS"}
    assert [(one["id"], one["name"]) for one in said["protocols"]] == [(16, "base"), (20, "clock"), (21, "sensor")]


def test_describe_clocks(ask: Any) -> None:
    lines = ask("describe", "clock").splitlines()
    assert lines[0].split() == ["id", "name", "enabled", "rate", "rates", "enable_latency", "parents"]
    assert lines[2].split("  ")[0] == "1"
    assert "1 kHz to 2 kHz in steps of 100 Hz" in lines[2] or "1 kHz to 2.05 kHz in steps of 100 Hz" in lines[2]
    pixel = ask("describe", "clock", "pixel", "--json")
    assert pixel["enabled"] is False
    assert pixel["rate"] == 1500
    assert pixel["rates"]["min"] == 1000
    parents = ask("describe", "clock", "2", "--json")
    assert parents["name"] == "a-clock-with-a-rather-long-name"
    assert parents["parents"] == [0, 1]
    cpu = ask("describe", "0x14", "cpu")
    assert "enable_latency  7 µs" in cpu
    assert "1.7 kHz" in cpu, "rates that come in more than one reply"


def test_describe_everything(ask: Any) -> None:
    said = ask("describe", "--json")
    assert list(said) == ["base", "clock", "sensor"]
    assert said["base"][0]["vendor"] == "acme"
    assert len(said["clock"]) > 2
    text = ask("describe")
    assert "vendor" in text
    assert "accelerometer-of-the-lid" in text


def test_describe_sensors(ask: Any) -> None:
    found = {one["name"]: one for one in ask("describe", "sensor", "--json")["sensor"]}
    temp = found["temp"]
    assert temp["type"] == "degrees_c"
    assert temp["unit"]["unit"] == "degrees_c"
    assert temp["trip_points"] >= 1
    assert temp["intervals"]
    lid = found["accelerometer-of-the-lid"]
    assert [axis["name"] for axis in lid["axes"]]
    assert str(lid["id"]) == ask("describe", "sensor", "accelerometer-of-the-lid").splitlines()[0].split()[1]


# --- get, set ---------------------------------------------------------------------------------------------------------


def test_a_rate_is_set_and_read(ask: Any) -> None:
    assert ask("set", "clock", "0", "rate", "400") == "clock 0 cpu: rate 400 Hz"
    assert ask("get", "clock", "cpu", "rate") == "400 Hz"
    assert ask("set", "clock", "cpu", "rate", "1.2kHz", "--poll") == "clock 0 cpu: rate 1.2 kHz"
    assert ask("set", "clock", "cpu", "rate", "1650", "up") == "clock 0 cpu: rate 1.7 kHz"
    assert ask("set", "clock", "cpu", "rate", "1650", "down") == "clock 0 cpu: rate 1.6 kHz"
    assert ask("get", "clock", "0", "rate", "--json") == {"id": 0, "name": "cpu", "rate": 1600}


def test_a_clock_is_turned_on_and_off(ask: Any) -> None:
    assert ask("set", "clock", "pixel", "enabled", "on") == "clock 1 pixel: enabled on"
    assert ask("get", "clock", "1", "enabled") == "on"
    assert ask("set", "clock", "1", "enabled", "off", "--json") == {"id": 1, "name": "pixel", "enabled": False}


def test_everything_of_a_clock(ask: Any) -> None:
    lines = ask("get", "clock", "0").splitlines()
    assert [line.split()[0] for line in lines] == ["rate", "enabled", "rates", "enable_latency", "parents"]
    assert ask("get", "clock", "0", "--json")["id"] == 0


def test_readings(ask: Any) -> None:
    exponent = ask("describe", "sensor", "temp", "--json")["unit"]["exponent"]
    said = ask("get", "sensor", "temp", "reading", "--json")["reading"][0]
    assert said["unit"] == "degrees_c"
    assert said["exponent"] == exponent
    assert ask("get", "sensor", "0", "reading").endswith("°C")
    later = ask("get", "sensor", "0", "reading_async", "--json")
    assert later["reading_async"][0]["value"] == 50000


def test_a_sensors_config(ask: Any) -> None:
    before = ask("get", "sensor", "0", "config", "--json")["config"]
    assert ask("set", "sensor", "0", "enabled", "off", "--json")["enabled"] is False
    assert ask("set", "sensor", "0", "enabled", "on", "--json")["enabled"] is True
    on = ask("get", "sensor", "0", "config", "--json")["config"]
    assert on["enabled"] is True
    assert on["interval"] == before["interval"], "the interval is left alone"
    assert on["timestamps"] == before["timestamps"]
    stamps = ask("set", "sensor", "0", "timestamps", "on")
    assert stamps.endswith(": timestamps on")
    offered = ask("get", "sensor", "0", "intervals", "--json")["intervals"]
    last = offered[-1]
    text = f"{last['mantissa'] * 10.0 ** last['exponent']:f}".rstrip("0").rstrip(".")
    assert ask("set", "sensor", "0", "interval", text, "--json")["interval"] == last
    assert ask("set", "sensor", "0", "interval", text).endswith(f": interval {text} s")
    assert ask("get", "sensor", "0", "config", "--json")["config"]["enabled"] is True


def test_trip_points(ask: Any) -> None:
    assert ask("set", "sensor", "0", "trip", "0", "above", "45000").startswith("sensor 0 temp: trip 0 above ")
    assert ask("set", "sensor", "0", "trip", "0", "below", "-40000", "--json")["trip"] == {
        "trip_point": 0, "direction": "below", "value": -40000,
    }  # fmt: skip
    assert ask("set", "sensor", "temp", "trip", "0", "off") == "sensor 0 temp: trip 0 off"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["get", "clock", "99", "rate"], "CLOCK_ATTRIBUTES: NOT_FOUND (-4)"),
        (["get", "sensor", "99", "reading"], "SENSOR_READING_GET: NOT_FOUND (-4)"),
        (["set", "clock", "2", "enabled", "off"], "CLOCK_CONFIG_SET: DENIED (-3)"),
        (["set", "sensor", "0", "trip", "250", "above", "1"], "SENSOR_TRIP_POINT_CONFIG: INVALID_PARAMETERS (-2)"),
    ],
)
def test_a_status_is_named_and_exits_with_1(platform: str, args: list[str], said: str) -> None:
    result = scmi(*args, address=platform)
    assert (result.code, result.out, result.err) == (1, "", f"ringmesh scmi: {said}\n")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "Usage"),
        (["get"], "PROTOCOL"),
        (["get", "clock"], "ID"),
        (["get", "nope", "1"], "'nope' is not one of base (0x10), power_domain (0x11), system_power"),
        (["get", "clock", "-1"], "-1 is not the number of a clock"),
        (["get", "clock", "-1", "rate", "--poll"], "-1 is not the number of a clock"),
        (["describe", "clock", "-1"], "-1 is not the number of a clock"),
        (["watch", "sensor", "-1"], "-1 is not the number of a sensor"),
        (["set", "clock", "-1", "rate", "1"], "-1 is not the number of a clock"),
        (["get", "clock", "0", "--jsn"], "No such option: --jsn"),
        (["watch", "sensor", "--cuont", "3"], "No such option: --cuont"),
        (["get", "clock", "-1", "--jsn"], "no option --jsn"),
        (["describe", "--jsn", "-1"], "no option --jsn"),
        (["watch", "--jsn", "-1"], "no option --jsn"),
        (["set", "--jsn", "0", "rate", "-1"], "no option --jsn"),
        (["get", "base", "0"], "get base: there is nothing to get"),
        (["get", "clock", "cup", "rate"], "'cup' is not the name of one; there is cpu"),
        (["get", "clock", "0", "rtae"], "no attribute 'rtae'; there is rate, enabled"),
        (["get", "sensor", "0", "trip"], "no attribute 'trip'"),
        (["set", "clock", "0", "rates", "1"], "no attribute 'rates'"),
        (["set", "clock", "0", "rate"], "VALUE"),
        (["set", "clock", "0", "rate", "fast"], "'fast' is not a frequency"),
        (["set", "clock", "0", "rate", "1", "sideways"], "'sideways': down, up, auto or async"),
        (["set", "clock", "0", "enabled", "perhaps"], "'perhaps': on or off"),
        (["set", "clock", "0", "rate", "1000", "up", "down"], "'up down': one of down, up and auto"),
        (["get", "clock", "0", "--guest", "a b"], "guest: 'a b' is not a name"),
        (["set", "clock", "0", "rate", "1", "--jsn"], "No such option: --jsn"),
        (["set", "sensor", "0", "trip", "0", "above", "-1", "--jsn"], "no option --jsn"),
        (["set", "sensor", "0", "trip", "0"], "N above|below|both VALUE"),
        (["set", "sensor", "0", "trip", "x", "above", "1"], "N above|below|both VALUE"),
        (["set", "sensor", "0", "trip", "256", "above", "1"], "N above|below|both VALUE"),
        (["set", "sensor", "0", "trip", "0", "over", "1"], "N above|below|both VALUE"),
        (["set", "sensor", "0", "trip", "0", "above", "1V"], "'1V' is not a reading"),
        (["set", "sensor", "0", "interval", "soon"], "'soon' is not an interval"),
        (["protocols", "--connect", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["protocols", "--board", "/nowhere"], "--board"),
        (["protocols", "--board", str(SMALL)], "--board: is for a private platform"),
        (["protocols", "--timeout", "soon"], "--timeout"),
        (["describe", "clok"], "'clok' is not one of"),
        (["watch", "clok"], "'clok' is not one of"),
    ],
)
def test_usage_errors_exit_with_2(platform: str, args: list[str], named: str) -> None:
    result = scmi(*args, address=platform)
    assert result.code == 2
    assert named in result.err + result.out


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    result = scmi("protocols", address=f"127.0.0.1:{port}")
    assert result.code == 1
    assert f"connect = '127.0.0.1:{port}': no SCMI platform there within 3 s" in result.err
    assert time.monotonic() - began < 30


def test_a_wrong_token(platform: str) -> None:
    result = scmi("protocols", address=platform, token="guessed")
    assert result.code == 1
    assert result.err == f"ringmesh scmi: token: refused by {platform}: wrong token\n"


def test_as_whom(platform: str) -> None:
    said = json.loads(scmi("protocols", "--json", "--guest", "BOSS", address=platform).out)
    assert said["platform"]["this_agent"] == {"id": 2, "name": "BOSS"}


# --- as processes -----------------------------------------------------------------------------------------------------


def command(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "scmi", *args],
        cwd=ROOT, env=clean_env() | variables, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip


def test_a_private_platform() -> None:
    done = command("get", "clock", "cpu", "rate", "--board", str(SMALL))
    assert (done.returncode, done.stdout) == (0, "300 Hz\n")
    assert done.stderr.startswith("no --connect: starting a private platform"), "not on standard output"


def test_a_board_that_contradicts_itself(tmp_path: Any) -> None:
    board = tmp_path / "board.toml"
    board.write_text("[platform]\nvendor = 3\n")
    done = command("protocols", "--board", str(board))
    assert done.returncode == 2
    assert "vendor" in done.stderr


def test_options_come_from_the_environment_and_a_reader_may_leave(platform: str) -> None:
    done = command("get", "clock", "1", "rate", RINGMESH_SCMI=platform, RINGMESH_TOKEN=TOKEN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.5 kHz\n", "")
    with subprocess.Popen(
        [sys.executable, "-m", "services.cli", "scmi", "watch", "sensor", "--connect", platform, "--token", TOKEN],
        cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(GUARD) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_full_disk(platform: str) -> None:
    command = [sys.executable, "-m", "services.cli", "scmi", "describe", "--connect", platform, "--token", TOKEN]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=ROOT, env=clean_env(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "ringmesh scmi: [Errno 28] No space left on device\n")
