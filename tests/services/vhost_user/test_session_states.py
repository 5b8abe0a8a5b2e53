"""A session under any sequence of requests, legal or not: what must hold after each."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.errors import MemoryFaultError, RemoteError
from services.vhost_user.messages import (
    ALL_PROTOCOL_FEATURES,
    CONFIG,
    F_PROTOCOL_FEATURES,
    HEADER,
    MEM_REG,
    U64,
    VERSION,
    VRING_ADDR,
    VRING_NOFD,
    VRING_STATE,
    Header,
    ProtocolFeature,
    Request,
)
from services.vhost_user.requests import TABLE, Phase, Refusal
from tests.services.vhost_user.front_end import memory_table
from tests.services.vhost_user.recorder import FEATURES, Bench

BASE = 0x7000_0000
#: Regions of which some overlap, by guest or by user address, and one lies about its file.
REGIONS = [
    (0, 0x4000, BASE, 0),
    (0x4000, 0x4000, BASE + 0x4000, 0x4000),
    (0x2000, 0x4000, BASE + 0x10000, 0),
    (0x10000, 0x4000, BASE + 0x2000, 0),
    (0x20000, 0x4000, BASE + 0x20000, 1 << 40),
    (0x30000, 0, BASE + 0x30000, 0),
    ((1 << 64) - 0x1000, 0x2000, BASE + 0x40000, 0),
]
indices = st.integers(0, 2)
words = st.one_of(indices, st.sampled_from([VRING_NOFD, VRING_NOFD | 1, 0x200]), st.integers(0, (1 << 64) - 1))
#: refused by a device that has a reason of its own, once in a while
moods = st.sampled_from([None] * 5 + ["vring_start", "memory_set", "call_set", "vring_enable", "features_set"])


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()

    @initialize(good=st.booleans())
    def greet(self, good: bool) -> None:
        if good:
            self.say(Request.SET_PROTOCOL_FEATURES, U64.pack(ALL_PROTOCOL_FEATURES))
            self.say(Request.SET_OWNER)
            self.say(Request.SET_FEATURES, U64.pack(FEATURES | F_PROTOCOL_FEATURES))
            self.say(Request.SET_MEM_TABLE, memory_table(REGIONS[:2]), 2)

    def say(self, request: int, payload: bytes = b"", fds: int = 0, flags: int = 8, *, truncated: bool = False) -> None:
        """Send it and hold the answer against the rules of answering."""
        bench = self.bench
        session, stats = bench.session, bench.stats
        before = stats.refused.total()
        new = bench.files.new(fds)
        answer = session.handle(Header(request, VERSION | flags, len(payload)), payload, new, truncated=truncated)
        refused = stats.refused.total() - before
        assert refused in (0, 1)
        if request in TABLE and TABLE[request].replies:
            assert HEADER.unpack_from(answer) == (request, 5, len(answer) - 12)
            assert (len(answer) == 12) == bool(refused)
        elif flags & 8 and session.protocol_features & ProtocolFeature.REPLY_ACK:
            assert answer == HEADER.pack(request, 5, 8) + U64.pack(refused)
        else:
            assert answer == b""

    @rule(
        request=st.one_of(st.sampled_from(sorted(TABLE)), st.integers(0, 0xFFFF_FFFF)),
        payload=st.binary(max_size=300),
        fds=st.integers(0, 8),
        flags=st.sampled_from([0, 8]),
        truncated=st.booleans(),
    )
    def anything(self, request: int, payload: bytes, fds: int, flags: int, truncated: bool) -> None:
        self.say(request, payload, fds, flags, truncated=truncated)

    @rule(request=st.sampled_from(sorted(TABLE)), size=st.sampled_from([0, 7, 8, 12, 40]), fds=st.integers(0, 2))
    def zeros(self, request: int, size: int, fds: int) -> None:
        self.say(request, bytes(size), fds)

    @rule(
        request=st.sampled_from([Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.SET_VRING_ENABLE]),
        index=indices,
        number=st.sampled_from([0, 1, 2, 16, 64, 65, 0xFFFF, 0x10000]),
    )
    def ring_state(self, request: int, index: int, number: int) -> None:
        self.say(request, VRING_STATE.pack(index, number))

    @rule(
        index=indices,
        flags=st.sampled_from([0, 0, 0, 1]),
        place=st.sampled_from([0, 0x2000, 0x3F00, 0x4000, 0x7000, 0x8000, 8, (1 << 64) - BASE - 16]),
    )
    def ring_addresses(self, index: int, flags: int, place: int) -> None:
        desc = BASE + place
        self.say(Request.SET_VRING_ADDR, VRING_ADDR.pack(index, flags, desc, desc, desc, 0))

    @rule(
        request=st.sampled_from([Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]),
        word=words,
        fds=st.integers(0, 2),
        mood=moods,
    )
    def ring_event(self, request: int, word: int, fds: int, mood: str | None) -> None:
        self.in_mood(mood, request, U64.pack(word), fds)

    @rule(index=indices)
    def ring_stop(self, index: int) -> None:
        self.say(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0))

    @rule(regions=st.lists(st.sampled_from(REGIONS), max_size=3), more=st.integers(-1, 1), mood=moods)
    def memory_set(self, regions: list[tuple[int, int, int, int]], more: int, mood: str | None) -> None:
        self.in_mood(mood, Request.SET_MEM_TABLE, memory_table(regions), max(0, len(regions) + more * (mood is None)))

    @rule(request=st.sampled_from([Request.ADD_MEM_REG, Request.REM_MEM_REG]), region=st.sampled_from(REGIONS))
    def memory_change(self, request: int, region: tuple[int, int, int, int]) -> None:
        self.say(request, MEM_REG.pack(0, *region), 1)

    @rule(request=st.sampled_from([Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES]), bits=words, mood=moods)
    def features(self, request: int, bits: int, mood: str | None) -> None:
        self.in_mood(mood, request, U64.pack(bits & (FEATURES | F_PROTOCOL_FEATURES | ALL_PROTOCOL_FEATURES)), 0)

    @rule(request=st.sampled_from([Request.GET_CONFIG, Request.SET_CONFIG]), offset=st.integers(0, 300))
    def config(self, request: int, offset: int) -> None:
        self.say(request, CONFIG.pack(offset, 4, 0) + bytes(4))

    @rule()
    def again(self) -> None:
        """The front end goes away; the next one meets a device that was reset."""
        self.bench.session.close()
        assert not self.bench.files.open
        assert not self.bench.target.running
        self.bench = Bench()

    def in_mood(self, mood: str | None, request: int, payload: bytes, fds: int) -> None:
        if mood is not None:
            self.bench.target.refuse[mood] = (MemoryFaultError if mood == "memory_set" else RemoteError)("mood")
        self.say(request, payload, fds)
        self.bench.target.refuse.clear()

    @invariant()
    def each_descriptor_has_one_owner(self) -> None:
        held = [fd for ring in self.bench.session.vrings for fd in (ring.kick, ring.call, ring.err) if fd is not None]
        assert sorted(held) == sorted(self.bench.files.open)
        assert set(self.bench.files.closings.values()) <= {1}

    @invariant()
    def target_and_session_agree(self) -> None:
        session, target = self.bench.session, self.bench.target
        assert {ring.index for ring in session.vrings if ring.started} == set(target.running)
        assert session.memory.regions == target.memory.regions
        for ring in session.vrings:
            assert ring.polling == (ring.started and ring.kick is None)
            assert ring.started or ring.kick is None
            assert not ring.started or session.phase == Phase.READY

    @invariant()
    def counts_are_of_closed_sets(self) -> None:
        assert set(self.bench.stats.refused) <= {kind.value for kind in Refusal}
        assert set(self.bench.stats.requests) <= {request.name for request in Request} | {"unknown"}

    def teardown(self) -> None:
        self.bench.session.close()
        assert not self.bench.files.open


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
