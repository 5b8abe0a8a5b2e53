"""Whatever bytes a peer sends, the splitter, the codec, a virtio device and a port raise RemoteError or nothing at all,
and keep no more than one frame and one queue's worth of chains.

Run: ``python -m tests.fuzz.fuzz_frames [COUNT] [SEED]``; ``test_fuzz_rings.py`` runs a short round.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import msgspec

from common.errors import RemoteError
from common.memory import GuestMemory
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.codec import decode, encode
from common.wire.framing import Splitter
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import LEGAL, Call, Message, Return
from services.guest_driver.port import Port
from tests.common.virtio.ringkit import WORLD, EchoDevice, configure, identity_key

LAYOUTS = [SplitLayout.packed_at(0x1000, 4), SplitLayout.packed_at(0x2000, 8)]
TO_DEVICE = sorted(LEGAL["guest", "nic"], key=lambda kind: kind.__name__)
TO_PORT = sorted(LEGAL["nic", "guest"], key=lambda kind: kind.__name__)
OPS = ["set_status", "set_vq_num", "set_vq_address", "set_vq_cb", "set_vq_state", "set_vq_ready", "get_config", "x"]


def _int(rng: random.Random) -> int:
    edges = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        -1,
        0xFFFF,
        0x10000,
        0x1000,
        0x2000,
        1 << 32,
        (1 << 63) - 1,
        (1 << 64) - 1,
        -(1 << 63),
    ]
    return rng.choice([rng.randrange(4), rng.randrange(16), rng.choice(edges)])


def _bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 8, rng.randrange(40)]))


def _value(rng: random.Random, kind: Any) -> Any:
    """A random value of a field's type."""
    text = str(kind)
    if kind is bool or text == "bool":
        return rng.random() < 0.5
    if "Chain" in text:
        return [
            (_int(rng), _bytes(rng), [(_int(rng), _int(rng), rng.randrange(8)) for _ in range(rng.randrange(4))])
            for _ in range(rng.randrange(4))
        ]
    if "UsedElem" in text:
        return [(_int(rng), _bytes(rng)) for _ in range(rng.randrange(4))]
    if "list" in text:
        return [rng.choice([_int(rng), "x", None, [_int(rng)], rng.random() < 0.5]) for _ in range(rng.randrange(6))]
    if "str" in text:
        return rng.choice(OPS)
    return rng.randrange(2) if rng.random() < 0.5 else _int(rng)


def _message(rng: random.Random, kinds: list[type[Message]]) -> Message:
    kind = rng.choice(kinds)
    fields = msgspec.structs.fields(kind)
    return kind(*[_value(rng, kind.__annotations__[field.name]) for field in fields])


def _mutated(rng: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at:]
                data += rng.randbytes(4)
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


def _round(rng: random.Random) -> None:
    memory = GuestMemory(0x10000)
    memory.write(0, rng.randbytes(0x10000) if rng.random() < 0.5 else bytes(0x10000))
    key = identity_key(memory, 1)
    out: list[Message] = []
    device = EchoDevice(out, [], [4, 8], key)
    if rng.random() < 0.8:
        configure(device, LAYOUTS)
    port = Port(WORLD, memory, queues=2, send=out.append, key_of={1: key, 2: key}.get, clock=lambda: 1.0)
    port.link_up()
    for queue, layout in enumerate(LAYOUTS):
        driver = SplitDriver(WORLD, memory, layout)
        driver.add_batch([(0x4000 + 64 * i, 64, i + 1) for i in range(layout.size)], rng.randrange(3))
        port.doorbell(queue)
    for message in out[:]:
        if type(message) in TO_PORT:
            port.frame(message)
    for kinds, target in ((TO_DEVICE, device), (TO_PORT, port)):
        splitter = Splitter()
        for _ in range(12):
            data = _mutated(rng, encode(_message(rng, kinds))) if rng.random() < 0.95 else rng.randbytes(20)
            bodies: list[bytes] = []
            try:
                splitter.feed(data, bodies)
            except RemoteError:
                splitter = Splitter()
            assert splitter.pending <= MAX_FRAME + PREFIX
            for body in bodies:
                try:
                    message = decode(body)
                    if type(message) in kinds:  # the link's legality check
                        target.frame(message)
                        if target is device:
                            device.batch_end()
                except RemoteError:
                    pass
        for remote, size in zip(device.queues, (4, 8), strict=True):
            assert remote.in_hand + len(remote._answers) <= size or remote.broken
            assert len(remote.again) <= size
        for held in port.queues:
            assert len(held.in_flight) <= 8
    for message in out:
        encode(message)
    assert device.answer(Call(1, "get_device_id", [])) == Return(1, 0, device.device_id)


def fuzz(count: int, seed: int) -> None:
    for i in range(count):
        try:
            _round(random.Random(f"{seed}/{i}"))
        except BaseException:
            print(f"seed {seed}, round {i}", file=sys.stderr)
            raise


if __name__ == "__main__":
    fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
