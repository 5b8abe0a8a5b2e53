"""The report of ``ringmesh run`` as the design documents it: exactly these keys, nothing more."""

from __future__ import annotations

from typing import Any

ROLES = ("guest", "scmi", "nic", "its")


def _exactly(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _counts(names: str) -> dict[str, Any]:
    return {name: {"type": "integer", "minimum": 0} for name in names.split()}


_SECONDS = {"type": "number", "minimum": 0}
_MICROSECONDS = _exactly(dict.fromkeys(("p50", "p90", "p99", "max"), _SECONDS))
_SERVICE = _exactly({"cpu_seconds": _SECONDS} | _counts("rss_bytes restarts"))

REPORT = _exactly(
    {
        "version": {"const": 1},
        "seconds": _SECONDS,
        "scmi": _exactly(
            _counts(
                "sent completed polled notifications timed_out re_executed refused_after_reset"
                " lost duplicated corrupted"
            )
            | {"rtt_us": _MICROSECONDS}
        ),
        "net": _exactly(
            _counts("tx rx re_executed reset_dropped lost duplicated corrupted map_changes") | {"rtt_us": _MICROSECONDS}
        ),
        "irq": _exactly(
            _counts("raised delivered coalesced lost duplicated corrupted") | {"latency_us": _MICROSECONDS}
        ),
        "its": _exactly(_counts("commands")),
        "services": _exactly(dict.fromkeys(ROLES, _SERVICE)),
    }
)
