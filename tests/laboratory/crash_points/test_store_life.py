"""That the store's workload is what the crash points need: complete, and the same in each run.

The campaigns prove nothing about what the workload leaves out. So what it covers is asserted here:
by the calls that it makes, by the names that files have meanwhile, and by what the store tells of
itself. And each crash point is told by the number of a call, so two runs must make the same calls.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.laboratory.crash_points.store_campaign import Campaign
from tests.laboratory.crash_points.store_life import BACKUP, STORE
from wal.files.faults import CHANGES

pytestmark = pytest.mark.usefixtures("small_files")


def calls_of(photographs):
    return [photograph.call for photograph in photographs]


def test_two_lives_make_the_same_calls(turns, chance):
    campaign = Campaign(turns, chance)
    first, second = (calls_of(campaign.live()[1]) for _ in range(2))
    assert first == second


#: What the calls must tell of. A name changes from one life of a file to the next.
COVERED = {
    "rotation": r"rename /s/wal/free-\d+ to wal-",
    "recycling": r"rename /s/wal/wal-\d+ to free-",
    "more spare files than are kept": r"remove /s/wal/wal-",
    "a spare file made ahead of need": r"allocate /s/wal/free-\d+ 4096",
    "a segment that an entry outgrows": r"allocate /s/wal/(free|wal)-\d+ (?!4096\))\d+",
    "a longer file cut to a spare": r"truncate /s/wal/free-",
    "retention": r"rename /s/wal/wal-\d+ to kept-",
    "the end of retention": r"rename /s/wal/kept-\d+-\d+ to free-|remove /s/wal/kept-",
    "checkpoints": r"rename /s/tables/tmp-\S+ to \d+\.table",
    "the log's marker": r"write_at /s/wal/CHECKPOINT",
    "the manifest's swap": r"rename /s/MANIFEST.new to MANIFEST",
    "replaced tables": r"remove /s/tables/\d+\.table",
    "a table that failed": r"remove /s/tables/tmp-",
    "a backup's tables": r"link /s/tables/\d+\.table to /?b?/?",
    "a backup's mark": r"rename /b/BACKUP.new to BACKUP",
    "a backup that becomes a store": r"remove /b/BACKUP\)",
    "the log of that store": r"create /b/wal/CHECKPOINT",
    "flag n": r"remove /s/wal/CHECKPOINT",
}


def without_directories(call):
    """``rename a/b to a/c`` as ``rename a/b to c``."""
    return re.sub(r" to \S*/", " to ", call)


def test_what_the_life_covers(turns, chance):
    life, photographs = Campaign(turns, chance).live()
    calls = [without_directories(call) for call in calls_of(photographs)]
    missing = {what for what, made in COVERED.items() if not any(re.search(made, c) for c in calls)}
    assert not missing
    assert {call.split("(")[1].split(" ")[0] for call in calls} >= CHANGES
    assert life.merges >= 2
    assert life.replayed > 0
    assert life.checkpoint_bytes > 0
    assert life.known[STORE].acknowledged == life.known[STORE].begun > 40
    assert life.known[BACKUP].floor == 0
    assert life.known[BACKUP].acknowledged == life.known[BACKUP].begun > 2
    assert not life.failures

    # The snapshot pins tables while those that replace them are there already.
    most = max(
        sum(path.endswith(".table") for path in names_of(photograph)) for photograph in photographs
    )
    last = sum(path.endswith(".table") for path in names_of(photographs[-1]))
    assert most > last


def names_of(photograph):
    tables = os.path.join(STORE, "tables")
    system = photograph.system.inner
    return system.list(tables) if system.exists(tables) else []
