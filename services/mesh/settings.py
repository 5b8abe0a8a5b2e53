"""The settings of each service of one mesh, as the environment that it is started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from common.errors import ConfigError
from common.runtime.config import ENV_PREFIX, BaseConfig, load
from services.gic_its.config import ItsConfig
from services.guest_driver.config import MAX_NET_PAIRS, GuestConfig
from services.mesh.ports import LOOPBACK
from services.scmi_platform.board import Board
from services.scmi_platform.config import ScmiConfig
from services.vdpa_nic.config import NicConfig

#: Start order: who listens before who connects.
ROLES: Final = ("its", "scmi", "nic", "guest")
#: Services with links to listen for.
DEVICES: Final = ("scmi", "nic", "its")

_CONFIGS: Final[dict[str, type[BaseConfig]]] = {
    "its": ItsConfig,
    "scmi": ScmiConfig,
    "nic": NicConfig,
    "guest": GuestConfig,
}
_TOKEN: Final = f"{ENV_PREFIX}TOKEN"
_TOKEN_FILE: Final = f"{ENV_PREFIX}TOKEN_FILE"
_BOARD: Final = f"{ENV_PREFIX}BOARD"
_STATE: Final = f"{ENV_PREFIX}STATE"
_NET_PAIRS: Final = f"{ENV_PREFIX}NET_PAIRS"
_QUEUE_PAIRS: Final = f"{ENV_PREFIX}QUEUE_PAIRS"
_BACKEND: Final = f"{ENV_PREFIX}BACKEND__KIND"
_NET: Final = f"{ENV_PREFIX}WORKLOAD__NET"


def inherit(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The RINGMESH_… variables of ``environ`` for a mesh, and the names of those that give way to it.

    Addresses give way: the image sets the admin port of a single service, and a mesh needs one for each.
    """
    found = {name.upper(): value for name, value in environ.items() if name.startswith(ENV_PREFIX)}
    addresses = sorted(name for name in found if name.endswith(("__HOST", "__PORT")) and _known(name))
    return {name: value for name, value in found.items() if name not in addresses}, addresses


def environments(
    *,
    token: str,
    link_ports: dict[str, int],
    admin_ports: dict[str, int],
    guests: int,
    board: Path | None,
    state: Path,
    settings: Mapping[str, str],
    inherited: Mapping[str, str] | None = None,
) -> dict[str, dict[str, str]]:
    """The environment of each role, checked as the service itself will.

    ``settings`` (of the command line) and ``inherited`` (from :func:`inherit`) are RINGMESH_… variables: each goes to
    the services that know it, a setting before an inherited one of the same name. ``state`` is where the firmware keeps
    what was set, unless one of them says otherwise. A NIC has as many queue pairs as the guest wants, unless one of
    them says otherwise; what it is plugged into and what the load expects of it are one choice, whichever is made.
    Raises ConfigError for one that no service knows or whose value is wrong, and for a board file
    that cannot be used.
    """
    given = dict(inherited or {}) | dict(settings)

    def refuse(name: str, reason: str) -> NoReturn:
        if name in settings:
            raise ConfigError("--set", name.removeprefix(ENV_PREFIX), reason)
        raise ConfigError("environment", name, reason)

    for name in given:
        if not _known(name):
            refuse(name, "no service has such a setting")
    if _TOKEN_FILE in given:
        refuse(_TOKEN_FILE, "is for a single service; a mesh takes its token from RINGMESH_TOKEN")
    given.pop(_TOKEN, None)
    if board is None and _BOARD in given:
        board = Path(given.pop(_BOARD))
    elif _BOARD not in settings:
        given.pop(_BOARD, None)  # the option goes before what was inherited
    if board is not None:
        Board.load(str(board))
    peers = {f"RINGMESH_{role.upper()}__PORT": str(port) for role, port in link_ports.items()}
    peers |= {f"RINGMESH_{role.upper()}__HOST": LOOPBACK for role in link_ports}
    to_its = {key: value for key, value in peers.items() if key.startswith("RINGMESH_ITS__")}
    own: dict[str, dict[str, str]] = {
        "its": {},
        "scmi": to_its | ({} if board is None else {"RINGMESH_BOARD": str(board.resolve())}),
        "nic": to_its,
        "guest": peers | {"RINGMESH_GUESTS": str(guests)},
    }
    wanted = given.get(_NET_PAIRS, "")
    if _QUEUE_PAIRS not in given and wanted.isdecimal() and NicConfig().queue_pairs < int(wanted) <= MAX_NET_PAIRS:
        own["nic"] = own["nic"] | {_QUEUE_PAIRS: wanted}
    for name, other in ((_BACKEND, _NET), (_NET, _BACKEND)):
        if name in given and other not in given:
            given[other] = given[name]
    if given.get(_BACKEND) != given.get(_NET):
        refuse(_NET, f"the NIC's BACKEND__KIND is {given[_BACKEND]!r}, and the load expects {given[_NET]!r} of it")
    if given.get(_NET) == "switch" and guests < 2:
        refuse(_NET, "a switch joins two guests or more (--guests)")
    given.setdefault(_STATE, str(state))
    result = {}
    for role in ROLES:
        fixed = own[role] | {"RINGMESH_ADMIN__HOST": LOOPBACK, "RINGMESH_ADMIN__PORT": str(admin_ports[role])}
        if role in link_ports:
            fixed |= {"RINGMESH_LISTEN__HOST": LOOPBACK, "RINGMESH_LISTEN__PORT": str(link_ports[role])}
        for name in sorted(fixed.keys() & given.keys()):
            refuse(name, "is not for a setting: the supervisor chooses it")
        env = {_TOKEN: token, "RINGMESH_LOG__LEVEL": "warning"} | fixed
        env |= {name: value for name, value in given.items() if _knows(_CONFIGS[role], name)}
        load(_CONFIGS[role], None, env)
        result[role] = env
    return result


def faults_on_purpose(env: Mapping[str, str]) -> bool:
    """Is the SCMI platform of this environment told to make faults?"""
    return load(ScmiConfig, None, env).faults.any


def _known(name: str) -> bool:
    """Whether any service has the setting that the variable ``name`` overlays."""
    return any(_knows(config, name) for config in _CONFIGS.values())


def _knows(config: type[BaseConfig], name: str) -> bool:
    """Whether ``config`` has the setting that the variable ``name`` overlays."""
    kind: object = config
    for key in name.removeprefix(ENV_PREFIX).lower().split("__"):
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return False
        kind = next((field.type for field in msgspec.structs.fields(kind) if field.encode_name == key), None)
    return kind is not None
