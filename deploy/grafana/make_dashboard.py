"""Makes dashboards/mesh-overview.json: ``python deploy/grafana/make_dashboard.py``. The file is committed; a test
compares it with what this makes. Needs nothing but the standard library.

Panels flow from left to right into rows of 24 grid columns, so that no two of them overlap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).resolve().parent / "dashboards" / "mesh-overview.json"
UID: Final = "ringmesh-mesh-overview"
#: The uid under which provisioning/datasources names Prometheus.
DATASOURCE: Final = {"type": "prometheus", "uid": "ringmesh-prometheus"}
#: Columns of Grafana's grid.
COLUMNS: Final = 24
#: The window of a rate: four scrape intervals at least, more when zoomed out.
WINDOW: Final = "$__rate_interval"
JOB: Final = '{job="ringmesh"}'


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit`` is a Grafana unit id (``s``, ``bytes``, ``pps``, ``cps`` events a second, ``short`` a plain count)."""

    title: str
    text: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    #: value from which a stat turns red (or, with ``low``, below which it does); None: no colours
    alarm: float | None = None
    low: bool = False


def rate(metric: str, by: str) -> str:
    """Sum of the per-second rates of a counter, over everything but ``by``."""
    return f"sum by ({by}) (rate({metric}[{WINDOW}]))"


def quantile(q: float) -> str:
    """Quantile ``q`` of the polling latency of each queue, in seconds."""
    return (
        f"histogram_quantile({q}, sum by (le, service, queue) (rate(ringmesh_poll_latency_seconds_bucket[{WINDOW}])))"
    )


RESTARTS: Final = f"changes(process_start_time_seconds{JOB}[1h])"

PANELS: Final = (
    Panel(
        "Services up", "Targets whose last scrape worked, of four.", "short",
        [Query(f"sum(up{JOB})", "up")], "stat", 6, 4, alarm=4, low=True,
    ),
    Panel(
        "Restarts in the last hour", "Process starts that Prometheus saw after the first one.", "short",
        [Query(f"sum({RESTARTS})", "restarts")], "stat", 6, 4, alarm=1,
    ),
    Panel(
        "Frames and peers refused in the last hour", "Bad input, each of which closed its link.", "short",
        [Query("sum(increase(ringmesh_frames_refused_total[1h])) or vector(0)", "refused")], "stat", 6, 4, alarm=1,
    ),
    Panel(
        "SCMI time-outs in the last hour", "Commands without an answer in time, interrupt-driven and polled.", "short",
        [
            Query(
                "sum(increase(ringmesh_scmi_xfers_response_timeout_total[1h]))"
                " + sum(increase(ringmesh_scmi_xfers_response_polled_timeout_total[1h]))",
                "timed out",
            )
        ],
        "stat", 6, 4, alarm=1,
    ),
    Panel(
        "Queue depth", "Entries in each queue, mean between two scrapes. Buffers that the driver posted ahead count.",
        "short", [Query("sum by (service, queue) (ringmesh_queue_depth)", "{{service}} {{queue}}")], width=24,
    ),
    Panel(
        "Polling latency, p50", "From when work became visible in a queue until it was taken.", "s",
        [Query(quantile(0.5), "{{service}} {{queue}}")],
    ),
    Panel(
        "Polling latency, p99", "From when work became visible in a queue until it was taken.", "s",
        [Query(quantile(0.99), "{{service}} {{queue}}")],
    ),
    Panel(
        "SCMI commands", "Executed by the platform; sent and answered at the agent (names as in Linux's debugfs).",
        "ops",
        [
            Query(rate("ringmesh_scmi_device_commands_total", "service"), "executed"),
            Query(rate("ringmesh_scmi_sent_ok_total", "service"), "sent_ok"),
            Query(rate("ringmesh_scmi_response_ok_total", "service"), "response_ok"),
            Query(rate("ringmesh_scmi_response_polled_ok_total", "service"), "response_polled_ok"),
            Query(rate("ringmesh_scmi_notification_ok_total", "service"), "notification_ok"),
        ],
    ),
    Panel(
        "Network frames", "At the NIC: sent by the guest (tx), given to the guest (rx).", "pps",
        [
            Query(rate("ringmesh_nic_tx_frames_total", "guest"), "{{guest}} tx"),
            Query(rate("ringmesh_nic_rx_frames_total", "guest"), "{{guest}} rx"),
        ],
    ),
    Panel(
        "Interrupts", "MSIs that reached the ITS, LPIs that it sent to vCPUs, MSIs that an LPI on its way covered.",
        "cps",
        [
            Query(rate("ringmesh_its_msis_total", "guest"), "{{guest}} MSIs"),
            Query(rate("ringmesh_its_delivered_total", "guest"), "{{guest}} LPIs"),
            Query(rate("ringmesh_its_coalesced_total", "guest"), "{{guest}} coalesced"),
            Query(rate("ringmesh_its_link_restores_total", "guest"), "{{guest}} ITS restored"),
        ],
    ),
    Panel(
        "Map changes", "Changes of the NIC's memory map by the VMM.", "cps",
        [
            Query(rate("ringmesh_vdpa_map_changes_total", "guest"), "{{guest}} changed"),
            Query(rate("ringmesh_vdpa_map_refused_total", "guest"), "{{guest}} refused"),
            Query(rate("ringmesh_vdpa_map_rolled_back_total", "guest"), "{{guest}} rolled back"),
        ],
    ),
    Panel(
        "Stranded buffers", "Made available, not fetched, and no kick remembered: a device that works leaves none.",
        "short",
        [Query("sum by (guest, queue) (ringmesh_vdpa_stranded_buffers)", "{{guest}} {{queue}}")],
    ),
    Panel(
        "Kicks and interrupts", "Doorbells and interrupts of the NIC's queues, to be read beside its frames.", "cps",
        [
            Query(rate("ringmesh_net_pair_tx_kicks_total", "guest"), "{{guest}} tx kicks"),
            Query(rate("ringmesh_net_pair_rx_kicks_total", "guest"), "{{guest}} rx kicks"),
            Query(rate("ringmesh_net_pair_tx_interrupts_total", "guest"), "{{guest}} tx interrupts"),
            Query(rate("ringmesh_net_pair_rx_interrupts_total", "guest"), "{{guest}} rx interrupts"),
        ],
    ),
    Panel(
        "Frames refused", "Bad input by service, role of the peer and reason.", "cps",
        [Query(rate("ringmesh_frames_refused_total", "service, link, reason"), "{{service}} {{link}} {{reason}}")],
    ),
    Panel(
        "Restarts", "Starts of each service's process within the hour before.", "short",
        [Query(f"sum by (service) ({RESTARTS})", "{{service}}")],
    ),
    Panel(
        "CPU", "Cores that each service's process uses.", "short",
        [Query(rate(f"process_cpu_seconds_total{JOB}", "service"), "{{service}}")],
    ),
    Panel(
        "Memory", "Resident memory of each service's process.", "bytes",
        [Query(f"sum by (service) (process_resident_memory_bytes{JOB})", "{{service}}")],
    ),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    x = y = row = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > COLUMNS:
            x, y, row = 0, y + row, 0
        place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
        x += panel.width
        row = max(row, panel.height)
        panels.append(_panel(number, panel, place))
    return {
        "uid": UID,
        "title": "ringmesh: mesh overview",
        "description": "Queues, polling latency and traffic of the four services.",
        "tags": ["ringmesh"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": []},
        "links": [],
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    stat = panel.kind == "stat"
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.alarm is not None:
        below, above = ("red", "green") if panel.low else ("green", "red")
        steps = [{"color": below, "value": None}, {"color": above, "value": panel.alarm}]
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    elif not stat:
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
    options: dict[str, Any] = (
        {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"], "values": False}}
        if stat
        else {
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    )
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": stat,
            "range": not stat,
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
