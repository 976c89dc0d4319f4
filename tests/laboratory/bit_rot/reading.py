"""Reading a store in every way there is, and holding each answer against what it should be.

Whatever is neither the right answer nor a documented error is raised as :class:`WrongError`.
"""

from __future__ import annotations

from contextlib import suppress

import kvstore
from tests.laboratory.bit_rot.lives import ABSENT, CODECS, KEYS, LARGE, place_in
from wal.files import MemoryFileSystem

#: What damage may raise, whatever is read.
DAMAGE = (kvstore.CorruptStoreError, kvstore.FormatVersionError)
MISSING = object()


class WrongError(AssertionError):
    """Silently other data, or an error that nothing says may come."""


class Reading:
    """All reads of one open store: ``damage`` has the documented errors that were met."""

    def __init__(self, left, db):
        self.left = left
        self.db = db
        self.damage = []

    def read(self, *expected_ids):
        """Read everything; the store must be as it was after one of these entries."""
        last_id = self.db.last_entry_id
        self.check("last_entry_id", lambda: last_id in expected_ids, True)
        if last_id not in expected_ids:
            raise WrongError(f"it is as of entry {last_id}, not one of {sorted(expected_ids)}")
        state = self.left.states[last_id]
        for names in CODECS:
            self.read_namespace(names, state[names])
        self.read_changes(last_id)
        return self

    def check(self, what, read, expected):
        """One reading: right, or damage."""
        try:
            found = read()
        except DAMAGE as error:
            self.damage.append(error)
        except Exception as error:
            raise WrongError(f"{what}: {error!r}") from error
        else:
            if found != expected:
                raise WrongError(f"{what}: {shortened(found)} instead of {shortened(expected)}")

    def read_namespace(self, names, held):
        check = self.check
        try:
            db = place_in(self.db, names)
        except DAMAGE as error:
            self.damage.append(error)
            return
        items = sorted(held.items())
        get = db.get
        for key in [*KEYS, *LARGE, *ABSENT]:
            check(f"get {key!r}", lambda key=key: get(key, MISSING), held.get(key, MISSING))
        check("scan", lambda: [*db.scan()], items)
        check("scan back", lambda: [*db.scan(reverse=True)], items[::-1])
        check(
            "scan of a prefix",
            lambda: [*db.scan(prefix=b"key-01")],
            [item for item in items if item[0].startswith(b"key-01")],
        )
        some = sum(b"key-01" <= key < b"key-02" for key in held)
        check("count", lambda: db.count(b"key-01", b"key-02"), some)
        later = [key for key in sorted(held) if b"key-020" <= key < b"l"]
        check("keys", lambda: [*db.keys(b"key-020", b"l")], later)
        some = [LARGE[0], b"key-001", b"absent"]
        check("get_many", lambda: db.get_many(some), [held.get(key) for key in some])
        if not names:
            with self.db.snapshot() as snap:
                check("a snapshot", lambda: [*snap.values()], [value for _, value in items])

    def read_changes(self, last_id):
        """All changes that are kept: the end of all there were, without a gap."""
        expected = [
            (entry_id, names, len(items))
            for entry_id, names, items in self.left.changes
            if entry_id <= last_id
        ]
        try:
            found = [(each.entry_id, each.namespace, len(each.items)) for each in self.db.changes()]
        except DAMAGE as error:
            self.damage.append(error)
        except kvstore.ChangesLostError as error:
            if "retain_bytes" in self.left.options:  # else a checkpoint may come meanwhile
                raise WrongError(f"changes: {error!r}") from error
        except Exception as error:
            raise WrongError(f"changes: {error!r}") from error
        else:
            lost = not found and "retain_bytes" in self.left.options
            if lost or found != expected[len(expected) - len(found) :]:
                raise WrongError(f"changes: {shortened(found)} instead of {shortened(expected)}")


def shortened(value):
    text = repr(value)
    return text if len(text) < 300 else text[:300] + " ..."


def open_and_read(left, files, flag, *expected_ids):
    """Open what the files hold and read all: the damage that was met, and what was changed."""
    system = MemoryFileSystem(files)
    before = system.contents()
    try:
        db = kvstore.open(left.root, flag, file_system=system, **left.options)
    except DAMAGE as error:
        check_untouched(before, system.contents(), error)
        return [error], None
    except Exception as error:
        if str(error).endswith("a backup that was not completed: repeat it"):
            return [error], None
        raise WrongError(f"open {flag!r}: {error!r}") from error
    try:
        return Reading(left, db).read(*expected_ids).damage, system
    finally:
        with suppress(kvstore.StoreError):
            db.close()


def check_untouched(before, after, error):
    """An opening that failed has changed nothing."""
    for path in before.keys() | after.keys():
        if not path.endswith("LOCK") and before.get(path) != after.get(path):
            raise WrongError(f"{path} was changed by an opening that failed: {error}")
