"""docs/vdpa-operations.md is what the tables give, and none of Linux's operations that a NIC needs is missing."""

from __future__ import annotations

import inspect
from pathlib import Path

from common.virtio.vdpa_ops import OPS
from services.vdpa_nic.map_change import TABLE, diagram
from services.vdpa_nic.nic import NicDevice
from services.vdpa_nic.operations_doc import render
from services.vdpa_nic.vdpa import MORE_OPS, VMM_OPS

DOC = Path(__file__).resolve().parents[3] / "docs" / "vdpa-operations.md"

#: Of struct vdpa_config_ops in Linux; reset_vq stands for virtio's own queue reset, which vDPA has no operation for.
LINUX = {
    "set_vq_address", "set_vq_num", "kick_vq", "set_vq_cb", "set_vq_ready", "get_vq_ready", "set_vq_state",
    "get_vq_state", "get_vq_group", "get_device_features", "set_driver_features", "get_driver_features",
    "get_vq_num_max", "get_device_id", "get_status", "set_status", "reset", "suspend", "resume", "get_config_size",
    "get_config", "get_generation", "set_group_asid", "set_map", "dma_map", "dma_unmap", "reset_map",
}  # fmt: skip


def test_the_file_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == render(), "python -m services.vdpa_nic.operations_doc > docs/…"


def test_every_operation_is_carried_out_and_explained() -> None:
    operations = OPS | MORE_OPS
    assert operations.keys() == LINUX | {"reset_vq"}
    assert operations.keys() >= VMM_OPS
    for name in operations:
        assert inspect.getdoc(getattr(NicDevice, f"op_{name}")), name


def test_the_picture_has_every_row_that_does_something() -> None:
    picture = diagram()
    for (state, event), row in TABLE.items():
        line = f"{state.value} --> {row.next.value}: {event.value} / "
        assert (line in picture) == bool(row.actions)
