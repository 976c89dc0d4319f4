"""A process that reads beside the writer for the whole of a soak: ``python -m … DIRECTORY``.

It opens the store for reading and refreshes without end, over every closing and reopening of the
writer. The sum of the accounts must always be the same. Each second it prints a line of JSON with
what it takes itself; it ends when its stdin does.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback

import kvstore
from tests.laboratory.soak.actors import ACCOUNTS, EACH, total
from tests.laboratory.soak.samples import own_resources

REOPEN_EVERY = 200  # refreshes


def main(directory):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    refreshes = 0
    told = 0.0
    try:
        while not ended.is_set():
            with kvstore.open(directory, "r", cache_bytes=4 << 20) as db:
                for _ in range(REOPEN_EVERY):
                    look(db)
                    refreshes += 1
                    if time.monotonic() - told >= 1:
                        told = time.monotonic()
                        tell(own_resources() | {"refreshes": refreshes})
                    if ended.wait(0.05):
                        break
    except BaseException:  # noqa: BLE001 - whatever it is, it is told of
        tell({"failure": traceback.format_exc()})


def tell(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def look(db):
    before = db.last_entry_id
    db.refresh()
    if db.last_entry_id < before:
        raise AssertionError(f"went back from entry {before} to {db.last_entry_id}")
    with db.snapshot() as snapshot:
        if total(snapshot) != ACCOUNTS * EACH:
            raise AssertionError(f"the accounts sum up to {total(snapshot)} beside the writer")


if __name__ == "__main__":
    main(sys.argv[1])
