"""The engines that are damaged side by side: each makes a store, and later reads all of it.

What they hold is the same: some items that were moved to where the engine keeps them for good, and
as many that were committed after that, each by itself and synced. ``read`` yields answers, each a
name, what was found and what should be; whatever it raises is an error that the engine has told.
"""

from __future__ import annotations

import os
import shutil
import sqlite3

ITEMS = {b"key-%06d" % n: b"%06d:" % n + bytes([97 + n % 26]) * 90 for n in range(400)}
EARLY = dict([*ITEMS.items()][::2])
LATE = dict([*ITEMS.items()][1::2])
ABSENT = [b"", b"key-", b"key-000100x", b"zzz"]


class Engine:
    """One way to use an engine. ``closes``: whether it is closed before its files are taken."""

    closes = True

    def make(self, path):
        """A store with all items at this path; its files are those at ``path`` afterwards."""
        database = self.open(path)
        self.put(database, EARLY)
        self.settle(database)
        for key, value in LATE.items():
            self.put(database, {key: value})
        if self.closes:
            self.close(database)
        else:
            shutil.copytree(path, path + "-taken")

    def read(self, path):
        """Every answer: what was asked, what was found, what is right."""
        database = self.open(path)
        yield from self.check(database)
        for key, value in [*ITEMS.items(), *((key, None) for key in ABSENT)]:
            yield key, self.get(database, key), value
        yield "scan", dict(self.scan(database)), ITEMS

    def check(self, database):
        """What the engine has for looking whether it is sound; raises where it is not."""
        return ()

    def settle(self, database):
        """Move everything to where it stays."""

    def close(self, database):
        database.close()


class Kvstore(Engine):
    name = "kvstore (closed)"
    package = "kvstore"

    def open(self, path):
        import kvstore

        options = {
            "memtable_bytes": 256 << 10,
            "processes": False,
        }  # so that it makes no table by itself
        return kvstore.open(path, file_system=None, **options)

    def put(self, database, items):
        database.write(items)

    def settle(self, database):
        database.checkpoint()

    def get(self, database, key):
        return database.get(key)

    def scan(self, database):
        return database.scan()


class KvstoreKilled(Kvstore):
    name = "kvstore (killed)"
    closes = False


class KvstoreVerified(KvstoreKilled):
    name = "kvstore (killed) + verify"

    def read(self, path):
        import kvstore

        report = kvstore.verify(path)
        if not report.ok:
            raise RuntimeError(str(report))
        return super().read(path)


class Sqlite(Engine):
    name = "sqlite3 (checkpointed)"
    package = "sqlite3"
    checks = False

    def open(self, path):
        os.makedirs(path, exist_ok=True)
        database = sqlite3.connect(os.path.join(path, "items.db"), isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS items (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
        )
        return database

    def put(self, database, items):
        database.execute("BEGIN")
        database.executemany("REPLACE INTO items VALUES (?, ?)", items.items())
        database.execute("COMMIT")

    def settle(self, database):
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def check(self, database):
        if self.checks:
            found = database.execute("PRAGMA integrity_check").fetchall()
            if found != [("ok",)]:
                raise RuntimeError(found)
        return ()

    def get(self, database, key):
        row = database.execute("SELECT v FROM items WHERE k = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def scan(self, database):
        return database.execute("SELECT k, v FROM items ORDER BY k")


class SqliteChecked(Sqlite):
    name = "sqlite3 (checkpointed) + integrity_check"
    checks = True


class SqliteWal(Sqlite):
    name = "sqlite3 (WAL)"
    closes = False


class SqliteWalChecked(SqliteWal):
    name = "sqlite3 (WAL) + integrity_check"
    checks = True


class Lmdb(Engine):
    name = "lmdb"
    package = "lmdb"

    def open(self, path):
        import lmdb

        return lmdb.open(path, map_size=16 << 20)

    def put(self, database, items):
        with database.begin(write=True) as transaction:
            transaction.cursor().putmulti(items.items())

    def get(self, database, key):
        if not key:  # which it does not take
            return None
        with database.begin() as transaction:
            return transaction.get(key)

    def scan(self, database):
        with database.begin() as transaction:
            return [*transaction.cursor()]


class Plyvel(Engine):
    name = "plyvel"
    package = "plyvel"
    paranoid = False

    def open(self, path):
        import plyvel

        return plyvel.DB(path, create_if_missing=True, paranoid_checks=self.paranoid)

    def put(self, database, items):
        with database.write_batch(sync=True) as batch:
            for key, value in items.items():
                batch.put(key, value)

    def settle(self, database):
        database.compact_range()

    def get(self, database, key):
        return database.get(key)

    def scan(self, database):
        return iter(database)


class PlyvelParanoid(Plyvel):
    name = "plyvel + paranoid_checks"
    paranoid = True

    def get(self, database, key):
        return database.get(key, verify_checksums=True)

    def scan(self, database):
        return database.iterator(verify_checksums=True)


class Rocksdict(Engine):
    name = "rocksdict"
    package = "rocksdict"
    strict = False

    def open(self, path):
        import rocksdict

        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(1 << 20)
        if self.strict:
            options.set_paranoid_checks(True)
            options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.absolute_consistency())
        return rocksdict.Rdict(path, options, column_families={"default": options})

    def put(self, database, items):
        import rocksdict

        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in items.items():
            batch.put(key, value)
        options = rocksdict.WriteOptions()
        options.sync = True
        database.write(batch, options)

    def settle(self, database):
        database.flush()
        database.compact_range(None, None)

    def get(self, database, key):
        return database.get(key)

    def scan(self, database):
        return database.items()


class RocksdictStrict(Rocksdict):
    name = "rocksdict + absolute consistency"
    strict = True


ENGINES = (
    Kvstore,
    KvstoreKilled,
    KvstoreVerified,
    SqliteWal,
    SqliteWalChecked,
    Sqlite,
    SqliteChecked,
    Lmdb,
    Plyvel,
    PlyvelParanoid,
    Rocksdict,
    RocksdictStrict,
)
