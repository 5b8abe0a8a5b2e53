"""Every message of the mesh, written once: one struct a frame, the struct's tag first in the msgpack array.

``["avail", queue, generation, first_idx, chains, …]``. Who sends what on which link stands beside each group; the
legality table :data:`LEGAL` is what the links check and what ``docs/wire.md`` is generated from.

Units: addresses and lengths are bytes, indices are ring indices (free-running u16 unless said otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

#: Version of the wire format; a hello with another one is refused.
VERSION: Final = 3

Segment = tuple[int, int, int]
"""``(addr, len, flags)``: one descriptor as the port read it; flags as in virtio 1.3 §2.7.5."""

Chain = tuple[int, bytes, Sequence[Segment]]
"""``(head, readable bytes, segments)``: a descriptor chain with what its device-readable part holds."""

UsedElem = tuple[int, bytes]
"""``(head, bytes written)``: one used element with the bytes to scatter into the device-writable part."""


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, tag=str.lower, gc=False):
    """Root of all messages. ``forbid_unknown_fields`` makes an array that is too long an error."""


# --- session: first on every link, both ways --------------------------------------------------------------------


class Hello(Message, tag="hello"):
    """Client → server, the first frame. ``epoch`` is a number that the process drew when it started: another epoch
    under the same name means that the peer restarted and knows nothing. ``guest`` is the guest (virtual machine)
    that the link belongs to, empty where it serves all of them."""

    version: int
    role: str
    token: str
    epoch: int
    guest: str = ""


class Welcome(Message, tag="welcome"):
    """Server → client: the hello was accepted."""

    version: int
    role: str
    epoch: int


class Refuse(Message, tag="refuse"):
    """Either → either, the last frame before closing: which field was wrong and what its limit is."""

    field: str
    reason: str


# --- control: guest (virtio transport) or VMM → device, and the answer ----------------------------------------------


class Call(Message, tag="call"):
    """An operation of the device by its vDPA name (``set_status``, ``set_vq_ready``, ``set_map`` …); to the ITS one of
    its VMM by KVM's name (``set_its_reg``, ``save_tables`` … :mod:`common.gic.vmm_ops`)."""

    seq: int
    op: str
    args: list[Any]


class Return(Message, tag="return"):
    """Answer to :class:`Call` ``seq``. ``errno`` 0 means done; otherwise ``value`` is a sentence."""

    seq: int
    errno: int
    value: Any = None


class Notice(Message, tag="notice"):
    """Device → guest: ``what`` is ``config`` (configuration changed, virtio 1.3 §2.5) or ``needs_reset``."""

    what: str
    detail: str = ""


# --- rings: device → port --------------------------------------------------------------------------------------


class CreateMkey(Message, tag="create_mkey"):
    """Make the memory key ``generation`` (mlx5: an mkey): ranges ``(iova, size, guest address, access)``, access as
    vhost numbers it. Answered by :class:`MkeyCreated`. One that stands with the same ranges is left as it is."""

    generation: int
    ranges: list[tuple[int, int, int, int]]


class DestroyMkey(Message, tag="destroy_mkey"):
    """No queue object holds the key any more."""

    generation: int


class Create(Message, tag="create"):
    """Make the queue object in state INIT, or attach to the one that stands: ring addresses are IOVAs of
    ``generation``; ``index`` is the first avail entry that the device has not been given (vhost: ``last_avail_idx``),
    ``avail`` how far it knows the driver to have got (vhost: ``avail_idx``), ``used`` the next used index to write.

    ``policy`` is a set of :class:`common.virtio.policy.PortPolicy` bits. An ``index`` lower than where the port had
    got to hands the chains between back: they are fetched again.
    """

    queue: int
    generation: int
    index: int
    avail: int
    used: int
    size: int
    desc: int
    driver: int
    device: int
    features: int
    policy: int


class Resume(Message, tag="resume"):
    """The queue object becomes ready (mlx5: RDY): it fetches up to the avail index that it knows, and at kicks."""

    queue: int


class Kick(Message, tag="kick"):
    """Look at avail->idx now (a doorbell that the device replays)."""

    queue: int


class Suspend(Message, tag="suspend"):
    """Stop fetching (mlx5: SUSPEND); answered by :class:`Saved`, behind every :class:`Avail` that was sent before."""

    queue: int


class Save(Message, tag="save"):
    """Ask where the port stands; answered by :class:`Saved`."""

    queue: int


class Destroy(Message, tag="destroy"):
    """Drop the queue object."""

    queue: int


class Used(Message, tag="used"):
    """Answers: ``first_idx`` is the used index that the first element gets."""

    queue: int
    first_idx: int
    elems: list[UsedElem]


# --- rings: port → device --------------------------------------------------------------------------------------


class Avail(Message, tag="avail"):
    """What one kick made available. ``used_idx`` is where the port's used index stands: answers before it arrived.

    ``again`` marks chains that an earlier incarnation of the device had already been given.
    """

    queue: int
    generation: int
    first_idx: int
    chains: list[Chain]
    used_idx: int
    again: bool = False


class Saved(Message, tag="saved"):
    """Where the port stands: next avail entry to fetch, how far it knows the driver to have got, next used index to
    write, chains fetched but not used."""

    queue: int
    index: int
    avail: int
    used: int
    in_flight: int


class MkeyCreated(Message, tag="mkey_created"):
    """Answer to :class:`CreateMkey`. ``errno`` 0: the key can be used; otherwise ``reason`` is a sentence and there is
    no such key."""

    generation: int
    errno: int
    reason: str = ""


class Irq(Message, tag="irq"):
    """The port published used elements and the driver wants to hear of it: raise the queue's MSI.

    ``number`` counts this queue's interrupts from 1, full width, and survives a restart of the device.
    """

    queue: int
    number: int


class Resync(Message, tag="resync"):
    """Port → device after a reconnect, one a queue object that stands, before anything else: what :class:`Saved` says
    and the number of the queue's last interrupt. A device that kept its state answers with :class:`Create` and
    repeats what the port has not seen; one that restarted does so when the driver has configured it again."""

    queue: int
    index: int
    avail: int
    used: int
    in_flight: int
    irq_number: int


class Broken(Message, tag="broken"):
    """Either → either: this queue broke the rules (virtio 1.3 §2.7) and is dead until it is reset."""

    queue: int
    field: str
    reason: str


# --- interrupts: device → ITS → guest, and back --------------------------------------------------------------------


class Msi(Message, tag="msi"):
    """Device → ITS: a write of ``event`` to GITS_TRANSLATER by ``device``. ``number`` counts the event's MSIs."""

    guest: str
    device: int
    event: int
    number: int


class MsiDone(Message, tag="msi_done"):
    """ITS → device: the guest took an LPI that covers the event's MSIs up to ``number``."""

    guest: str
    device: int
    event: int
    number: int


class Lpi(Message, tag="lpi"):
    """ITS → guest: ``intid`` is pending on ``vcpu``; it covers MSIs up to ``number``."""

    vcpu: int
    intid: int
    number: int


class Eoi(Message, tag="eoi"):
    """Guest → ITS: the vCPU acknowledged and ended ``intid``; ``number`` as it was in the LPI."""

    vcpu: int
    intid: int
    number: int


# --- MMIO and DMA: guest ↔ ITS -----------------------------------------------------------------------------------


class MmioRead(Message, tag="mmio_read"):
    """Guest → ITS: read ``size`` bytes at ``offset`` of ``frame`` (``its``, ``trans``, ``gicr0`` …)."""

    seq: int
    frame: str
    offset: int
    size: int


class MmioWrite(Message, tag="mmio_write"):
    """Guest → ITS: write ``value``; answered when the write has taken effect."""

    seq: int
    frame: str
    offset: int
    size: int
    value: int


class MmioDone(Message, tag="mmio_done"):
    """ITS → guest: the access completed; ``value`` of a read, 0 of a write."""

    seq: int
    value: int


class DmaRead(Message, tag="dma_read"):
    """Device → guest memory: read ``length`` bytes at guest address ``addr``."""

    seq: int
    addr: int
    length: int


class DmaData(Message, tag="dma_data"):
    """Guest memory → device: the bytes, or None where ``addr`` is not in guest memory."""

    seq: int
    data: bytes | None


class DmaCommit(Message, tag="dma_commit"):
    """ITS → guest: everything that commands did since the last one, to take effect as one.

    ``writes`` are posted writes to guest memory, in order: ``[addr, data]``; ``data`` as an int is that many zeros.
    ``lpis`` are LPIs ``[vcpu, intid, number]`` that the commands made the ITS deliver. ``creadr`` is GITS_CREADR after
    the last of the commands: what it has passed has taken effect in guest memory, the rest has not. What does not fit
    into one frame comes in several, and takes effect with the ``last`` one.
    """

    creadr: int
    writes: list[tuple[int, bytes | int]]
    lpis: list[tuple[int, int, int]]
    last: bool = True


AnyMessage = (
    Hello | Welcome | Refuse | Call | Return | Notice | CreateMkey | DestroyMkey | Create | Resume | Kick | Suspend
    | Save | Destroy | Used | Avail | Saved | MkeyCreated | Irq | Resync | Broken | Msi | MsiDone | Lpi | Eoi
    | MmioRead | MmioWrite | MmioDone | DmaRead | DmaData | DmaCommit
)  # fmt: skip

_FROM_PORT: Final[frozenset[type[Message]]] = frozenset({Call, Avail, Saved, Irq, Resync, Broken})
_TO_PORT: Final[frozenset[type[Message]]] = frozenset(
    {Return, Notice, Create, Resume, Kick, Suspend, Save, Destroy, Used, Broken}
)

#: (role of the sender, role of the receiver) → the messages it may send there, after hello and welcome.
LEGAL: Final[dict[tuple[str, str], frozenset[type[Message]]]] = {
    ("guest", "scmi"): _FROM_PORT,
    ("scmi", "guest"): _TO_PORT,
    ("guest", "nic"): _FROM_PORT | {MkeyCreated},
    ("nic", "guest"): _TO_PORT | {CreateMkey, DestroyMkey},
    ("vmm", "nic"): frozenset({Call}),
    ("nic", "vmm"): frozenset({Return, Notice}),
    ("guest", "its"): frozenset({MmioRead, MmioWrite, DmaData, Eoi, Call}),
    ("its", "guest"): frozenset({MmioDone, DmaRead, DmaCommit, Lpi, Return}),
    ("scmi", "its"): frozenset({Msi}),
    ("its", "scmi"): frozenset({MsiDone}),
    ("nic", "its"): frozenset({Msi}),
    ("its", "nic"): frozenset({MsiDone}),
}

#: (role that connects, role that listens): who opens each link.
CONNECTS: Final = frozenset(
    {("guest", "scmi"), ("guest", "nic"), ("vmm", "nic"), ("guest", "its"), ("scmi", "its"), ("nic", "its")}
)
