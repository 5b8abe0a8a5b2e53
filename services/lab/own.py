"""Scenarios of somebody's own: a Python file outside the project that registers one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final

from common.errors import LocalError
from services.lab.scenario import SCENARIOS, Scenario, find

#: scenario to the module of the file that registered it
_FROM: Final[dict[str, str]] = {}


def scenario_of(name: str) -> Scenario:
    """The scenario ``name``, or the one that the file ``name`` (it ends in ``.py``) registers.

    Raises LocalError where there is none, or where the file cannot be imported or registers none or several.
    """
    if not name.endswith(".py"):
        return find(name)
    path = Path(name).resolve()
    module = f"scenario file {path}"
    if module not in sys.modules:
        _import(path, module)
    mine = [one for one in SCENARIOS.values() if _FROM.get(one.name) == module]
    if len(mine) != 1:
        raise LocalError(f"{name} registers {len(mine)} scenarios, not one")
    return mine[0]


def _import(path: Path, module: str) -> None:
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    before = set(SCENARIOS)
    sys.modules[module] = loaded  # dataclasses look their module up
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        del sys.modules[module]
        for name in set(SCENARIOS) - before:
            del SCENARIOS[name]
        raise LocalError(f"{path}: {type(error).__name__}: {error}") from error
    for name in set(SCENARIOS) - before:
        _FROM[name] = module
