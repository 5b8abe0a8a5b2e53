"""docs/vdpa-operations.md, from the tables: ``python -m services.vdpa_nic.operations_doc > FILE``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable

from common.virtio.features import Feature
from common.virtio.net_config import FIELDS
from common.virtio.net_ctrl import COMMANDS
from common.virtio.vdpa_ops import OPS, Phase
from services.vdpa_nic.map_change import TABLE, diagram
from services.vdpa_nic.nic import FEATURES, NicDevice
from services.vdpa_nic.vdpa import MAP_OPS, MORE_OPS, VMM_OPS

_INTRODUCTION = """\
# The operations of the vDPA NIC

Everything that a driver or a VMM may ask of `ringmesh serve nic`, as its tables have it. This file is made by
`python -m services.vdpa_nic.operations_doc`; a test says when it is out of date.

An operation travels as the frame `call` (docs/wire.md) with the name that Linux gives it in `struct vdpa_config_ops`
(`reset_vq` is virtio's queue reset, which vDPA has no operation for), and is answered by `return` with an errno: EINVAL
for arguments that cannot be, EBUSY out of its phase or turn, EPERM to the wrong caller, EOPNOTSUPP for what is not
negotiated or not known, ECANCELED where a reset came first. **By** says who may call: the *driver* over the guest's
link, the *VMM* over its own. **Phases** are those of virtio 1.3 §3.1.1: reset, features (DRIVER set), setup
(FEATURES_OK), running (DRIVER_OK). Sections are those of virtio 1.3.
"""

_CHANGES = """\
## What needs queues to stand still

Changes of map, suspend, resume, the reset of a queue and disabling one are carried out one after the other, in the
order in which they were asked for, by the table of `services/vdpa_nic/map_change.py`. The names of the actions are
those of mlx5 where it has one.
"""


def render() -> str:
    """The whole file, Markdown."""
    return "\n".join(
        (_INTRODUCTION, _operations(), _CHANGES, _diagram(), _table(), _features(), _configuration(), _commands())
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _head(*cells: str) -> str:
    return _row(cells) + _row("---" for _ in cells)


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`").replace(":meth:`op_", "`")


def _phases(phases: Phase) -> str:
    return "any" if phases == Phase.ANY else ", ".join((phase.name or "").lower() for phase in Phase if phase & phases)


def _operations() -> str:
    lines = [_head("operation", "by", "phases", "what")]
    for name, op in sorted((OPS | MORE_OPS).items()):
        method = getattr(NicDevice, f"op_{name}")
        parameters = list(inspect.signature(method).parameters.values())[1:]
        arguments = ", ".join(p.name if p.default is p.empty else f"[{p.name}]" for p in parameters)
        by = "VMM" if name in MAP_OPS else "both" if name in VMM_OPS else "driver"
        what = _first_sentence(inspect.getdoc(method) or "")
        lines.append(_row([f"`{name}({arguments})`", by, _phases(op.phases), what]))
    return "".join(lines)


def _diagram() -> str:
    return f"```mermaid\n{diagram()}\n```\n"


def _table() -> str:
    lines = [_head("state", "event", "actions", "next")]
    for (state, event), row in TABLE.items():
        actions = ", ".join(f"`{action}`" for action in row.actions) or "–"
        lines.append(_row([state.value, event.value, actions, row.next.value]))
    return "".join(lines)


def _features() -> str:
    lines = ["## Features offered\n\nNET_MQ only with more than one queue pair.\n\n", _head("bit", "feature")]
    lines += [_row([str(feature.value), feature.name]) for feature in Feature if FEATURES & feature.bit]
    return "".join(lines)


def _configuration() -> str:
    lines = ["## Configuration space (§5.1.4)\n\n", _head("offset", "bytes", "field", "with")]
    for field in FIELDS:
        needs = " or ".join(feature.name for feature in Feature if field.features & feature.bit)
        lines.append(_row([str(field.offset), str(field.layout.size), f"`{field.name}`", needs]))
    return "".join(lines)


def _commands() -> str:
    lines = ["## Commands of the control queue (§5.1.6.5)\n\n", _head("class", "command", "name", "needs", "data")]
    for (cls, command), row in COMMANDS.items():
        size = f"{row.size} bytes and more" if row.longer else f"{row.size} bytes"
        lines.append(_row([str(cls), str(command), f"{row.cls.name}.{row.command.name}", row.feature.name, size]))
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render())
