"""Prometheus' configuration and the dashboard's PromQL, as promtool sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.deployment import DEPLOY

PROMTOOL = shutil.which("promtool")

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package prometheus)"),
]


def promtool(*args: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *args], capture_output=True, text=True, check=False)


def test_configuration_is_valid() -> None:
    done = promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    assert done.returncode == 0, done.stderr


def test_promtool_refuses_a_bad_configuration(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(
        (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("scrape_interval", "scrape_intervall")
    )
    assert promtool("check", "config", str(bad)).returncode != 0


def test_queries_of_the_dashboard_parse(tmp_path: Path) -> None:
    """Each expression as a recording rule, with Grafana's variable filled in."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "mesh-overview.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"dashboard:query{number}", "expr": expression.replace("$__rate_interval", "20s")}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout
