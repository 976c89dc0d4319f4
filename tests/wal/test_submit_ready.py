"""``submit_ready``: some entries in one step, each an entry of its own; or None and nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence

import pytest

import wal
from tests.wal.support import PATIENCE
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem

FSYNC, WRITE, BUFFER = wal.Durability.FSYNC, wal.Durability.WRITE, wal.Durability.BUFFER


class Heard(wal.LogVoid):
    """Keeps what the hooks are told."""

    def __init__(self) -> None:
        self.accepts: list[tuple[int, Sequence[bytes]]] = []
        self.commits: list[tuple[int, Sequence[bytes]]] = []
        self.fails = False

    def accepted(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.accepts.append((entry_id, chunks))

    def committed(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.commits.append((entry_id, chunks))
        if self.fails:
            raise LookupError("no")


def open_log(
    manager: wal.LogManager, files: wal.files.FileSystem | None = None
) -> wal.WriteAheadLog:
    files = files or MemoryFileSystem()
    return wal.Configuration("log", files, preallocate_bytes=1 << 20).open(manager)


def entries_of(tag: bytes, count: int, value: bytes = b"") -> wal.Entries:
    return wal.Entries((tag, b"%d" % n, value) for n in range(count))


def size_of(entries: Iterable[Sequence[bytes]]) -> tuple[int, int]:
    sizes = [wal.framed_size(sum(map(len, each)), len(each)) for each in entries]
    return sum(sizes), sum(map(len, entries))


@pytest.mark.parametrize("durability", [FSYNC, WRITE, BUFFER])
def test_each_is_an_entry_and_the_hooks_hear_of_all_at_once(durability: wal.Durability) -> None:
    manager = Heard()
    with open_log(manager) as log:
        log.append([b"before"])
        entries = entries_of(b"x", 100)
        ticket = log.submit_ready(entries, *size_of(entries), durability)
        assert ticket is not None
        assert ticket.wait(PATIENCE) == ticket.entry_id == 101
        log.append([b"after"])
        read = {entry.id: entry.read_all() for entry in log.entries()}
    assert read == {1: [b"before"], **dict(enumerate(map(list, entries), 2)), 102: [b"after"]}
    assert manager.commits[1][0] == 101
    assert manager.commits[1][1] is entries
    if durability is not BUFFER:  # which with nothing in flight is complete at once
        assert manager.accepts[1][0] == 101
        assert manager.accepts[1][1] is entries


def test_many_threads_and_segments_leave_nothing_out() -> None:
    manager = Heard()
    with open_log(manager) as log:

        def submit(tag: bytes) -> None:
            for n in range(40):
                entries = entries_of(tag + b"%d" % n, 1 + n * 7 % 50, bytes(900))
                ticket = log.submit_ready(entries, *size_of(entries))
                if n % 3 == 0:
                    assert ticket is not None
                    ticket.wait(PATIENCE)
                log.append((tag, b"alone"))

        threads = [threading.Thread(target=submit, args=(b"t%d-" % n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.sync()
        told: list[tuple[int, tuple[bytes, ...]]] = []
        for last_id, item in manager.commits:
            if isinstance(item, wal.Entries):
                told += enumerate(item, last_id - len(item) + 1)
            else:
                told.append((last_id, tuple(item)))
        ids = [entry_id for entry_id, _ in told]
        assert ids == sorted(ids)
        assert len(ids) == 4 * (40 + sum(1 + n * 7 % 50 for n in range(40)))
        kept = {entry.id: tuple(entry.read_all()) for entry in log.entries()}
        assert kept
        assert kept.items() <= dict(told).items()


def test_none_while_it_would_have_to_wait() -> None:
    manager = Heard()
    with open_log(manager) as log:
        entries = entries_of(b"x", 3)
        tried: list[object] = []

        def attempt() -> None:
            tried.append(log.submit_ready(entries, *size_of(entries), wait=False))

        with log.begin_entry() as entry:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
            entry.write_chunk(b"open")
        assert tried == [None]
        ticket = log.submit_ready(entries, *size_of(entries), wait=False)
        assert ticket is not None
        assert ticket.wait(PATIENCE) == 4
    assert [entry_id for entry_id, _ in manager.accepts] == [4]


def test_what_is_not_for_one_group_is_refused() -> None:
    with open_log(Heard()) as log:
        for entries in (wal.Entries(), entries_of(b"x", 300, bytes(1000))):
            with pytest.raises(ValueError, match="one group"):
                log.submit_ready(entries, *size_of(entries))
        assert log.last_entry_id == 0


def test_what_a_hook_raises_is_the_tickets_error() -> None:
    manager = Heard()
    with open_log(manager) as log:
        manager.fails = True
        entries = entries_of(b"x", 3)
        ticket = log.submit_ready(entries, *size_of(entries))
        assert ticket is not None
        with pytest.raises(wal.CallbackError):
            ticket.wait(PATIENCE)
        manager.fails = False
        assert log.append([b"on it goes"]) == 4


def test_a_failed_sync_fails_all_of_them() -> None:
    files = FaultyFileSystem()
    log = open_log(Heard(), files)
    files.fail(errno.EIO, kinds="sync")
    entries = entries_of(b"x", 3)
    ticket = log.submit_ready(entries, *size_of(entries))
    assert ticket is not None
    with pytest.raises(wal.LogFailedError):
        ticket.wait(PATIENCE)
    with pytest.raises(wal.LogFailedError):
        log.submit_ready(entries, *size_of(entries))
    with pytest.raises(wal.LogFailedError):
        log.shutdown()


def test_a_log_open_for_reading_refuses() -> None:
    files = MemoryFileSystem()
    open_log(Heard(), files).shutdown()
    with (
        wal.Configuration("log", files, read_only=True).open(Heard()) as log,
        pytest.raises(wal.ReadOnlyLogError),
    ):
        log.submit_ready(entries_of(b"x", 1), 100, 3)
