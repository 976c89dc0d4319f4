"""The last word on an entry (``decide``), and the hooks that hear of entries in flight."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

import wal
from wal.files import MemoryFileSystem

FSYNC, WRITE, BUFFER = wal.Durability.FSYNC, wal.Durability.WRITE, wal.Durability.BUFFER


class Listener(wal.LogManager):
    """Notes what the log tells of appended entries."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, list[bytes]]] = []

    def recover(self, entry: wal.Entry) -> None:
        pass

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        pass

    def accepted(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.told.append(("accepted", entry_id, list(chunks)))

    def committed(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.told.append(("committed", entry_id, list(chunks)))


def open_log(manager: wal.LogManager | None = None) -> wal.WriteAheadLog:
    files = MemoryFileSystem()
    return wal.Configuration("log", files, preallocate_bytes=1 << 16).open(
        manager if manager is not None else wal.LogVoid()
    )


@pytest.mark.parametrize("size", [10, 300_000], ids=["grouped", "streamed"])
@pytest.mark.parametrize("durability", [FSYNC, WRITE, BUFFER])
def test_what_decide_raises_keeps_the_entry_out(size: int, durability: wal.Durability) -> None:
    def refuse() -> None:
        raise LookupError("no")

    with open_log() as log:
        log.append([b"before"])
        with pytest.raises(LookupError):
            log.append([bytes(size)], durability=durability, decide=refuse)
        with pytest.raises(LookupError):
            log.submit([bytes(size)], durability=durability, decide=refuse)
        log.append([b"after"])
        assert [entry.read_all() for entry in log.entries()] == [[b"before"], [b"after"]]


@pytest.mark.parametrize("size", [10, 300_000], ids=["grouped", "streamed"])
def test_nobody_comes_between_decide_and_the_id(size: int) -> None:
    """Each entry is decided on with all earlier ones told, so the sum below cannot lose one."""
    total, seen, accepted = 32, [], []

    class Counter(Listener):
        def accepted(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
            accepted.append(entry_id)

    with open_log(Counter()) as log:
        threads = [
            threading.Thread(
                target=log.append,
                args=([bytes(size)],),
                kwargs={"decide": lambda: seen.append(len(accepted))},
            )
            for _ in range(total)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == list(range(total))


def test_accepted_comes_before_committed_and_only_for_what_waits() -> None:
    manager = Listener()
    with open_log(manager) as log:
        first = log.append([b"a"], durability=FSYNC)
        second = log.append([b"b"], durability=BUFFER)
    assert manager.told == [
        ("accepted", first, [b"a"]),
        ("committed", first, [b"a"]),
        ("committed", second, [b"b"]),
    ]


def test_an_open_entry_tells_when_it_is_accepted() -> None:
    calls: list[str] = []
    with open_log() as log:
        for durability in (FSYNC, BUFFER):
            with log.begin_entry() as entry:
                entry.write_chunk(b"x")
                entry.commit(
                    durability,
                    on_commit=lambda entry_id, segment_id: calls.append("committed"),
                    on_accept=lambda: calls.append("accepted"),
                )
    assert calls == ["accepted", "committed", "committed"]


def test_a_hook_that_fails_latches() -> None:
    """What the owner keeps of entries in flight would be out of step with the log."""

    class Broken(Listener):
        def accepted(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
            raise ZeroDivisionError

    log = open_log(Broken())
    with pytest.raises(ZeroDivisionError):
        log.append([b"x"])
    with pytest.raises(wal.LogFailedError):
        log.append([b"y"])
    with pytest.raises(wal.LogFailedError):
        log.shutdown()


def test_a_read_only_log_takes_no_decision() -> None:
    files = MemoryFileSystem()
    with wal.Configuration("log", files).open(wal.LogVoid()) as log:
        log.append([b"x"])
    reading = wal.Configuration("log", files, read_only=True)
    with reading.open(wal.LogVoid()) as reader, pytest.raises(wal.ReadOnlyLogError):
        reader.append([b"y"], decide=lambda: None)
