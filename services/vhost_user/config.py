"""Settings of the SCMI platform behind vhost-user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from common.errors import ConfigError
from services.scmi_platform.config import ScmiConfig

#: What `--listen` begins with.
SCHEME: Final = "vhost-user:"
#: Longest path of a unix socket, bytes (sun_path less its final zero).
MAX_PATH: Final = 107


class VhostUserConfig(ScmiConfig, kw_only=True):
    """As :class:`ScmiConfig`, whose files it reads; neither links nor ITS are used. ``sockets`` are texts of the form
    ``PATH[,agent=NAME]``, as after ``--listen vhost-user:``."""

    sockets: tuple[str, ...] = msgspec.field(default_factory=tuple)


@dataclass(slots=True, frozen=True)
class SocketPlan:
    """Where to listen for one front end, and the SCMI agent that its guest is."""

    path: Path
    agent: str


def parse(text: str) -> SocketPlan:
    """``[vhost-user:]PATH[,agent=NAME]``; the agent is called as the file, less its suffix, where no name is given.

    Raises ConfigError.
    """
    path, comma, option = text.removeprefix(SCHEME).partition(",")
    if not path or len(path.encode()) > MAX_PATH:
        raise ConfigError("--listen", text[:64], f"a path of 1 to {MAX_PATH} bytes is wanted after {SCHEME}")
    name, equals, agent = option.partition("=")
    if comma and (name != "agent" or not equals or not agent or "," in agent):
        raise ConfigError("--listen", text[:64], f"{SCHEME}PATH[,agent=NAME] is wanted")
    return SocketPlan(Path(path), agent or Path(path).stem)


def plans(texts: tuple[str, ...]) -> list[SocketPlan]:
    """:func:`parse` of each. Raises ConfigError where there is none, or two have one path or one agent."""
    found = [parse(text) for text in texts]
    if not found:
        raise ConfigError("--listen", "", f"{SCHEME}PATH is wanted")
    for what, values in (("path", [str(plan.path) for plan in found]), ("agent", [plan.agent for plan in found])):
        for value in values:
            if values.count(value) > 1:
                raise ConfigError("--listen", value, f"the same {what} twice")
    return found
