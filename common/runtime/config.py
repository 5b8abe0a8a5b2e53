"""Settings: a TOML file, an overlay from the environment, checked against the structs of each service.

A service's config is a struct derived from :class:`BaseConfig`, with sections that are structs too. The variable
``RINGMESH_LISTEN__PORT`` overlays ``listen.port``, ``RINGMESH_TOKEN`` the top-level ``token``. Unknown keys and wrong
types are refused with a :class:`common.errors.ConfigError` that names where they stand.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from common.choices import with_choices
from common.errors import ConfigError
from common.runtime.capture import BUFFER_LIMIT, MAX_RECORDERS

ENV_PREFIX: Final = "RINGMESH_"

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Root of all sections: unknown keys are refused. (``kw_only`` is not inherited: each struct says it again.)"""


class ListenConfig(Section, kw_only=True):
    """Where links are listened for. Port 0 lets the kernel choose."""

    host: str = "127.0.0.1"
    port: Port = 0


class AdminConfig(Section, kw_only=True):
    """Where /metrics, /healthz and /readyz are served."""

    host: str = "127.0.0.1"
    port: Port = 0


class PeerConfig(Section, kw_only=True):
    """A service to connect to."""

    host: str = "127.0.0.1"
    port: Port


class LogConfig(Section, kw_only=True):
    """``auto``: readable in a terminal, JSON lines elsewhere."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class CaptureConfig(Section, kw_only=True):
    """Bounds of captures: bytes that wait for one recorder, recorders at a time."""

    buffer_bytes: Annotated[int, msgspec.Meta(ge=1)] = BUFFER_LIMIT
    recorders: Annotated[int, msgspec.Meta(ge=0)] = MAX_RECORDERS


class BaseConfig(Section, kw_only=True):
    """What every service has. ``token`` is the shared secret of links and admin endpoint; ``token_file`` names a file
    that holds it (a mounted secret). Empty: no authentication, for loopback only."""

    token: str = ""
    token_file: str = ""
    drain_seconds: Seconds = 5.0
    listen: ListenConfig = msgspec.field(default_factory=ListenConfig)
    admin: AdminConfig = msgspec.field(default_factory=AdminConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    capture: CaptureConfig = msgspec.field(default_factory=CaptureConfig)

    def __repr__(self) -> str:
        """As any struct, but a token is never printed."""
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={'***' if name == 'token' and value else repr(value)}" for name, value in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


C = TypeVar("C", bound=BaseConfig)


def variables(pairs: list[str] | None) -> dict[str, str]:
    """The variables of ``--set NAME=VALUE``, given any number of times. Raises ConfigError for what is not such."""
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError("--set", pair, "NAME=VALUE is wanted")
        found[ENV_PREFIX + name.upper().removeprefix(ENV_PREFIX)] = value
    return found


_AT: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MISSING: Final = re.compile(r"missing required field `(?P<name>[^`]*)`")


def load(cls: type[C], path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> C:
    """The config of type ``cls`` from the TOML file ``path`` (None: defaults only), overlaid from ``environ``
    (None: this process's).

    Raises ConfigError naming the file or variable, the dotted key and the reason.
    """
    source = "defaults"
    values: dict[str, Any] = {}
    if path is not None:
        source = os.fspath(path)
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(source, "", str(error)) from error
    origins: dict[str, str] = {}
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            _overlay(cls, values, name, text, origins)
    _complete(cls, values)
    try:
        config = msgspec.convert(values, cls)
    except msgspec.ValidationError as error:
        key, reason = explain(str(error))
        raise ConfigError(_origin(key, origins, source), key, with_choices(reason, cls, key)) from None
    _read_token(config, _origin("token_file", origins, source))
    return config


def _complete(cls: type[Section], values: dict[str, Any]) -> None:
    """A section of which some settings were given keeps the service's own defaults for the others."""
    for field in msgspec.structs.fields(cls):
        given = values.get(field.encode_name)
        if not isinstance(given, dict) or field.default_factory is msgspec.NODEFAULT:
            continue
        default = field.default_factory()
        if isinstance(default, msgspec.Struct):
            values[field.encode_name] = msgspec.to_builtins(default) | given


def _overlay(cls: type[Section], values: dict[str, Any], name: str, text: str, origins: dict[str, str]) -> None:
    """Put the variable ``name`` into ``values`` at its dotted key, parsed to the field's type."""
    keys = name.removeprefix(ENV_PREFIX).lower().split("__")
    dotted = ".".join(keys)
    section: type[msgspec.Struct] = cls
    at = values
    for position, key in enumerate(keys):
        field = next((f for f in msgspec.structs.fields(section) if f.encode_name == key), None)
        if field is None:
            raise ConfigError(name, dotted, f"there is no setting {'.'.join(keys[: position + 1])!r}")
        nested = isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        if position == len(keys) - 1:
            if nested:
                raise ConfigError(name, dotted, "is a section, not a setting")
            at[key] = _parse(field.type, text, name, dotted)
            origins[dotted] = name
            return
        if not nested:
            raise ConfigError(name, dotted, f"{'.'.join(keys[: position + 1])!r} is a setting, not a section")
        section = field.type
        at = at.setdefault(key, {})
        if not isinstance(at, dict):  # the file has a plain value where a section belongs
            return


def _parse(kind: Any, text: str, name: str, dotted: str) -> Any:
    """``text`` as a value of type ``kind``: as it stands, or in TOML's syntax for lists and tables."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        try:
            value = tomllib.loads(f"value = {text}")["value"]
            msgspec.convert(value, kind)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError):
            raise ConfigError(name, dotted, with_choices(explain(str(error))[1], kind, "")) from None
        return value


def explain(message: str) -> tuple[str, str]:
    """Dotted key and reason of a msgspec message; the key is empty where the whole is meant.

    ``Expected `int`, got `str` - at `$.listen.port``` is ``listen.port`` and *expected `int`, got `str`*.
    """
    found = _AT.search(message)
    key = found["path"] if found else ""
    reason = message[: found.start()] if found else message
    for pattern, said in ((_UNKNOWN, "there is no such setting"), (_MISSING, "is required")):
        missing = pattern.search(reason)
        if missing:
            return ".".join(filter(None, (key, missing["name"]))), said
    return key, reason if reason[:2].isupper() else reason[:1].lower() + reason[1:]


def _origin(key: str, origins: Mapping[str, str], source: str) -> str:
    """The variable that set ``key``, or the file."""
    return origins.get(key, source)


def _read_token(config: BaseConfig, source: str) -> None:
    if not config.token_file:
        return
    if config.token:
        raise ConfigError(source, "token_file", "token and token_file are both set")
    try:
        config.token = Path(config.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(source, "token_file", str(error)) from error
    if not config.token:
        raise ConfigError(source, "token_file", f"{config.token_file} is empty")
