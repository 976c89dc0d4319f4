"""Several threads that write to one log, and what each was told of its entries."""

from __future__ import annotations

import threading
import time

import wal
from tests.wal.promises import BUFFER, WRITE, Keeper, end
from wal.files.faulty import PowerLoss

PATIENCE = 30.0
"""Seconds after which a thread is said to hang."""


class Writers:
    """Threads that write until the log refuses, each in its way, and what became of each entry."""

    def __init__(self, log, count, entries):
        self.log = log
        self.lock = threading.Lock()
        self.acknowledged = {}  # id -> chunks
        self.accepted = {}  # id -> chunks, where the id is known before the commit returns
        self.doubtful = []  # chunks of commits that raised the latch
        self.refused = []  # chunks of commits that failed alone
        self.latches = []
        self.strange = []
        self._entries = entries
        self.threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(count)
        ]

    def run(self):
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self.threads), "a writer hangs"
        assert not self.strange, self.strange

    def _run(self, number):
        ways = (self._append, self._submit, self._stream, self._append_lightly)
        write = ways[number % len(ways)]
        for count in range(self._entries):
            chunks = [b"%d/%d" % (number, count) * 20, b"x" * (count % 7)]
            try:
                entry_id = write(chunks)
            except (wal.LogFailedError, PowerLoss) as latch:
                with self.lock:
                    self.latches.append(latch)
                    self.doubtful.append(chunks)
                return
            except (wal.SegmentAllocationError, wal.CheckpointError):
                with self.lock:
                    self.refused.append(chunks)
            except BaseException as error:  # noqa: BLE001 - the test is told
                self.strange.append(error)
                return
            else:
                with self.lock:
                    self.accepted[entry_id] = chunks
                    if write != self._append_lightly:
                        self.acknowledged[entry_id] = chunks

    def _append(self, chunks):
        return self.log.append(chunks)

    def _append_lightly(self, chunks):
        return self.log.append(chunks, durability=WRITE if len(chunks[1]) % 2 else BUFFER)

    def _submit(self, chunks):
        ticket = self.log.submit(chunks)
        with self.lock:
            self.accepted[ticket.entry_id] = chunks
        return ticket.wait(PATIENCE)

    def _stream(self, chunks):
        with self.log.begin_entry() as entry:
            for chunk in chunks:
                entry.write_chunk(chunk)
            return entry.commit()

    def check(self, found):
        """Hold (id, chunks) found after reopening against what the writers were told."""
        ids = [entry_id for entry_id, _ in found]
        assert ids == sorted(set(ids))
        last = max(ids, default=0)
        contents = dict(found)
        for entry_id, chunks in self.acknowledged.items():
            assert contents.get(entry_id) == chunks, f"acknowledged entry {entry_id}"
        for entry_id, chunks in self.accepted.items():
            if entry_id <= last:
                assert contents.get(entry_id) == chunks, f"entry {entry_id}, before {last}"
        possible = [*self.accepted.values(), *self.doubtful]
        assert all(chunks in possible for chunks in contents.values()), "nobody wrote that"


def write_from_many(system, *, count=4, entries=14, stop_after=None):
    """Writers over a system with a slow disk; they, the log's manager, and the log.

    The power is lost ``stop_after`` calls after the opening.
    """

    def slow(kind, path, number):
        if kind == "sync":
            time.sleep(0.0005)  # so that others gather meanwhile

    system.on_call = slow
    manager = Keeper([])
    configuration = wal.Configuration(
        "log",
        file_system=system,
        preallocate_bytes=4096,
        flush_interval=0.002,
        keep_free_segments=1,
    )
    try:
        log = configuration.open(manager)
    except OSError:
        log = configuration.open(manager)  # the second attempt must succeed
    if stop_after is not None:
        system.stop_at(len(system.calls) + stop_after)
    writers = Writers(log, count, entries)
    writers.run()
    return writers, manager, log


def finish_in_time(log):
    """Shut down, with a watchdog; the error that it raised."""
    raised = []

    def shut_down():
        raised.append(end(log))

    thread = threading.Thread(target=shut_down, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "shutdown hangs"
    return raised[0]


def found_in(system, store):
    manager = Keeper([*store])
    log = wal.Configuration("log", file_system=system, preallocate_bytes=4096).open(manager)
    log.shutdown()
    return sorted(dict([*store, *manager.recovered]).items())
