"""The change feed: an index that is kept in step with a store, and goes on where it stopped.

The index is a store of its own here, as it might be any other system. Each commit of the books is
applied to it together with its entry id, in one batch: so nothing is missed and nothing done twice,
whenever the program is killed. Run it several times.

    python examples/change_feed.py [directory]
"""

from __future__ import annotations

import os
import sys
import threading

import kvstore

POSITION = b"position"


def write_books(db: kvstore.Store, run: bytes) -> None:
    """Some commits, from a thread of its own."""
    books = db.namespace(b"books", kvstore.JSON)
    books[b"1"] = {"author": "Woolf"}
    books[b"2"] = {"author": "Joyce"}
    db.put(b"unrelated", b"to the index")
    books[b"2"] = {"author": "Woolf"}
    del books[b"1"]
    db.put(b"run", run)


def apply(index: kvstore.Store, change: kvstore.Change) -> None:
    """What follows from a change for the index, and how far it has come, as one step."""
    with index.batch() as batch:
        for book, value in change.items if change.namespace == (b"books",) else ():
            for entry in index.keys(prefix=b"book/" + book + b"/"):
                batch.delete(entry)
            if value is not None:  # None: it was deleted
                author = kvstore.JSON.decode(value)["author"]
                batch.put(b"book/" + book + b"/" + author.encode(), b"")
        if change.completes:  # a commit may have several changes, one for each namespace
            batch.put(POSITION, b"%d" % change.entry_id)


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "feed"
    os.makedirs(path, exist_ok=True)
    books, indexed = os.path.join(path, "books.db"), os.path.join(path, "index.db")
    # What is retained bounds how long the index may be away; see ChangesLostError.
    with kvstore.open(books, retain_seconds=3600) as db, kvstore.open(indexed) as index:
        position, run = int(index.get(POSITION, b"0")), b"%d" % (int(db.get(b"run", b"0")) + 1)
        print(f"the index goes on behind entry {position}")
        writer = threading.Thread(target=write_books, args=(db, run))
        writer.start()
        commits = 0
        for change in db.changes(after=position, follow=True):  # waits for more
            apply(index, change)
            commits += 1
            if (b"run", run) in change.items:
                break
        writer.join()
        entries = [entry.decode() for entry in index.keys(prefix=b"book/")]
        print(f"{commits} commits later it has {entries}")


if __name__ == "__main__":
    main()
