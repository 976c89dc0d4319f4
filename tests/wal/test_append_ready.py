"""``append_ready``: as ``append``, but for who knows the chunks, which are not copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

import wal
from wal.files import MemoryFileSystem

FSYNC, WRITE, BUFFER = wal.Durability.FSYNC, wal.Durability.WRITE, wal.Durability.BUFFER
DURABILITIES = pytest.mark.parametrize("durability", [FSYNC, WRITE, BUFFER])


class Listener(wal.LogManager):
    """Keeps the chunks that the log tells of, and does something then."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.heard: list[Sequence[bytes]] = []
        self.then = then

    def recover(self, entry: wal.Entry) -> None:
        pass

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        pass

    def committed(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.heard.append(chunks)
        self.then()


def open_log(manager: wal.LogManager) -> wal.WriteAheadLog:
    return wal.Configuration("log", MemoryFileSystem(), preallocate_bytes=1 << 22).open(manager)


def size_of(chunks: tuple[bytes, ...]) -> int:
    return wal.framed_size(sum(map(len, chunks)), len(chunks))


@DURABILITIES
@pytest.mark.parametrize(
    "chunks", [(), (b"one",), (b"a", b"", b"c"), (bytes(300_000), b"x"), (b"x",) * 2000]
)
def test_is_what_append_does(chunks: tuple[bytes, ...], durability: wal.Durability) -> None:
    manager = Listener()
    with open_log(manager) as log:
        for _ in range(2):
            log.append_ready(chunks, size_of(chunks), durability)
        log.append(list(chunks))
        log.sync()
        read = [entry.read_all() for entry in log.entries()]
    assert read == [list(chunks)] * 3
    assert manager.heard[0] is chunks
    assert manager.heard[1] is chunks


@DURABILITIES
def test_a_hook_may_not_commit(durability: wal.Durability) -> None:
    def commit() -> None:
        for attempt in (log.append_ready, log.append, log.submit):
            with pytest.raises(wal.EntryStateError):
                attempt((b"again",), 100)  # type: ignore[arg-type,operator]
        with pytest.raises(wal.EntryStateError):
            log.begin_entry()
        with pytest.raises(wal.EntryStateError):
            log.sync()

    manager = Listener(commit)
    log = open_log(manager)
    for _ in range(2):
        log.append_ready((b"k", b"v"), 100, durability)
    manager.then = lambda: None
    log.append_ready((b"k", b"v"), 100, durability)
    log.shutdown()
    assert len(manager.heard) == 3


@DURABILITIES
def test_what_a_hook_raises(durability: wal.Durability) -> None:
    def fail() -> None:
        raise LookupError("no")

    manager = Listener()
    with open_log(manager) as log:
        log.append_ready((b"1",), 100, durability)
        manager.then = fail
        with pytest.raises(wal.CallbackError) as caught:
            log.append_ready((b"2",), 100, durability)
        assert caught.value.entry_id == 2
        assert isinstance(caught.value.__cause__, LookupError)
        manager.then = lambda: None
        assert log.append_ready((b"3",), 100, durability) == 3
        log.sync()
        assert [entry.read_all() for entry in log.entries()] == [[b"1"], [b"2"], [b"3"]]


def test_an_interrupt_in_the_hook_of_a_buffered_one_latches() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    manager = Listener()
    log = open_log(manager)
    log.append_ready((b"1",), 100, BUFFER)
    manager.then = interrupt
    with pytest.raises(KeyboardInterrupt):
        log.append_ready((b"2",), 100, BUFFER)
    manager.then = lambda: None
    with pytest.raises(wal.LogFailedError):
        log.append_ready((b"3",), 100, BUFFER)
    with pytest.raises(wal.LogFailedError):
        log.shutdown()


def test_decide_keeps_it_out() -> None:
    def refuse() -> None:
        raise LookupError("no")

    with open_log(Listener()) as log:
        for durability in (FSYNC, BUFFER, BUFFER):
            with pytest.raises(LookupError):
                log.append_ready((b"x",), 100, durability, refuse)
            log.append_ready((b"y",), 100, durability)
        assert log.last_entry_id == 3
