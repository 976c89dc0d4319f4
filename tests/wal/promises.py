"""What a caller of a log was promised, and a caller that checks it at every opening.

:class:`Known` is the caller's memory: the entries that it wrote, in order, and how many of them
were acknowledged. :class:`Keeper` is a LogManager whose own store is durable the moment
``checkpoint_to`` returns. :class:`Caller` writes through a log, one thread, and remembers; whatever
it opens is held against what it knows.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import wal
from wal.files.faulty import PowerLoss
from wal.segments import format as fmt
from wal.segments.reader import FrameSource

FSYNC, WRITE, BUFFER = wal.Durability.FSYNC, wal.Durability.WRITE, wal.Durability.BUFFER

SMALL = {
    "preallocate_bytes": 4096,
    "buffer_bytes": 4096,
    "flush_interval": 3600.0,  # the flusher does nothing of its own accord
    "keep_free_segments": 1,
}
"""Segments of a few entries, so that a short history rotates and recycles."""


@dataclass
class Written:
    """An entry that the log was given; ``id`` is None where the commit did not say it."""

    chunks: list[bytes]
    id: int | None = None


@dataclass
class Known:
    """What the caller knows. The store is part of it: it survives every crash."""

    written: list[Written] = field(default_factory=list)  # in the order of their ids
    acknowledged: int = 0  # so many of them survive anything
    highest_id: int = 0
    store: list[tuple[int, list[bytes]]] = field(default_factory=list)
    archive: dict[int, list[bytes]] = field(default_factory=dict)  # survives every crash, too
    serial: int = 0

    def copy(self):
        written = [Written(each.chunks, each.id) for each in self.written]
        store, archive = [*self.store], dict(self.archive)
        return Known(written, self.acknowledged, self.highest_id, store, archive, self.serial)

    def fresh(self, size):
        """Bytes that no other chunk has: each repeats a number of its own."""
        self.serial += 1
        return (b"%d;" % self.serial * (size // 2 + 1))[:size]

    def given(self, entry_id):
        """Note an id. None is ever given out twice, whatever became of the entry."""
        assert entry_id > self.highest_id, f"id {entry_id} after {self.highest_id}"
        self.highest_id = entry_id

    def check(self, recovered):
        """Hold what an opening showed, together with the store, against what was written."""
        ids = [entry_id for entry_id, _ in recovered]
        assert ids == sorted(set(ids)), f"ids out of order: {ids}"
        found = dict(self.store)
        for entry_id, chunks in recovered:
            assert found.setdefault(entry_id, chunks) == chunks, f"entry {entry_id} differs"
        assert len(found) >= self.acknowledged, (
            f"{len(found)} entries of {self.acknowledged} acknowledged ones: "
            f"stored {[i for i, _ in self.store]}, recovered {ids}"
        )
        assert len(found) <= len(self.written), "entries that nobody committed"
        for (entry_id, chunks), written in zip(sorted(found.items()), self.written, strict=False):
            assert written.id in (None, entry_id)
            assert chunks == written.chunks, f"entry {entry_id} is not what was written"
        self.written = [Written(chunks, entry_id) for entry_id, chunks in sorted(found.items())]
        self.acknowledged = len(self.written)  # what is shown is durable
        self.highest_id = max([self.highest_id, *found])

    def check_beside(self, recovered):
        """Hold what a read-only opening showed against what was written: a prefix, and no more."""
        found = dict(self.store)
        found.update(recovered)
        assert [entry_id for entry_id, _ in recovered] == sorted(
            entry_id for entry_id, _ in recovered
        )
        expected = [each.chunks for each in self.written[: len(found)]]
        assert [chunks for _, chunks in sorted(found.items())] == expected

    def check_partly(self, recovered):
        """Note what an opening showed that a crash cut short: it must still be there later."""
        ids = [entry_id for entry_id, _ in recovered]
        assert ids == sorted(set(ids)), f"ids out of order: {ids}"
        checkpointed = self.store[-1][0] if self.store else 0
        shown = len(self.store) + sum(entry_id > checkpointed for entry_id in ids)
        self.acknowledged = max(self.acknowledged, shown)


class Keeper(wal.LogManager):
    """Keeps all that it is handed; ``store`` is durable when ``checkpoint_to`` returns.

    Given a system, it reads the segments that are to be archived, and keeps their entries.
    """

    def __init__(self, store, archive=None, system=None):
        self.store = store
        self.recovered = []
        self.archived = []
        self._archive = {} if archive is None else archive
        self._system = system

    def recover(self, entry):
        self.recovered.append((entry.id, entry.read_all()))

    def checkpoint_to(self, last_id, entries, log):
        new = [(entry.id, entry.read_all()) for entry in entries]
        assert new
        assert new[-1][0] == last_id
        have = self.store[-1][0] if self.store else 0
        self.store.extend(each for each in new if each[0] > have)

    def archive(self, segment):
        assert segment.last_id <= self.store[-1][0], "archived before its checkpoint"
        self.archived.append(segment.segment_id)
        if self._system is not None:
            copied = dict(read_segment(self._system, segment.path))
            assert max(copied) == segment.last_id
            assert copied.items() <= dict(self.store).items()
            self._archive.update(copied)


def read_segment(system, path):
    """The entries of a segment's file, read without the log."""
    file = system.open(path, writable=False)
    try:
        header = fmt.decode_header(path, file.read_at(0, fmt.MAX_HEADER_BYTES))
        source = FrameSource(file, path, header)
        after = header.previous_last_id
        for frame in source.frames(header.size, file.size(), after):
            for entry in frame.entries():
                yield entry.id, entry.read_all()
    finally:
        file.close()


class Caller:
    """One thread that writes through a log and knows what it was promised."""

    def __init__(self, system, known=None, **options):
        self.system = system
        self.known = Known() if known is None else known
        self.options = {**SMALL, **options}
        self.log = None
        self.manager = None

    def open(self):
        """Open the log, and check what it shows."""
        self.manager = Keeper(self.known.store, self.known.archive, self.system)
        stored = [*self.known.store]
        try:
            configuration = wal.Configuration("log", file_system=self.system, **self.options)
            self.log = configuration.open(self.manager)
        except BaseException:
            self.known.check_partly(self.manager.recovered)
            raise
        assert self.known.store[: len(stored)] == stored
        self.known.check(self.manager.recovered)
        return self

    def append(self, *sizes, durability=FSYNC):
        """Commit an entry of chunks of these sizes."""
        with self._attempt(sizes, durability) as written:
            written.id = self.log.append(written.chunks, durability=durability)
        self.known.given(written.id)

    def submit(self, *sizes, durability=FSYNC):
        """Submit an entry; the ticket tells its id at once."""
        written = Written([self.known.fresh(size) for size in sizes])
        ticket = self.log.submit(written.chunks, durability=durability)
        written.id = ticket.entry_id
        self.known.given(written.id)
        self.known.written.append(written)
        return ticket

    def wait_for(self, tickets):
        for ticket in tickets:
            ticket.wait(30)
        self.known.acknowledged = len(self.known.written)

    def stream(self, *sizes, durability=FSYNC):
        """Commit an entry chunk by chunk, every second one in pieces."""
        with self._attempt(sizes, durability) as written, self._entry() as entry:
            written.id = entry.id
            for number, chunk in enumerate(written.chunks):
                self._write(entry, chunk, in_pieces=number % 2)
            entry.commit(durability)

    def roll_back(self, *sizes):
        """Write an entry's chunks and take them back."""
        with self._entry() as entry:
            for size in sizes:
                self._write(entry, self.known.fresh(size), in_pieces=size % 2)
            entry.rollback()

    def sync(self):
        self.log.sync()
        self.known.acknowledged = len(self.known.written)

    def checkpoint(self):
        self.log.checkpoint_active(wait=True)
        self.known.acknowledged = len(self.known.written)
        assert len(self.known.store) == len(self.known.written)

    def close(self):
        self.log.shutdown()
        self.known.acknowledged = len(self.known.written)

    def give_up(self):
        """End a log whose power is gone, or that has latched."""
        if self.log is not None:
            self.known.highest_id = max(self.known.highest_id, self.log.last_entry_id)
            end(self.log)

    @contextlib.contextmanager
    def _entry(self):
        with self.log.begin_entry() as entry:
            self.known.given(entry.id)
            yield entry

    @contextlib.contextmanager
    def _attempt(self, sizes, durability):
        written = Written([self.known.fresh(size) for size in sizes])
        self.known.written.append(written)
        try:
            yield written
        except (wal.SegmentAllocationError, wal.CheckpointError):
            self.known.written.pop()  # an error of this commit alone: it was never accepted
            raise
        if durability is FSYNC:
            self.known.acknowledged = len(self.known.written)

    def _write(self, entry, chunk, *, in_pieces):
        if not in_pieces:
            return entry.write_chunk(chunk)
        third = len(chunk) // 3
        with entry.begin_chunk(len(chunk)) as writer:
            for piece in (chunk[:third], chunk[third : 2 * third], chunk[2 * third :]):
                writer.write(piece)
        return writer.record


def end(log):
    """Shut down a log whose power may be gone; the error that it raised.

    Where the power goes during the shutdown itself, that is an interrupt, and it is called again.
    """
    try:
        log.shutdown()
    except PowerLoss:
        return end(log)
    except wal.WalError as error:
        return error
    return None


def look_beside(known, system):
    """Open a log read-only, if there is one, and check what it shows."""
    if system.exists("log"):
        manager = Keeper([])
        wal.Configuration("log", file_system=system, read_only=True).open(manager).shutdown()
        known.check_beside(manager.recovered)


def examine(known, system, label, **options):
    """Open what a crash left, hold it against what is known, go on in it, and open it again."""
    caller = Caller(system, known.copy(), **options)
    try:
        look_beside(known, system)
        caller.open()
        caller.append(30)
        caller.close()
        caller.open()
        caller.stream(20, 5)
        caller.close()
        assert dict(caller.known.store).items() <= caller.known.archive.items(), "not archived"
    except BaseException as error:
        raise AssertionError(f"{label}: {error!r}") from error
