"""Plays the recorded ITS cases (one JSON file a case) against anything that has the methods of :class:`Adapter`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

#: Where the recorded cases lie, beside the repository.
CASES: Final = Path(__file__).resolve().parents[3].parent / "shared" / "its-cases"


class Adapter(Protocol):
    """A machine with an ITS: guest memory, MMIO by frame, devices that send MSIs, vCPUs that take LPIs.

    Frames: ``its``, ``trans``, ``gicd``, ``gicr0`` …  ``ack`` reads ICC_IAR1_EL1 and ends it; 1023 is none.
    """

    def mmio_read(self, frame: str, off: int, size: int) -> int: ...
    def mmio_write(self, frame: str, off: int, size: int, value: int) -> None: ...
    def mem_read(self, addr: int, length: int) -> bytes: ...
    def mem_write(self, addr: int, data: bytes) -> None: ...
    def mem_fill(self, addr: int, length: int, byte: int) -> None: ...
    def msi(self, devid: int, data: int) -> None: ...
    def drain(self) -> None: ...
    def pending(self, cpu: int, lpi: int) -> int: ...
    def pending_all(self, cpu: int) -> list[int]: ...
    def ack(self, cpu: int) -> int: ...
    def migrate(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class Mismatch(NamedTuple):
    """``kind`` is arch, cu or impdef."""

    label: str
    kind: str
    expected: object
    got: object


def names() -> list[str]:
    """The recorded cases; none where they are not there."""
    return sorted(path.stem for path in CASES.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return case


def adapter_config(case: dict[str, Any]) -> tuple[int, tuple[int, ...]]:
    """(number of vCPUs, DeviceIDs that send MSIs)."""
    config = case["config"]
    return config["cpus"], tuple(config.get("msi_devids", ()))


def play(case: dict[str, Any], adapter: Adapter) -> dict[str, object]:
    """What each label showed, in the form of the case's ``expect``."""
    got: dict[str, object] = {}
    for step in case["steps"]:
        _step(step, adapter, got)
    return got


def _step(step: dict[str, Any], adapter: Adapter, got: dict[str, object]) -> None:
    match step["op"]:
        case "w":
            adapter.mmio_write(step["frame"], _number(step["off"]), step["size"], _number(step["val"]))
        case "r":
            value = adapter.mmio_read(step["frame"], _number(step["off"]), step["size"])
            got[step["as"]] = hex(value & _number(step.get("mask", -1)))
        case "mw":
            adapter.mem_write(_number(step["addr"]), bytes.fromhex(step["hex"]))
        case "fill":
            adapter.mem_fill(_number(step["addr"]), _number(step["len"]), step["byte"])
        case "mr":
            got[step["as"]] = adapter.mem_read(_number(step["addr"]), _number(step["len"])).hex()
        case "msi":
            adapter.msi(step["devid"], step["data"])
        case "drain":
            adapter.drain()
        case "pend":
            got[step["as"]] = int(adapter.pending(step["cpu"], step["lpi"]))
        case "pendall":
            got[step["as"]] = sorted(adapter.pending_all(step["cpu"]))
        case "migrate":
            adapter.migrate()
        case "reset":
            adapter.reset()
        case unknown:
            raise ValueError(f"no step is called {unknown!r}")


def _number(value: int | str) -> int:
    return value if isinstance(value, int) else int(value, 0)


def compare(case: dict[str, Any], got: dict[str, object], profile: str) -> list[Mismatch]:
    """Every label that is not as it should be under ``profile``: as recorded on QEMU, or as EXCEPTIONS says."""
    found = []
    for label, recorded in case["expect"].items():
        expected = recorded
        if profile == "kvm":
            expected, _ = EXCEPTIONS.get((case["name"], label), (recorded, ""))
        if expected is not ANY and got.get(label) != expected:
            found.append(Mismatch(label, case["kinds"].get(label, "arch"), expected, got.get(label)))
    return found


#: The value is the implementation's own affair: neither the specification nor KVM's behaviour settles it.
ANY: Final = object()

_NO_STALL: Final = "KVM never stalls"
_FORCED_64K: Final = "KVM has pages of 64 KiB only"
_REFUSED: Final = "KVM refuses to enable without CBASER, BASER0 and BASER1; so the queue is not quiescent either"
_DROPPED: Final = "KVM drops a CWRITER past the queue"
_MASKED: Final = "KVM keeps bits 19:5 of CWRITER"
_CLEARED: Final = "a write of CBASER sets CWRITER to 0 in KVM"
_IDS: Final = "identification"
_ATTRIBUTES: Final = "which memory attributes stick is the implementation's choice"

#: (case, why KVM's answer is not what QEMU showed, label → value under the kvm profile).
_ROWS: Final[tuple[tuple[str, str, dict[str, object]], ...]] = (
    (
        "cmd-mapc-retarget",
        "MAPC takes along what is pending for the collection",
        {"old": [], "new": [8195], "old_after": [], "new_after": [8195, 8200]},
    ),
    ("cmd-movi-same", "MAPC takes along what is pending for the collection", {"cpu3": []}),
    ("cmd-mapc-unmap", "events lose their collection for good with MAPC V = 0", {"back": []}),
    ("cmd-mapd-remap", "mappings are freed for good by MAPD", {"old_itt": []}),
    ("cmd-mapti-again", "MAPTI keeps a mapping that is there", {"cpu2": [], "cpu3": [8195]}),
    ("err-mapd-itt-nowhere", _NO_STALL, {"bad_creadr": "0x180", "good_pending": 1, "good_creadr": "0x1a0"}),
    ("err-mapd-itt-nowhere", "an ITT that can not be written through to: refused, or kept inside only",
     {"pend_c3_8230": ANY}),
    ("err-mapd-size-on-unmap", "the size counts with V = 1 only", {"pend_c3_8195": 0, "good_pending": 0}),
    ("msi-direct-write", "a CPU has no DeviceID", {"cpu1": [], "by_16bit": []}),
    ("queue-cwriter-beyond", _DROPPED, {"bad_cwriter": "0x120"}),
    ("queue-cwriter-beyond-far", _DROPPED, {"bad_cwriter": "0x120"}),
    ("queue-cwriter-misaligned", _MASKED, {"bad_cwriter": "0x140"}),
    ("queue-cwriter-upper-bits", _MASKED, {"bad_cwriter": "0x140"}),
    ("queue-invalid", _REFUSED, {"ctlr": "0x0"}),
    ("queue-resize", _CLEARED, {"off_cwriter": "0x0", "on_cwriter": "0x0"}),
    (
        "queue-stall-mend",
        _NO_STALL,
        {
            "stall_creadr": "0x180", "stall": [8195], "same_creadr": "0x180", "retry_creadr": "0x180",
            "mended_creadr": "0x180", "next_creadr": "0x1a0", "toggle_creadr": "0x1a0",
        },
    ),
    ("queue-stall-mend", _CLEARED, {"cbaser_cwriter": "0x0"}),
    ("reg-baser-ones", _ATTRIBUTES, {"baser0": ANY, "baser1": ANY}),
    (
        "reg-baser-pagesize",
        _FORCED_64K,
        {"dev_p0": "0x200", "coll_p0": "0x200", "dev_p1": "0x200", "coll_p1": "0x200", "dev_p3": "0x200",
         "coll_p3": "0x200"},
    ),
    ("reg-baser-pagesize", "the collection table is flat in KVM", {"coll_indirect": "0x0"}),
    ("reg-cbaser-clears-creadr", _CLEARED, {"cwriter": "0x0"}),
    ("reg-cbaser-ones", _ATTRIBUTES, {"cbaser": ANY}),
    ("reg-cbaser-ones", _DROPPED, {"cwriter": "0x0"}),
    ("reg-creadr-write", "CREADR is read-only in KVM", {"after": "0x120", "after32": "0x120"}),
    ("reg-halves", _IDS, {"typer_lo": "0x1ef71", "typer_hi": "0x0"}),
    ("reg-halves", _MASKED, {"cwriter_hi": "0x40"}),
    ("reg-id", _IDS, {"iidr": "0x4b00043b", "typer": "0x1ef71", "id_ffd0": "0x40", "id_ffe0": "0x92"}),
    ("reg-readonly", _IDS, dict.fromkeys(("before_4", "ones_4", "zeros_4"), "0x4b00043b")),
    ("reg-readonly", _IDS, dict.fromkeys(("before_8", "ones_8", "zeros_8"), "0x1ef71")),
    ("reg-redist", _ATTRIBUTES, {"prop_ones": ANY, "pend_ones": ANY}),
    ("reg-redist", "PENDBASER.PTZ reads 0 in KVM", {"pend": "0x42700780"}),
    ("reg-redist", "PROPBASER is fixed while LPIs are enabled in KVM", {"prop_after": "0x4260078f"}),
    ("table-coll-invalid", _REFUSED, {"creadr": "0x0", "ctlr": "0x0"}),
    ("table-dev-invalid", _REFUSED, {"creadr": "0x0", "ctlr": "0x0"}),
    ("table-coll-nowhere", _NO_STALL, {"creadr": "0x80"}),
    ("table-dev-nowhere", _NO_STALL, {"creadr": "0x80", "mended_creadr": "0x80", "retry_creadr": "0x80"}),
    ("table-dev-nowhere", "the commands were skipped, so nothing is left to run", {"mended": [], "retry": []}),
    (
        "table-format",
        "KVM's save/restore ABI, revision 0",
        {
            "dt": "00" * 16 + "0700600800000a80" + "00" * 32 + "0720600800000080",
            "ct": "0300030000000080" + "0200020000000080" + "00" * 16,
            "itt": "00" * 24,  # events 30 to 32
        },
    ),
    ("table-pagesize-16k", _FORCED_64K, {"baser0": "0x200", "dev_0x1000": [8195, 8230]}),
    ("table-pagesize-4k", _FORCED_64K, {"baser0": "0x200", "dev_0x1000": [8195, 8230]}),
    ("table-wiped-under-its", "KVM does not look into the tables", {"cpu3": [8195, 8200]}),
)  # fmt: skip

#: (case, label) → (value under the kvm profile, why it is not what QEMU showed). Everything else is the same in both.
EXCEPTIONS: Final = {(case, label): (value, why) for case, why, values in _ROWS for label, value in values.items()}
