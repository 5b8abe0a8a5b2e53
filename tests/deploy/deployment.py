"""Helper of these tests: the deployment's files, parsed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

PROJECT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = PROJECT / "deploy"
#: The four services, each with the ports of ``ringmesh serve`` (admin, links) without any setting.
PORTS: Final = {"its": (9104, 7103), "scmi": (9102, 7101), "nic": (9103, 7102), "guest": (9101, 0)}

_VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")


def load_yaml(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def compose() -> dict[str, Any]:
    """The compose file with the defaults of its variables filled in, as compose reads it in an empty environment."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    parsed: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(lambda found: found["default"], text))
    return parsed


def variables() -> dict[str, str]:
    """The variables of the shell that the compose file takes, with their defaults."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    return {found["name"]: found["default"] for found in _VARIABLE.finditer(text)}


def settings(role: str) -> dict[str, str]:
    """The ``RINGMESH_…`` environment of a service."""
    environment: dict[str, str] = compose()["services"][role]["environment"]
    return {key: value for key, value in environment.items() if key.startswith("RINGMESH_")}
