"""The Grafana dashboard: made by its generator, sound, and about metrics that the services do export.

No Grafana server is asked; that the queries have data is checked in test_docker.py, by a real Prometheus.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from itertools import combinations
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.mesh.children import Mesh
from services.mesh.ports import LOOPBACK
from services.mesh.settings import ROLES
from tests.deploy.deployment import DEPLOY, load_yaml

GRAFANA = DEPLOY / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "mesh-overview.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: What Prometheus makes itself for each target.
SYNTHETIC = {"up"}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_dashboard", GRAFANA / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def metric_names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads: what stands before a selector or a range, or alone."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|without)\s*\([^)]*\)", " ", expression)
    words = re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", bare)
    return {word for word in words if word not in ("or", "and", "unless", "on", "ignoring")}


def test_file_is_what_the_generator_makes() -> None:
    made: str = generator().render()
    assert (GRAFANA / "dashboards" / "mesh-overview.json").read_text(encoding="utf-8") == made


def test_metric_names_of_an_expression() -> None:
    expression = 'histogram_quantile(0.5, sum by (le, a) (rate(x_bucket{job="y"}[$__rate_interval]))) or vector(0)'
    assert metric_names(expression) == {"x_bucket"}
    assert metric_names("sum(up) + sum by (service) (ringmesh_queue_depth)") == {"up", "ringmesh_queue_depth"}


def test_ids_are_unique() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)


def test_no_panel_overlaps_another_or_leaves_the_grid() -> None:
    places = {panel["title"]: panel["gridPos"] for panel in PANELS}
    for place in places.values():
        assert place["x"] >= 0
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= 24
    for (one, a), (other, b) in combinations(places.items(), 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one} overlaps {other}"


def test_every_panel_has_a_unit_that_fits_its_metrics() -> None:
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        assert unit in {"s", "bytes", "ops", "pps", "cps", "short"}
        names = set().union(*(metric_names(target["expr"]) for target in panel["targets"]))
        rates = all("rate(" in target["expr"] for target in panel["targets"])
        if all(name.endswith("_seconds_bucket") for name in names):
            assert unit == "s"
        elif all(name.endswith("_bytes") for name in names):
            assert unit == "bytes"
        elif rates and "process_cpu_seconds_total" not in names:
            assert unit in {"ops", "pps", "cps"}
        else:
            assert unit == "short"


def test_data_sources_are_provisioned() -> None:
    (source,) = load_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert wanted == {"type": "prometheus", "uid": "ringmesh-prometheus"}
    for panel in PANELS:
        assert panel["datasource"] == wanted
        assert all(target["datasource"] == wanted for target in panel["targets"])
    assert source["url"] == "http://prometheus:9090"


def test_counters_are_read_as_rates_and_histograms_by_le() -> None:
    for expression in EXPRESSIONS:
        for name in metric_names(expression):
            if name.endswith(("_total", "_bucket")):
                assert re.search(rf"\b(rate|increase)\({name}\b", expression), expression
        if "histogram_quantile" in expression:
            assert re.search(r"sum by \(le,", expression)


@pytest.mark.mesh
async def test_every_metric_is_exported() -> None:
    """Real services under load, one refused peer among them: each metric of the dashboard is in their /metrics."""
    said: list[str] = []
    mesh = Mesh(guests=1, board=None, settings={}, say=said.append)
    try:
        await mesh.start()
        await mesh.post("guest", "/workload/start")
        _, writer = await asyncio.open_connection(LOOPBACK, int(mesh.children["its"].env["RINGMESH_LISTEN__PORT"]))
        writer.write(b"\0\0\0\x01\xc0")
        await writer.drain()
        missing = wanted = set[str]().union(*map(metric_names, EXPRESSIONS)) - SYNTHETIC
        async with asyncio.timeout(20):
            while missing:
                exported: set[str] = set()
                for role in ROLES:
                    text = await mesh.metrics(role)
                    assert text is not None
                    exported |= {
                        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
                    }
                missing = wanted - exported
                await asyncio.sleep(0.1)
        writer.close()
    except TimeoutError:
        pytest.fail(f"not exported: {sorted(missing)}; {said}")
    finally:
        await mesh.stop()


@pytest.mark.mesh
async def test_metrics_are_open_and_actions_want_the_token() -> None:
    """Prometheus has no token: /metrics must not ask for one, while what changes something must."""
    mesh = Mesh(guests=1, board=None, settings={}, say=lambda _text: None)
    try:
        await mesh.start()
        async with aiohttp.ClientSession() as stranger:
            for role in ROLES:
                async with stranger.get(mesh.children[role].admin + "/metrics") as answer:
                    assert answer.status == 200
            async with stranger.post(mesh.children["guest"].admin + "/workload/stop") as answer:
                assert answer.status == 401
    finally:
        await mesh.stop()


def test_generator_is_a_command(tmp_path: Any) -> None:
    script = tmp_path / "grafana" / "make_dashboard.py"
    (script.parent / "dashboards").mkdir(parents=True)
    script.write_bytes((GRAFANA / "make_dashboard.py").read_bytes())
    subprocess.run([sys.executable, str(script)], check=True, cwd="/")
    assert json.loads((script.parent / "dashboards" / "mesh-overview.json").read_text()) == DASHBOARD
