"""What the end of a life has left of a store, and how that is looked into."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import kvstore
import kvstore.opening
import wal
from tests.laboratory.machines.store_model import difference, read_all

PATH = "s"
ASLEEP = 3600.0


@dataclass
class Backup:
    """What a backup's directory may show: ``sure`` if nothing newer, None for no backup."""

    sure: dict | None = None
    maybe: list = field(default_factory=list)


def opened(files, flag="c", interval=ASLEEP, **options):
    """Open the store; its log's flusher does nothing of its own accord but each ``interval``."""
    configuration = partial(wal.Configuration, flush_interval=interval)
    with patch.object(kvstore.opening, "Configuration", configuration):
        return kvstore.open(PATH, flag, file_system=files, processes=False, **options)


class Remains:
    """Examines; for a :class:`~tests.laboratory.machines.store_player.Player`."""

    def examine(self, files, label, lower):
        """Open what a crash left, first for reading, then for writing, and again."""
        self.counts["states"] += 1
        index = -1
        if self._is_store(files, label):
            report = kvstore.verify(PATH, file_system=files)
            assert report.ok, f"{label}: {report}"
            with opened(files, "r", **self.options) as reader:
                index = self._shown_by(reader, 0, f"{label}, for reading")
        with opened(files, **self.options) as db:
            shown = self._shown_by(db, max(index, lower), label)
            contents = read_all(db)
            report = db.verify()
            assert report.ok, f"{label}, opened: {report}"
            db.put(b"!", b"goes on")
        with opened(files, "r", **self.options) as reader:
            contents[()] = {**contents[()], b"!": b"goes on"}
            wrong = difference(read_all(reader), contents)
            assert wrong == "nothing", f"{label}, version {shown}, opened again: {wrong}"
        for path, backup in self.backups.items():
            self.check_backup(files, path, backup, label)

    def _is_store(self, files, label):
        """Whether there is a store, which must be once an opening has returned."""
        try:
            opened(files, "r", **self.options).close()
        except kvstore.StoreNotFoundError:
            assert not self.model.created, f"{label}: the store is gone"
            return False
        return True

    def _shown_by(self, reader, lower, where):
        return self.model.find(read_all(reader), reader.last_entry_id, lower, where)

    def check_backup(self, files, path, backup, label):
        """A backup's directory shows the last one that was made, or one that was being made."""
        try:
            with kvstore.open(path, "r", file_system=files) as copy:
                contents = read_all(copy)
        except kvstore.StoreError as error:
            if backup.sure is not None:
                raise AssertionError(f"{label}: the backup {path} is gone") from error
            return
        allowed = [each for each in (backup.sure, *backup.maybe) if each is not None]
        assert contents in allowed, f"{label}: {path}: {difference(contents, allowed[-1])}"
