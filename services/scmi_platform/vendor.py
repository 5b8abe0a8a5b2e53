"""Vendors' protocols: modules of the user that the board names, each handed a registry to register its protocols in.

::

    [platform]
    vendor_protocols = ["my_firmware.ddr", "watchdog.py"]

A name is a module on Python's path; one that ends in ``.py`` is a file beside the board's. The module has a function
``register(registry)`` that calls ``registry.serve(table, server)`` for protocols from 0x80 on. Each platform gets a
registry of its own, so two platforms in one process may serve different ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from common.errors import ConfigError
from common.scmi.status import VENDOR_PROTOCOLS
from services.scmi_platform.board import Board
from services.scmi_platform.protocol import GENERIC, ProtocolServer
from services.scmi_platform.protocols.standard import STANDARD
from services.scmi_platform.registry import ProtocolTable, Registry

#: Protocol and message ids are 8 bits.
_LAST: Final = 0xFF


def registry_for(board: Board, source: str) -> Registry:
    """The standard protocols and those of the modules that ``board``, read from the file ``source``, names.

    Runs the modules. Raises ConfigError with ``source`` and the key for one that cannot be imported, that registers
    nothing, or that registers what is not a vendor's to serve.
    """
    registry = STANDARD.copy()
    for index, name in enumerate(board.platform.vendor_protocols):
        key = f"platform.vendor_protocols[{index}]"
        before = set(registry.protocols)
        try:
            _register(_load(name, source), registry)
        # A module of the user may fail in any way, and even leave the interpreter.
        except (Exception, SystemExit) as error:
            raise ConfigError(source, key, f"{name!r}: {type(error).__name__}: {error}") from error
        added = sorted(set(registry.protocols) - before)
        if not added:
            raise ConfigError(source, key, f"{name!r} registers no protocol")
        for protocol in added:
            wrong = _wrong(*registry.protocols[protocol])
            if wrong:
                raise ConfigError(source, key, f"{name!r}: protocol {protocol:#x} {wrong}")
    return registry


def _load(name: str, source: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = (Path(source).parent / name).resolve()
    # Classes look for their module by its name, so it must be known by one.
    known_as = f"vendor_protocol:{path}"
    if known_as not in sys.modules:
        spec = importlib.util.spec_from_file_location(known_as, path)
        assert spec is not None  # as its name ends in .py
        assert spec.loader is not None
        module = sys.modules[known_as] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known_as]
            raise
    return sys.modules[known_as]


def _register(module: ModuleType, registry: Registry) -> None:
    register = getattr(module, "register", None)
    if not callable(register):
        raise ImportError("the module has no function register(registry)")
    register(registry)


def _wrong(table: ProtocolTable, server: Any) -> str:
    """Why a vendor may not serve this; empty where it may."""
    if not VENDOR_PROTOCOLS <= table.protocol <= _LAST:
        return f"is not a vendor's: those are {VENDOR_PROTOCOLS:#x} to {_LAST:#x}"
    if not table.versions or list(table.versions) != sorted(set(table.versions)):
        return f"has versions {list(table.versions)}: ascending, and at least one, are wanted"
    if not (isinstance(server, type) and issubclass(server, ProtocolServer)):
        return f"is served by {server!r}, which is no ProtocolServer"
    for row in table.commands.values():
        if row.message in GENERIC or not 0 <= row.message <= _LAST:
            return f"binds {row.name} to message {row.message:#x}, which every protocol has or none"
        if not callable(getattr(server, row.method, None)):
            return f"binds {row.name} to {row.method}, which {server.__name__} has not"
    return ""
