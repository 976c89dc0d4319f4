"""Spare segment files: zero-filled or recycled ahead of need, under ``free-`` names."""

from __future__ import annotations

import logging
import os
import queue
import threading

from wal.errors import SegmentAllocationError
from wal.files import File, FileSystem
from wal.segments.lifecycle import Segment
from wal.telling import tell
from wal.threads import JoinableThread

logger = logging.getLogger("wal.pool")

Spare = tuple[str, File]

#: Of a spare's number. A longer one is nobody's, and would make names that no file may have.
_MOST_DIGITS = 18


class SparePool:
    """Files of at least ``length`` bytes, durable at that length, ready to become segments.

    Two locks: ``_lock`` guards the list and is never held during I/O; ``_making`` is held by
    whoever makes a file, so that a writer in need and the preparer do not make one each.
    """

    def __init__(self, file_system: FileSystem, directory: str, length: int, keep: int) -> None:
        self._files = file_system
        self._directory = directory
        self._length = length
        self._keep = max(keep, 1)
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._ready: list[Spare] = []
        self._next = 0
        self._unwanted: set[int] = set()  # segments that are being removed, if need be repeatedly
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: JoinableThread | None = None
        self._requested = False
        self._tight = False  # from when spares were given up until a file is recycled

    def adopt(self, names: list[str]) -> None:
        """Take over the ``free-`` files of a former process; drop those of another length."""
        for name in names:
            suffix = name.removeprefix("free-")
            ours = suffix.isascii() and suffix.isdecimal() and len(suffix) <= _MOST_DIGITS
            if ours:
                self._next = max(self._next, int(suffix) + 1)
            path = self._path(name)
            file = self._files.open(path)
            try:
                fits = ours and file.size() == self._length
            except BaseException:
                file.close()
                raise
            if fits and len(self._ready) < self._keep:
                self._ready.append((path, file))
            else:
                file.close()
                self._files.remove(path)

    def take(self, length: int) -> Spare | None:
        """A spare of at least ``length`` bytes, if one is ready; never waits."""
        with self._lock:
            for index, (_, file) in enumerate(self._ready):
                if file.size() >= length:
                    return self._ready.pop(index)
        return None

    def ensure(self, length: int = 0) -> None:
        """Make sure that :meth:`take` of ``length`` finds one: make it here and now if need be.

        Raises SegmentAllocationError where there is no room; nothing is left behind then.
        """
        with self._making:
            with self._lock:
                if any(file.size() >= length for _, file in self._ready):
                    return
            spare = self._make(max(length, self._length))
            with self._lock:
                self._ready.append(spare)

    def request(self) -> None:
        """Have a spare made ready in the background."""
        with self._lock:
            if self._ready or self._requested or self._tight:
                return
            self._requested = True
            if self._thread is None:
                thread = JoinableThread(target=self._prepare, name="wal-preparer", daemon=True)
                thread.start()
                self._thread = thread
        self._requests.put(True)

    def _prepare(self) -> None:
        while self._requests.get():
            try:
                self.ensure()
            except OSError as error:
                # The writer that comes to need it tries again and gets the error itself.
                tell(logger.warning, "could not prepare a segment: %s", error)
            finally:
                with self._lock:
                    self._requested = False

    def _make(self, length: int) -> Spare:
        with self._lock:
            path = self._path(f"free-{self._next}")
            self._next += 1
        file = None
        try:
            file = self._files.create(path)
            file.allocate(length)
            file.sync()
            return path, file
        except OSError as error:
            if file is not None:
                file.close()
                self._discard(path)
            raise SegmentAllocationError(path, error) from error

    def grow(self, file: File, path: str, length: int) -> None:
        """Make an active segment's file ``length`` bytes long, for an entry that outgrows it."""
        try:
            file.allocate(length)
        except OSError as error:
            raise SegmentAllocationError(path, error) from error

    def recycle(self, segment: Segment) -> None:
        """Turn a released segment's file into a spare, or remove it where enough are ready.

        Its bytes may change only after its ``wal-`` name is durably gone: hence the directory sync
        before it can be taken. May be called again after an error.
        """
        file = segment.file
        with self._lock:
            self._tight = False
            wanted = (
                segment.id not in self._unwanted
                and len(self._ready) < self._keep
                and file.size() >= self._length
            )
            spare = self._path(f"free-{self._next}")
            self._next += wanted
        if not wanted:
            self._unwanted.add(segment.id)
            self._remove(segment)
            self._unwanted.discard(segment.id)
            return
        if not os.path.basename(segment.path).startswith("free-"):
            segment.rename(self._files, spare)
        self._files.sync_directory(self._directory)
        if file.size() > self._length:  # a large entry had made it grow
            file.truncate(self._length)
        with self._lock:
            self._ready.append((segment.path, file))

    def give_up(self) -> bool:
        """Remove the spares, for the disk is full; False if there were none.

        None is made ahead of need then, until a segment's file has been recycled.
        """
        with self._lock:
            self._tight = True
            given, self._ready = self._ready, []
        for path, file in given:
            file.close()
            self._discard(path)
        self._files.sync_directory(self._directory)
        return bool(given)

    def _remove(self, segment: Segment) -> None:
        segment.file.close()
        if self._files.exists(segment.path):
            self._files.remove(segment.path)
        self._files.sync_directory(self._directory)

    def _discard(self, path: str) -> None:
        try:
            self._files.remove(path)
        except OSError as error:
            tell(logger.warning, "could not remove %s: %s", path, error)

    def count(self) -> int:
        """How many spares are ready."""
        with self._lock:
            return len(self._ready)

    def is_current(self) -> bool:
        """Whether the calling thread is the preparer."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Stop the preparer and close the files. They stay for the next opening."""
        if self._thread is not None:
            self._requests.put(False)
            self._thread.join()
        with self._lock:
            for _, file in self._ready:
                file.close()
            self._ready.clear()

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
