"""A saved ITS: round trip, what is refused, and which memory belongs to it."""

from __future__ import annotations

import random
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import MemoryFaultError, RemoteError
from common.gic import entries_qemu
from common.gic import saved as saving
from common.gic.entries import L1, Dte
from common.gic.registers import (
    CBASER_ADDR,
    CBASER_VALID,
    PENDBASER_ADDR,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
)
from common.gic.saved import SavedIts, check, decode, encode, lpi_tables, reader, table_ranges
from common.memory import GuestMemory
from tests.common.gic.its_memory import (
    BASE,
    COLLECTIONS,
    CONFIG,
    DEVICES,
    ITTS,
    LEVEL2,
    PENDING,
    PENDING_STEP,
    QUEUE,
    SMALL,
    Mapping,
    Profile,
    baser,
    memory_of,
)


def example() -> SavedIts:
    memory, saved = memory_of(SMALL, "kvm")
    saved.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(saved, memory.read)]
    return saved


def file_of(document: Any) -> bytes:
    """A file, whatever is in it."""
    return zlib.compress(document if isinstance(document, bytes) else msgspec.msgpack.encode(document), wbits=31)


def inside(file: bytes) -> bytes:
    return zlib.decompress(file, wbits=31)


def refused(saved: SavedIts) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        check(saved)
    with pytest.raises(RemoteError):
        encode(saved)
    with pytest.raises(RemoteError, match=caught.value.field.replace("[", r"\[").replace("]", r"\]")):
        decode(file_of(saved))
    return caught.value


class TestFile:
    def test_round_trip(self) -> None:
        assert decode(encode(example())) == example()

    def test_what_stands_in_it(self) -> None:
        document = msgspec.msgpack.decode(inside(encode(example())))
        assert list(document) == ["version", "profile", "cpus", "dist", "redists", "its", "memory"]
        assert document["version"] == 1
        assert document["memory"][0][0] == QUEUE

    def test_every_register_is_wanted(self) -> None:
        assert set(example().its) == set(saving.ITS_REGISTERS)
        assert saving.ITS_REGISTERS["GITS_BASER7"] == 0x138

    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_mutated_bytes_never_crash(self, data: st.DataObject) -> None:
        """A changed file is refused with a RemoteError, or is another that is good."""
        compressed = data.draw(st.booleans())
        file = bytearray(encode(_FEW) if compressed else inside(encode(_FEW)))
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(file) - 1))
            kind = data.draw(st.sampled_from(["change", "cut", "put"]))
            some = data.draw(st.binary(min_size=1, max_size=9))
            if kind == "change":
                file[at : at + len(some)] = some
            elif kind == "put":
                file[at:at] = some
            elif at:
                del file[at:]
        _good_or_refused(bytes(file) if compressed else file_of(bytes(file)))

    def test_noise(self) -> None:
        rng = random.Random(6)
        for length in range(300):
            noise = rng.randbytes(length)
            for file in (noise, file_of(noise)):
                with pytest.raises(RemoteError):
                    decode(file)
        for nested in (b"\x91" * 100_000, b"\x81\xa1x" + b"\x91" * 100_000, b"\x81\xa6memory" + b"\x91" * 100_000):
            with pytest.raises(RemoteError):
                decode(file_of(nested))

    def test_cut_off_or_longer(self) -> None:
        file = encode(_FEW)
        for length in (0, 1, len(file) - 1):
            with pytest.raises(RemoteError, match="cut off"):
                decode(file[:length])
        with pytest.raises(RemoteError, match="behind the end") as caught:
            decode(file + b"x")
        assert (caught.value.value, caught.value.limit) == (len(file) + 1, len(file))

    def test_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        file, size = encode(_FEW), len(inside(encode(_FEW)))
        monkeypatch.setattr(saving, "MAX_FILE", size)
        assert decode(encode(_FEW)) == _FEW
        monkeypatch.setattr(saving, "MAX_FILE", size - 1)
        for call in (lambda: decode(file), lambda: encode(_FEW)):
            with pytest.raises(RemoteError, match="file") as caught:
                call()
            assert (caught.value.field, caught.value.limit) == ("file", size - 1)

    def test_a_bomb_is_not_expanded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(saving, "MAX_FILE", 1 << 16)
        with pytest.raises(RemoteError, match="more bytes than that"):
            decode(zlib.compress(bytes(1 << 20), wbits=31)[:-8] + b"bad end.")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"cpus": "four"}, "cpus"),
            ({"profile": "vmware"}, "profile"),
            ({"its": {"GITS_CTLR": -1.5}}, r"its\[...\]"),
            ({"memory": [[1]]}, r"memory\[0\]"),
            ({"more": 1}, "file"),
        ],
    )
    def test_wrong_types_name_their_field(self, change: dict[str, Any], field: str) -> None:
        document = msgspec.to_builtins(_FEW, builtin_types=(bytes,)) | change
        with pytest.raises(RemoteError, match=f"^{field}: .*not the saved state of an ITS"):
            decode(file_of(document))


#: Little memory, so that mutations fall on everything.
_FEW = example()
_FEW.memory = [(BASE, bytes(8)), (BASE + 8, bytes(range(16))), (BASE + 0x1000, bytes(8))]


def _good_or_refused(file: bytes) -> None:
    try:
        saved = decode(file)
    except RemoteError:
        return
    assert decode(encode(saved)) == saved


class TestRefused:
    def test_version(self) -> None:
        error = refused(msgspec.structs.replace(_FEW, version=2))
        assert (error.field, error.value, error.limit) == ("version", 2, 1)

    @pytest.mark.parametrize("cpus", [0, 513, -1])
    def test_cpus(self, cpus: int) -> None:
        error = refused(msgspec.structs.replace(_FEW, cpus=cpus))
        assert (error.field, error.value, error.limit) == ("cpus", cpus, 512)

    def test_redistributors(self) -> None:
        error = refused(msgspec.structs.replace(_FEW, cpus=3))
        assert (error.field, error.value, error.limit) == ("redists", 4, 3)

    def test_unknown_register(self) -> None:
        error = refused(msgspec.structs.replace(_FEW, its=_FEW.its | {"GITS_" + "X" * 50: 1}))
        assert (error.field, error.value) == ("its", "GITS_" + "X" * 27)

    def test_missing_register(self) -> None:
        assert refused(msgspec.structs.replace(_FEW, dist={})).field == "dist.GICD_CTLR"
        redists = [*_FEW.redists[:3], {"GICR_CTLR": 0, "GICR_WAKER": 6, "GICR_PROPBASER": 0}]
        assert refused(msgspec.structs.replace(_FEW, redists=redists)).field == "redists[3].GICR_PENDBASER"
        del redists[3]["GICR_WAKER"]
        assert refused(msgspec.structs.replace(_FEW, redists=redists)).field == "redists[3].GICR_WAKER"
        redists[3] = _FEW.redists[3] | {"GICR_WAKER": 1 << 32}
        assert refused(msgspec.structs.replace(_FEW, redists=redists)).limit == (1 << 32) - 1

    @pytest.mark.parametrize(
        ("name", "value", "limit"),
        [("GITS_CBASER", 1 << 64, 1 << 64), ("GITS_CTLR", 1 << 32, 1 << 32), ("GITS_BASER7", -1, 1 << 64)],
    )
    def test_value_of_a_register(self, name: str, value: int, limit: int) -> None:
        saved = msgspec.structs.replace(_FEW, its=_FEW.its | {name: value})
        with pytest.raises(RemoteError) as caught:
            check(saved)
        assert (caught.value.field, caught.value.value, caught.value.limit) == (f"its.{name}", value, limit - 1)

    @pytest.mark.parametrize(
        ("memory", "field", "detail"),
        [
            ([(4, bytes(8))], "memory[0] address", "misaligned"),
            ([(0, bytes(8)), (8, bytes(4))], "memory[1] length", "positive multiple"),
            ([(0, b"")], "memory[0] length", "positive multiple"),
            ([(0, bytes(16)), (8, bytes(8))], "memory[1] address", "below the end"),
            ([(16, bytes(8)), (0, bytes(8))], "memory[1] address", "below the end"),
            ([(-8, bytes(8))], "memory[0] address", "below the end"),
            ([((1 << 52) - 8, bytes(16))], "memory[0] end", ""),
        ],
    )
    def test_memory(self, memory: list[tuple[int, bytes]], field: str, detail: str) -> None:
        error = refused(msgspec.structs.replace(_FEW, memory=memory))
        assert error.field == field
        assert detail in error.detail

    def test_the_last_bytes_and_ranges_that_meet_are_good(self) -> None:
        check(msgspec.structs.replace(_FEW, memory=[(0, bytes(8)), (8, bytes(8)), ((1 << 52) - 8, bytes(8))]))

    def test_too_many_ranges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(saving, "MAX_RANGES", 2)
        error = refused(_FEW)
        assert (error.field, error.value, error.limit) == ("memory", 3, 2)


class TestReader:
    read = staticmethod(reader([(0x100, b"abcdefgh"), (0x108, b"ijklmnop"), (0x200, b"01234567")]))

    def test_reads(self) -> None:
        assert self.read(0x100, 8) == b"abcdefgh"
        assert self.read(0x106, 4) == b"ghij"
        assert self.read(0x207, 1) == b"7"

    @pytest.mark.parametrize(("addr", "length"), [(0xFF, 1), (0xFF, 4), (0x10E, 4), (0x110, 1), (0x206, 4), (0x300, 1)])
    def test_faults(self, addr: int, length: int) -> None:
        with pytest.raises(MemoryFaultError):
            self.read(addr, length)

    def test_of_nothing(self) -> None:
        with pytest.raises(MemoryFaultError):
            reader([])(0, 1)


class TestRanges:
    @pytest.mark.parametrize(("profile", "entry"), [("kvm", 8), ("qemu", 12)])
    def test_flat(self, profile: Profile, entry: int) -> None:
        memory, saved = memory_of(SMALL, profile)
        assert table_ranges(saved, memory.read) == [
            (QUEUE, 0x1_0000),
            (DEVICES, 0x8_0000),
            (COLLECTIONS, 0x8_0000),
            (CONFIG, 65536 - 8192),
            *((PENDING + vcpu * PENDING_STEP, 8192) for vcpu in range(4)),
            (ITTS, entry << 8),
            (ITTS + (entry << 8), entry << 8),
        ]

    def test_two_levels(self) -> None:
        memory, saved = memory_of(Mapping({2: (1, {}), 20000: (1, {})}, {}), "kvm", indirect=True)
        found = table_ranges(saved, memory.read)
        assert (DEVICES, 64) in found
        assert (LEVEL2, 0x1_0000) in found
        assert (LEVEL2 + 2 * 0x1_0000, 0x1_0000) in found
        assert (LEVEL2 + 0x1_0000, 0x1_0000) not in found
        assert found[-2:] == [(ITTS, 16), (ITTS + 256, 16)]

    def test_overlapping_itts_are_one_range(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        memory.write(DEVICES + 8 * 9, Dte(True, ITTS + 0x400, 8, 0).pack())
        assert table_ranges(saved, memory.read)[-1] == (ITTS, 0x1000)

    def test_wide_events_and_an_unreadable_device_table(self) -> None:
        memory, saved = memory_of(Mapping({2: (1, {})}, {}), "kvm", indirect=True)
        memory.write(LEVEL2 + 16, Dte(True, ITTS, 17, 0).pack())
        memory.write(DEVICES + 8, L1(True, 1 << 40).pack())
        found = table_ranges(saved, memory.read)
        assert found[-1] == (LEVEL2, 0x1_0000)

    def test_memory_that_is_not_there_is_left_out_by_pages(self) -> None:
        memory = GuestMemory(0x3000, BASE)
        _, saved = memory_of(SMALL, "kvm")
        saved.its |= {"GITS_BASER0": 0, "GITS_BASER1": 0}
        saved.its["GITS_CBASER"] = CBASER_VALID | CBASER_ADDR.put(BASE + 0x1000) | 15
        assert table_ranges(saved, memory.read) == [(BASE + 0x1000, 0x1000), (BASE + 0x2000, 0x1000)]

    def test_the_last_page_may_be_a_part_of_one(self) -> None:
        memory, saved = memory_of(Mapping({2: (9, {})}, {}), "qemu")
        memory.write(DEVICES + 16, entries_qemu.Dte(True, BASE - 0x1000, 9).pack())
        saved.its["GITS_CBASER"] &= ~CBASER_VALID
        assert table_ranges(saved, memory.read)[0] == (BASE, (12 << 9) - 0x1000)

    def test_what_is_not_valid(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.its = dict.fromkeys(saved.its, 0)
        saved.redists = [dict.fromkeys(redist, 0) for redist in saved.redists]
        assert table_ranges(saved, memory.read) == []

    def test_tables_of_other_kinds(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        before = table_ranges(saved, memory.read)
        saved.its["GITS_BASER2"] = baser(2, LEVEL2, 1)
        assert table_ranges(saved, memory.read) == before


class TestLpiTables:
    def redist(self, id_bits: int, *, ctlr: int = 1, prop: int = CONFIG, pend: int = PENDING) -> dict[str, int]:
        return {
            "GICR_CTLR": ctlr,
            "GICR_PROPBASER": PROPBASER_ADDR.put(prop) | PROPBASER_ID_BITS.put(id_bits - 1),
            "GICR_PENDBASER": PENDBASER_ADDR.put(pend),
        }

    def test_by_id_bits(self) -> None:
        assert lpi_tables(self.redist(14)) == ((CONFIG, 8192), (PENDING, 2048))
        assert lpi_tables(self.redist(16)) == ((CONFIG, 57344), (PENDING, 8192))
        assert lpi_tables(self.redist(32)) == lpi_tables(self.redist(16))
        assert lpi_tables(self.redist(13)) == ()

    def test_not_given(self) -> None:
        assert lpi_tables(self.redist(16, ctlr=0, prop=0)) == ()
        assert lpi_tables(self.redist(16, ctlr=0, pend=0)) == ()
        assert lpi_tables(self.redist(16, ctlr=0)) != ()
        assert lpi_tables(self.redist(16, prop=0, pend=0)) == ((0, 57344), (0, 8192))
