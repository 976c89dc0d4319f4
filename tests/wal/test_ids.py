"""Entry ids are never given out twice, also where the log has to make room for more of them."""

from __future__ import annotations

import wal


def test_no_id_beyond_the_limit_of_a_durable_header_is_given_out():
    """Ids were given out for a segment that was planned and not activated yet.

    Rolled-back entries used up the ids of the active segment; a buffered commit then got the first
    one of its successor, of which nothing was on the disk, and after a kill it was given out again.
    """
    files = wal.files.MemoryFileSystem()
    configuration = wal.Configuration(
        "log", file_system=files, preallocate_bytes=4096, flush_interval=3600
    )
    log = configuration.open(wal.LogVoid())
    log.append([b"first"])
    limit = 1 + (1 << 16)
    for _ in range(limit - 2):
        log.begin_entry().rollback()
    last = log.append([b"buffered"], durability=wal.Durability.BUFFER)
    assert last == limit
    killed = wal.Configuration("log", file_system=files.copy(), preallocate_bytes=4096)
    with killed.open(wal.LogVoid()) as reopened:
        assert reopened.append([b"next"]) > last
    log.shutdown()
