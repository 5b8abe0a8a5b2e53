"""Commands: bytes that QEMU understood, round trips, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.gic import commands as op
from common.gic.commands import COMMANDS, Command, CommandSpec, decode, encode, markdown


@pytest.mark.parametrize(
    ("command", "hexed"),
    [
        (Command(op.MAPD, device=2, size=7, itt=0x43000000, valid=1),
         "0800000002000000" "0700000000000000" "0000004300000080" "0000000000000000"),
        (Command(op.MAPC, icid=3, rdbase=3, valid=1),
         "0900000000000000" "0000000000000000" "0300030000000080" "0000000000000000"),
        (Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
         "0a00000002000000" "1400000003200000" "0300000000000000" "0000000000000000"),
        (Command(op.INT, device=7, event=255),
         "0300000007000000" "ff00000000000000" "0000000000000000" "0000000000000000"),
        (Command(op.MOVALL, rdbase=3, rdbase2=1),
         "0e00000000000000" "0000000000000000" "0000030000000000" "0000010000000000"),
        (Command(op.SYNC, rdbase=3),
         "0500000000000000" "0000000000000000" "0000030000000000" "0000000000000000"),
    ],
)  # fmt: skip
def test_bytes(command: Command, hexed: str) -> None:
    assert encode(command).hex() == hexed
    assert decode(bytes.fromhex(hexed)) == command
    assert decode(b"\xff" * 32 + bytes.fromhex(hexed), 32) == command


@st.composite
def commands(draw: st.DrawFn) -> Command:
    spec = draw(st.sampled_from(COMMANDS))
    values = {name: draw(st.integers(0, field.limit)) << field.scale for name, _, field in spec.fields}
    return Command(spec.op, **values)


@given(commands(), st.integers(0, (1 << 256) - 1))
def test_round_trip_with_any_reserved_bits(command: Command, noise: int) -> None:
    data = encode(command)
    assert decode(data) == command
    used = [0xFF, 0, 0, 0]
    for _, index, field in op.SPEC[command.op].fields:
        used[index] |= field.mask
    words = noise.to_bytes(32, "little")
    noisy = b"".join(
        (
            int.from_bytes(data[8 * n : 8 * n + 8], "little")
            | int.from_bytes(words[8 * n : 8 * n + 8], "little") & ~used[n] & (1 << 64) - 1
        ).to_bytes(8, "little")
        for n in range(4)
    )
    assert decode(noisy) == command


@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_decode(data: bytes) -> None:
    command = decode(data)
    assert command.op == data[0]
    if command.op not in op.SPEC:
        assert command == Command(data[0])


def test_encode_refuses_what_does_not_fit() -> None:
    with pytest.raises(LocalError, match="opcode"):
        encode(Command(0x7F))
    with pytest.raises(LocalError, match="does not fit"):
        encode(Command(op.MAPC, icid=1 << 16, valid=1))
    with pytest.raises(LocalError, match="does not fit"):
        encode(Command(op.MAPD, itt=0x43000001, valid=1))
    with pytest.raises(LocalError, match="no field"):
        encode(Command(op.INT, intid=8192))


@pytest.mark.parametrize("spec", COMMANDS, ids=lambda spec: spec.name)
def test_fields_of_a_command_do_not_overlap(spec: CommandSpec) -> None:
    used = [0xFF, 0, 0, 0]
    for _, index, field in spec.fields:
        assert used[index] & field.mask == 0
        used[index] |= field.mask


def test_reference_page_names_every_command() -> None:
    page = markdown()
    assert all(f"| {spec.name} |" in page for spec in COMMANDS)
    assert "device DW0[63:32]" in page
