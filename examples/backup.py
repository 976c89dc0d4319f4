"""Backups: while a thread goes on writing, then once more with what is new, then restored.

python examples/backup.py [directory]
"""

from __future__ import annotations

import os
import shutil
import sys
import threading

import kvstore


def write(db: kvstore.Store, stop: threading.Event, first_done: threading.Event) -> None:
    """Pairs of keys that always have the same value."""
    number = 0
    while not stop.is_set() or not number:
        number += 1
        db.write({b"left": b"%d" % number, b"right": b"%d" % number})
        first_done.set()


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "backups"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    store, backup, restored = (os.path.join(path, name) for name in ("db", "backup", "restored"))

    with kvstore.open(store) as db:
        db.write({b"item/%05d" % n: b"x" * 100 for n in range(10_000)})
        stop, first_done = threading.Event(), threading.Event()
        writer = threading.Thread(target=write, args=(db, stop, first_done))
        writer.start()
        first_done.wait()
        db.backup(backup)  # nobody has to wait for it
        first = set(os.listdir(os.path.join(backup, "tables")))
        db.put(b"item/late", b"")
        db.backup(backup)  # brings what is new
        second = set(os.listdir(os.path.join(backup, "tables")))
        stop.set()
        writer.join()
        print(f"{len(first & second)} of {len(second)} tables were there already")

    report = kvstore.verify(backup)
    print(f"up to entry {report.last_entry_id} it is {'sound' if report.ok else 'damaged'}")
    with kvstore.open(backup, "r") as copy:  # it may be read, and stays a backup
        agree = copy[b"left"] == copy[b"right"]
        print(f"{copy.count(prefix=b'item/')} items, and the pair agrees: {agree}")

    # To restore, open a copy: what is opened for writing becomes a store of its own.
    shutil.copytree(backup, restored)
    with kvstore.open(restored, "w") as db:
        db.put(b"item/new", b"")
        print(f"restored, and written to: {db.count(prefix=b'item/')} items")


if __name__ == "__main__":
    main()
