"""Mapping a front end's files, and which descriptors may be events."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import MemoryFaultError, RemoteError
from services.vhost_user import mapping
from services.vhost_user.mapping import Mapper, check_event
from services.vhost_user.memory import SharedMemory, SharedRegion

PAGE = 4096


def fds() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = fds()
    yield
    assert fds() == before


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8 * PAGE)
    yield fd
    os.close(fd)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[int]:
    """A file that cannot be sealed."""
    fd = os.open(tmp_path / "ram", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 8 * PAGE)
    yield fd
    os.close(fd)


def test_both_sides_see_the_same_bytes(memfd: int) -> None:
    view = Mapper().map(memfd, PAGE, 2 * PAGE)
    assert (view.nbytes, view.readonly) == (2 * PAGE, False)
    os.pwrite(memfd, b"theirs", PAGE)
    assert bytes(view[:6]) == b"theirs"
    view[2 * PAGE - 4 :] = b"ours"
    assert os.pread(memfd, 4, 3 * PAGE - 4) == b"ours"


def test_an_offset_need_not_be_of_a_page(memfd: int) -> None:
    view = Mapper().map(memfd, PAGE + 48, PAGE)
    assert view.nbytes == PAGE
    os.pwrite(memfd, b"here", PAGE + 48)
    os.pwrite(memfd, b"last", 2 * PAGE + 44)
    assert (bytes(view[:4]), bytes(view[-4:])) == (b"here", b"last")


def test_the_mapping_outlives_the_callers_descriptor() -> None:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, PAGE)
    memory = SharedMemory().with_region(SharedRegion(0, PAGE, 0, 0), fd, Mapper().map, 1)
    os.close(fd)
    memory.guest.write(0, b"still there")
    assert memory.guest.read(0, 11) == b"still there"


def test_the_last_bytes_of_a_file_can_be_mapped_and_no_more(memfd: int) -> None:
    assert Mapper().map(memfd, 7 * PAGE, PAGE).nbytes == PAGE
    for offset, size in ((7 * PAGE, PAGE + 16), (8 * PAGE, 16), (1 << 62, PAGE), (0, 1 << 63), ((1 << 64) - PAGE, 16)):
        with pytest.raises(MemoryFaultError) as caught:
            Mapper().map(memfd, offset, size)
        assert caught.value.field == "region.size"
        assert caught.value.limit == 8 * PAGE


def test_what_is_no_file_is_refused() -> None:
    event = os.eventfd(0)
    directory = os.open("/", os.O_RDONLY)
    zero = os.open("/dev/zero", os.O_RDWR)
    with socket.socket() as sock:
        for fd in (event, directory, zero, sock.fileno()):
            with pytest.raises(MemoryFaultError, match="not a regular file"):
                Mapper().map(fd, 0, PAGE)
    for fd in (event, directory, zero):
        os.close(fd)


def test_what_may_not_be_written_is_refused(tmp_path: Path, memfd: int) -> None:
    (tmp_path / "rom").write_bytes(bytes(PAGE))
    rom = os.open(tmp_path / "rom", os.O_RDONLY)
    with pytest.raises(MemoryFaultError, match="cannot be mapped"):
        Mapper().map(rom, 0, PAGE)
    os.close(rom)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(MemoryFaultError, match="cannot be mapped"):
        Mapper().map(memfd, 0, PAGE)


def test_a_memfd_is_sealed_against_shrinking(memfd: int) -> None:
    mapper = Mapper()
    view = mapper.map(memfd, 0, 8 * PAGE)
    with pytest.raises(PermissionError):
        os.ftruncate(memfd, PAGE)
    os.ftruncate(memfd, 16 * PAGE)  # growing is its owner's right
    assert mapper.still_whole()
    assert not mapper._loose
    view[-1] = 1


def test_a_memfd_that_is_sealed_already_is_fine(memfd: int) -> None:
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    mapper = Mapper()
    assert mapper.map(memfd, 0, PAGE)
    assert not mapper._loose


def test_a_file_that_shrank_is_noticed(plain: int) -> None:
    mapper = Mapper()
    low = mapper.map(plain, 0, 2 * PAGE)
    high = mapper.map(plain, 4 * PAGE, 4 * PAGE)
    assert mapper.still_whole()
    os.ftruncate(plain, 8 * PAGE - 1)
    assert not mapper.still_whole()
    del high
    gc.collect()
    assert mapper.still_whole()  # nobody needs those bytes any more
    os.ftruncate(plain, PAGE)
    assert not mapper.still_whole()
    assert low.nbytes == 2 * PAGE


def test_a_file_that_was_seen_to_shrink_is_lost_though_it_grew_again(plain: int) -> None:
    mapper = Mapper()
    view = mapper.map(plain, 0, 8 * PAGE)
    os.ftruncate(plain, PAGE)
    assert not mapper.still_whole()
    os.ftruncate(plain, 8 * PAGE)
    assert not mapper.still_whole()
    del view
    gc.collect()
    assert mapper.still_whole()


def test_an_access_behind_the_end_is_survived_and_noticed_though_the_file_grew_again(plain: int) -> None:
    mapper = Mapper()
    view = mapper.map(plain, 0, 8 * PAGE)
    view[0], view[7 * PAGE] = 1, 2
    os.ftruncate(plain, PAGE)
    assert (view[0], view[7 * PAGE]) == (1, 0)
    view[5 * PAGE] = 9
    os.ftruncate(plain, 8 * PAGE)
    assert not mapper.still_whole()
    assert os.pread(plain, 1, 5 * PAGE) == b"\0"


def test_events_are_eventfds() -> None:
    event = os.eventfd(0)
    assert os.get_blocking(event)
    check_event(event)
    assert not os.get_blocking(event)
    read, write = os.pipe()
    memory = os.memfd_create("no event")
    with socket.socket() as sock:
        for fd in (read, write, memory, sock.fileno()):
            with pytest.raises(RemoteError, match="not an eventfd"):
                check_event(fd)
    for fd in (event, read, write, memory):
        os.close(fd)


@pytest.mark.parametrize(
    ("preferred", "block"),
    [(0, PAGE), (512, PAGE), (PAGE, PAGE), (2 << 20, 2 << 20), (1 << 30, 1 << 30), (3 << 20, PAGE), (1 << 31, PAGE)],
)
def test_mappings_go_by_whole_pages_huge_ones_too(preferred: int, block: int) -> None:
    assert mapping._block(preferred) == block


def test_a_file_of_huge_pages_is_mapped_by_them(memfd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is of what was asked for, though the mapping begins and ends with whole pages."""
    monkeypatch.setattr(mapping, "_block", lambda _preferred: 4 * PAGE)
    os.pwrite(memfd, b"here", 5 * PAGE)
    view = Mapper().map(memfd, 5 * PAGE, PAGE)
    assert (bytes(view[:4]), view.nbytes) == (b"here", PAGE)
    assert isinstance(view.obj, mapping._Mapping)
    assert len(view.obj) == 4 * PAGE
