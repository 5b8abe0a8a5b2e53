"""``ringmesh scmi`` against ``ringmesh serve scmi --profile scmi-2.0``: what an older platform cannot say is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.services.scmi_cli.conftest import scmi, serving
from tests.services.scmi_platform.scmi_rig import SMALL


@pytest.fixture(scope="module")
def old() -> Iterator[str]:
    with serving(SMALL, "--profile", "scmi-2.0") as address:
        yield address


def test_protocols(old: str) -> None:
    said = scmi("protocols", "--json", address=old)
    assert (said.code, said.err) == (0, "")
    found = {one["name"]: one["version"] for one in json.loads(said.out)["protocols"]}
    assert found == {"base": 0x20000, "clock": 0x10000, "sensor": 0x10000}


def test_a_clock_is_described_and_set(old: str) -> None:
    said = scmi("describe", "clock", "cpu", "--json", address=old)
    assert said.code == 0, said.err
    about = json.loads(said.out)
    assert (about["enabled"], about["rate"], about["enable_latency"], about["parents"]) == (True, 300, 0, None)
    for word in ("off", "on"):
        assert scmi("set", "clock", "cpu", "enabled", word, address=old).code == 0
        assert scmi("get", "clock", "cpu", "enabled", address=old).out.strip().endswith(word)


def test_sensors_are_described_and_read(old: str) -> None:
    for name in ("temp", "accelerometer-o", "plain"):
        said = scmi("describe", "sensor", name, "--json", address=old)
        assert said.code == 0, said.err
        about = json.loads(said.out)
        assert about["name"] == name
        assert about["range"] is None
        assert about["config"]["error"] == "NOT_SUPPORTED"
    assert "50" in scmi("get", "sensor", "temp", "reading", address=old).out
    said = scmi("get", "sensor", "9", "reading", address=old)
    assert (said.code, "SENSOR_READING_GET: NOT_FOUND" in said.err) == (1, True)
