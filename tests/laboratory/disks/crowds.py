"""Writers on a disk that gives out: what they were told, and what must be there because of it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
import time

import kvstore

PATIENCE = 60.0


class Crowd:
    """Threads that put one numbered value after the other, until they are stopped.

    A context manager, which ends them and closes the store, whatever the test has come to.
    ``acknowledged`` must be there for ever, ``refused`` must not, ``doubtful`` may.
    """

    def __init__(self, db, threads=4):
        self.acknowledged = {}
        self.refused = {}
        self.doubtful = {}
        self.errors = []
        self._db = db
        self._stopping = False
        writers = range(threads)
        self._threads = [self._thread(me) for me in writers]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping = True
        with contextlib.suppress(kvstore.StoreError):
            self._db.close()

    def _thread(self, me):
        return threading.Thread(target=self._write, args=(me,), daemon=True)

    def _write(self, me):
        for number in itertools.count():
            if self._stopping:
                return
            key, value = b"%d-%06d" % (me, number), b"%d;" % number * 400
            try:
                self._db.put(key, value)
            except kvstore.StoreClosedError:
                return
            except kvstore.StoreFailedError as error:
                self.errors.append(error)
                (self.doubtful if error.latched else self.refused)[key] = value
                if error.latched:
                    return
                time.sleep(0.005)
            else:
                self.acknowledged[key] = value

    @property
    def latched(self):
        return bool(self.doubtful)

    def wait(self, more, meanwhile=lambda: None):
        """Until so many more were acknowledged, or (negative) refused; a hang fails."""
        deadline = time.monotonic() + PATIENCE
        puts, errors = len(self.acknowledged), len(self.errors)
        while not (
            len(self.acknowledged) >= puts + more > puts
            or len(self.errors) >= errors - more > errors
            or not any(thread.is_alive() for thread in self._threads)
        ):
            assert time.monotonic() < deadline, (
                f"{len(self.acknowledged) - puts} puts and {len(self.errors) - errors} errors"
            )
            meanwhile()
            time.sleep(0.005)

    def stop(self):
        self._stopping = True
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a writer hangs"

    def check(self, db, *, all_of_it=True):
        """Hold a store against what its writers were told; nobody writes meanwhile."""
        found = dict(db.scan())
        allowed = {**self.acknowledged, **self.doubtful}
        assert found.items() <= allowed.items()
        if all_of_it:
            assert found.items() >= self.acknowledged.items()

    def look(self, db):
        """Reading goes on, whatever becomes of writing: some of each thread's keys."""
        for key, value in list(self.acknowledged.items())[-20:]:
            assert db.get(key) == value
        known = len(self.acknowledged)  # first: the threads go on
        assert db.count() >= known - 8


def check_is_clear(error, path, *codes):
    """It is the system's error too, of those numbers, and it or what caused it names the file."""
    assert isinstance(error, OSError)
    assert error.errno in (codes or (errno.ENOSPC,))
    told = []
    each = error
    while each is not None:
        told.append(f"{each}")
        each = each.__cause__
    assert any(path in line for line in told), told
