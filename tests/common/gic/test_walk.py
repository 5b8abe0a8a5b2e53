"""A walk reads back what was mapped, in either layout, and says what makes no sense."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import MemoryFaultError
from common.gic import walk as walking
from common.gic.commands import INT, MAPD, Command, encode
from common.gic.entries import L1, NOT_MAPPED, Cte, Dte, Ite
from common.gic.lpi import DEFAULT_PRIORITY
from common.gic.registers import (
    BASER_ENTRY_SIZE,
    BASER_INDIRECT,
    CBASER_ADDR,
    CBASER_PAGES,
    CBASER_VALID,
    CREADR_STALLED,
)
from common.gic.saved import SavedIts, table_ranges
from common.gic.walk import Collection, Event, Finding, Walk, walk
from common.memory import GuestMemory
from tests.common.gic.its_memory import (
    BASE,
    COLLECTIONS,
    CONFIG,
    DEVICES,
    ITTS,
    LEVEL2,
    PAGE,
    PENDING,
    QUEUE,
    SIZE,
    SMALL,
    Mapping,
    Profile,
    memory_of,
)

BOTH = pytest.mark.parametrize("profile", ["kvm", "qemu"])


def reasons(found: Walk) -> list[str]:
    return [finding.reason for finding in found.findings]


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    icids = draw(st.sets(st.integers(0, 0xFFFF), min_size=1, max_size=6))
    cpus = draw(st.integers(1, 8))
    collections = {icid: draw(st.integers(0, cpus - 1)) for icid in icids}
    lpi = st.integers(8192, 65535)
    devices = {}
    for device in draw(st.sets(st.integers(0, 0xFFFF) | st.integers(0, 40), max_size=6)):
        bits = draw(st.integers(1, 10))
        event = st.integers(0, (1 << bits) - 1)
        events = draw(st.dictionaries(event, st.tuples(lpi, st.sampled_from(sorted(icids))), max_size=8))
        devices[device] = (bits, events)
    pending = draw(st.sets(st.tuples(st.integers(0, cpus - 1), lpi), max_size=6))
    return Mapping(devices, dict(collections), pending, draw(st.sets(lpi, max_size=5)), cpus)


class TestReadsBack:
    @settings(max_examples=60, deadline=None)
    @given(mapping=mappings(), indirect=st.booleans(), everything=st.booleans())
    @pytest.mark.parametrize("profile", ["kvm", "qemu"])
    def test_what_was_mapped(self, profile: Profile, mapping: Mapping, indirect: bool, everything: bool) -> None:
        memory, saved = memory_of(mapping, profile, indirect=indirect)
        found = walk(saved, memory.read, everything=everything)
        assert found.findings == []
        assert {each.device: each.bits for each in found.devices} == {
            device: bits for device, (bits, _) in mapping.devices.items()
        }
        for each in found.devices:
            events = mapping.devices[each.device][1]
            assert [event.event for event in each.events] == sorted(events)
            for event in each.events:
                intid, icid = events[event.event]
                vcpu = mapping.collections[icid]
                assert event == Event(
                    event.event, intid, icid, vcpu, intid not in mapping.disabled, DEFAULT_PRIORITY,
                    (vcpu, intid) in mapping.pending,
                )  # fmt: skip
        assert {each.icid: each.vcpu for each in found.collections} == mapping.collections
        assert found.pending == [
            sorted(intid for vcpu, intid in mapping.pending if vcpu == cpu) for cpu in range(mapping.cpus)
        ]

    @settings(max_examples=30, deadline=None)
    @given(mapping=mappings(), indirect=st.booleans())
    @pytest.mark.parametrize("profile", ["kvm", "qemu"])
    def test_what_was_saved_says_the_same(self, profile: Profile, mapping: Mapping, indirect: bool) -> None:
        memory, saved = memory_of(mapping, profile, indirect=indirect)
        saved.memory = [(addr, memory.read(addr, length)) for addr, length in table_ranges(saved, memory.read)]
        assert walk(saved) == walk(saved, memory.read)

    def test_small_tables_of_4_kib_pages(self) -> None:
        memory, saved = memory_of(SMALL, "qemu")
        saved.its["GITS_BASER0"] = saved.its["GITS_BASER0"] & ~0x3FF
        assert [each.device for each in walk(saved, memory.read).devices] == [2, 7]

    @BOTH
    def test_an_itt_that_is_read_in_parts(self, profile: Profile) -> None:
        events = {0: (8192, 1), 4095: (8193, 1), 4096: (8194, 1), 8191: (8195, 1)}
        memory, saved = memory_of(Mapping({1: (13, events)}, {1: 1}), profile)
        found = walk(saved, memory.read)
        assert ([event.event for event in found.devices[0].events], found.findings) == (list(events), [])

    def test_each_redistributor_has_its_configuration_table(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.redists[3]["GICR_PROPBASER"] += 0x1_0000  # zeros, and pending bits
        assert [device.events[0].enabled for device in walk(saved, memory.read).devices] == [False, False]

    def test_unmapped_collection_of_kvm(self) -> None:
        mapping = Mapping({1: (4, {0: (8192, 9)})}, {9: None}, pending={(0, 8192)}, cpus=1)
        memory, saved = memory_of(mapping, "kvm")
        found = walk(saved, memory.read)
        assert found.findings == []
        assert found.collections == [Collection(9, None)]
        assert found.devices[0].events == [Event(0, 8192, 9, None, True, DEFAULT_PRIORITY, False)]


class TestQueue:
    def test_at_rest(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        assert walk(saved, memory.read).queue == walking.Queue(QUEUE, 0x10000, 0x40, 0x40, False, 0, [])

    def test_waiting_commands_in_words_over_the_wrap(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        memory.write(QUEUE + 0xFFE0, encode(Command(MAPD, device=5, size=3, itt=ITTS, valid=1)))
        memory.write(QUEUE, encode(Command(INT, device=5, event=2)))
        memory.write(QUEUE + 0x20, b"\x77" + bytes(31))
        saved.its |= {"GITS_CREADR": 0xFFE0 | CREADR_STALLED, "GITS_CWRITER": 0x40}
        queue = walk(saved, memory.read).queue
        assert queue is not None
        assert (queue.waiting, queue.stalled, queue.creadr) == (3, True, 0xFFE0)
        assert queue.commands == [
            f"MAPD device=0x5 size=0x3 itt={ITTS:#x} valid=0x1", "INT device=0x5 event=0x2", "unknown 0x77",
        ]  # fmt: skip

    def test_only_some_are_shown(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.its["GITS_CWRITER"] = 0x40 + 32 * 20
        queue = walk(saved, memory.read).queue
        assert queue is not None
        assert (queue.waiting, len(queue.commands)) == (20, walking.MAX_COMMANDS)

    def test_none(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.its["GITS_CBASER"] = 0
        assert walk(saved, memory.read).queue is None

    @pytest.mark.parametrize("name", ["GITS_CREADR", "GITS_CWRITER"])
    def test_past_the_end(self, name: str) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.its[name] = 0x10000
        found = walk(saved, memory.read)
        assert found.findings == [Finding(QUEUE, f"{name} = 0x10000 is past the queue of 0x10000 bytes")]

    def test_nowhere(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.its |= {
            "GITS_CBASER": CBASER_VALID | CBASER_ADDR.put(1 << 40) | CBASER_PAGES.put(0),
            "GITS_CWRITER": 0x80,
        }
        found = walk(saved, memory.read)
        assert found.findings == [Finding((1 << 40) + 0x40, "command: 32 bytes are not in memory")]


class TestFindings:
    def tables(self, mapping: Mapping = SMALL, **kinds: bool) -> tuple[GuestMemory, SavedIts]:
        return memory_of(mapping, "kvm", **kinds)

    def test_entries_that_no_chain_reaches(self) -> None:
        memory, saved = self.tables()
        memory.write(DEVICES + 8 * 2, Dte(True, ITTS, 8, 0).pack())  # the last, so it says
        found = walk(saved, memory.read)
        assert [each.device for each in found.devices] == [2]
        assert found.findings == [
            Finding(DEVICES + 8 * 7, "1 valid devices that no `next` leads to: not restored")
        ]  # fmt: skip
        every = walk(saved, memory.read, everything=True)
        assert ([each.device for each in every.devices], every.findings) == ([2, 7], [])

    def test_a_chain_that_steps_over_one(self) -> None:
        mapping = Mapping({1: (4, {n: (8192 + n, 1) for n in range(4)})}, {1: 1})
        memory, saved = self.tables(mapping)
        memory.write(ITTS, Ite(8192, 1, 3).pack())
        found = walk(saved, memory.read)
        assert [event.event for event in found.devices[0].events] == [0, 3]
        assert found.findings == [
            Finding(ITTS + 8, "2 valid events of device 0x1 that no `next` leads to: not restored")
        ]  # fmt: skip

    def test_a_chain_goes_on_in_the_next_page_of_level_2(self) -> None:
        mapping = Mapping({1: (4, {}), 8192: (4, {}), 8195: (4, {}), 20000: (4, {})}, {})
        memory, saved = self.tables(mapping, indirect=True)
        memory.write(LEVEL2 + 8, Dte(True, ITTS, 4, 8194).pack())  # past the page: the next page is read from its start
        assert [each.device for each in walk(saved, memory.read).devices] == [1, 8192, 8195, 20000]
        memory.write(LEVEL2 + PAGE, Dte(True, ITTS, 4, 0).pack())  # ends it all
        found = walk(saved, memory.read)
        assert [each.device for each in found.devices] == [1, 8192]
        assert found.findings[0].reason.startswith("2 valid devices")

    def test_what_is_no_lpi(self) -> None:
        memory, saved = self.tables(Mapping({1: (4, {0: (8191, 1), 1: (65536, 1)})}, {1: 1}))
        found = walk(saved, memory.read)
        assert found.findings == [
            Finding(ITTS, "device 0x1 event 0: INTID 8191 is no LPI, 8192 to 65535"),
            Finding(ITTS + 8, "device 0x1 event 1: INTID 65536 is no LPI, 8192 to 65535"),
        ]
        assert [(event.enabled, event.priority) for event in found.devices[0].events] == [(None, None)] * 2

    def test_next_past_the_itt(self) -> None:
        memory, saved = self.tables(Mapping({1: (4, {10: (8192, 1)})}, {1: 1}))
        memory.write(ITTS + 80, Ite(8192, 1, 5).pack())
        assert reasons(walk(saved, memory.read)) == []
        memory.write(ITTS + 80, Ite(8192, 1, 6).pack())
        assert reasons(walk(saved, memory.read)) == [
            "device 0x1 event 10: the next is 6 further, past the ITT of 16 events"
        ]

    def test_unknown_collection(self) -> None:
        memory, saved = self.tables(Mapping({1: (4, {3: (8192, 5)})}, {1: 1}))
        found = walk(saved, memory.read)
        assert found.findings == [Finding(ITTS + 24, "device 0x1 event 3: there is no collection 5")]
        assert found.devices[0].events[0].vcpu is None

    def test_a_pe_that_there_is_not(self) -> None:
        memory, saved = self.tables()
        memory.write(COLLECTIONS, Cte(True, 4, 2).pack())
        found = walk(saved, memory.read)
        assert found.findings == [Finding(COLLECTIONS, "collection 2: there is no PE 4, of 4")]
        assert found.collections[0] == Collection(2, None)

    def test_qemu_does_not_write_unmapped_collections(self) -> None:
        memory, saved = memory_of(SMALL, "qemu")
        memory.write(COLLECTIONS, (1 | 0xFFFFF << 1).to_bytes(8, "little"))
        assert reasons(walk(saved, memory.read)) == ["collection 0: there is no PE 1048575, of 4"]

    def test_twice_the_same_collection(self) -> None:
        memory, saved = self.tables()
        memory.write(COLLECTIONS + 8, Cte(True, 1, 2).pack())
        found = walk(saved, memory.read)
        assert Finding(COLLECTIONS + 8, "collection 2: there are two of this ICID") in found.findings
        assert found.collections == [Collection(2, 2)]

    def test_the_list_of_collections_ends_at_the_first_invalid_entry(self) -> None:
        memory, saved = self.tables()
        memory.write(COLLECTIONS + 24, Cte(True, NOT_MAPPED, 77).pack())
        assert [each.icid for each in walk(saved, memory.read).collections] == [2, 3]
        assert [each.icid for each in walk(saved, memory.read, everything=True).collections] == [2, 3, 77]
        memory.write(COLLECTIONS, (2).to_bytes(8, "little"))  # V = 0
        assert walk(saved, memory.read).collections == []

    def test_too_many_event_bits(self) -> None:
        memory, saved = self.tables(Mapping({1: (4, {})}, {}))
        memory.write(DEVICES + 8, Dte(True, ITTS, 17, 0).pack())
        found = walk(saved, memory.read)
        assert found.findings == [Finding(DEVICES + 8, "device 0x1: EventIDs of 17 bits, of at most 16")]
        assert found.devices[0].events == []

    def test_an_itt_nowhere(self) -> None:
        memory, saved = self.tables(Mapping({1: (4, {})}, {}))
        memory.write(DEVICES + 8, Dte(True, 1 << 40, 4, 0).pack())
        assert walk(saved, memory.read).findings == [Finding(1 << 40, "device 0x1: ITT: 128 bytes are not in memory")]

    def test_itts_of_too_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walking, "MAX_ITT_BYTES", 8 << 8)
        memory, saved = self.tables()
        found = walk(saved, memory.read)
        assert reasons(found) == ["device 0x7: its ITT is not looked at, they have more than 2048 bytes"]
        assert [len(each.events) for each in found.devices] == [1, 0]

    def test_too_many_events(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walking, "MAX_EVENTS", 3)
        memory, saved = self.tables(Mapping({1: (4, {n: (8192 + n, 1) for n in range(9)})}, {1: 1}))
        found = walk(saved, memory.read)
        assert found.findings == [Finding(ITTS + 24, "device 0x1: more than 3 events, the others are not looked at")]
        assert len(found.devices[0].events) == 3

    def test_an_entry_of_another_size(self) -> None:
        memory, saved = self.tables()
        saved.its["GITS_BASER0"] ^= BASER_ENTRY_SIZE.put(7 ^ 15)
        assert walk(saved, memory.read).findings == [Finding(DEVICES, "entries of 16 bytes in GITS_BASER, not 8")]

    def test_findings_are_counted_past_the_limit(self) -> None:
        events = dict.fromkeys(range(walking.MAX_FINDINGS + 5), (100, 1))
        memory, saved = self.tables(Mapping({1: (8, events)}, {1: 1}))
        found = walk(saved, memory.read)
        assert (len(found.findings), found.more_findings) == (walking.MAX_FINDINGS, 5)


class TestMemoryThatIsNotThere:
    def test_pages_of_level_2(self) -> None:
        memory, saved = memory_of(SMALL, "kvm", indirect=True)
        memory.write(DEVICES + 8, L1(True, 1 << 40).pack())
        assert walk(saved, memory.read).findings == [Finding(1 << 40, "device table: 65536 bytes are not in memory")]

    def test_level_1(self) -> None:
        memory, saved = memory_of(SMALL, "kvm", indirect=True)
        saved.its["GITS_BASER0"] = saved.its["GITS_BASER0"] & ~0xFFFF_FFFF_F000 | BASER_INDIRECT
        assert walk(saved, memory.read).findings == [Finding(0, "device table, level 1: not in memory")]

    @BOTH
    def test_lpi_tables(self, profile: Profile) -> None:
        memory, saved = memory_of(SMALL, profile)

        def read(addr: int, length: int) -> bytes:
            if CONFIG <= addr < PENDING + 0x1_0000:
                raise MemoryFaultError("addr", addr)
            return memory.read(addr, length)

        found = walk(saved, read)
        assert found.findings == [
            Finding(CONFIG, "vCPU 0: LPI configuration table: 57344 bytes are not in memory"),
            Finding(PENDING, "vCPU 0: LPI pending table: 8192 bytes are not in memory"),
        ]
        assert found.devices[0].events == [Event(20, 8195, 3, 3, None, None, True)]

    def test_redistributors_that_were_given_no_tables(self) -> None:
        memory, saved = memory_of(SMALL, "kvm")
        saved.redists = [dict.fromkeys(redist, 0) for redist in saved.redists]
        found = walk(saved, memory.read)
        assert (found.findings, found.pending) == ([], [[], [], [], []])
        assert found.devices[0].events[0].enabled is None


@BOTH
def test_bytes_at_random_never_raise(profile: Profile) -> None:
    """Whatever the tables hold, a walk ends and says something."""
    rng = random.Random(6)
    for _round in range(30):
        memory, saved = memory_of(SMALL, profile, indirect=rng.random() < 0.5)
        for _ in range(rng.randrange(400)):
            at = rng.choice((DEVICES, COLLECTIONS, ITTS, LEVEL2, QUEUE)) + rng.randrange(64) * rng.choice((1, 8, 96))
            memory.write(at, rng.randbytes(rng.choice((1, 4, 8))))
        for name in saved.its:
            if rng.random() < 0.1:
                saved.its[name] = rng.getrandbits(64)
        for redist in saved.redists:
            if rng.random() < 0.1:
                redist["GICR_PROPBASER"] = rng.getrandbits(64)
        for everything in (False, True):
            found = walk(saved, memory.read, everything=everything)
            assert len(found.pending) == saved.cpus
            ranges = table_ranges(saved, memory.read)
            assert all(addr >= BASE and addr + length <= BASE + SIZE for addr, length in ranges)
