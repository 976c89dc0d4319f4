"""What must hold in every trace, whatever was done and whichever call failed.

The trace is replayed on a model of the system's cache: which bytes of which file were written since
its last successful sync, which names of which directory changed since its last. A sync covers what
had ended when it began; one that failed covers nothing, ever: what it should have covered is *lost*
until it is written again. Then each call, and each acknowledgement, may rest on durable things
only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from tests.laboratory.syncs.tracing import Mark

_TOKEN = re.compile(r"token-\d+-\d+-")
_KNOWN = re.compile("open|creat|pwrite|write|fdatasync|fsync|rename|link|unlink|mkdir|ftruncate")


@dataclass
class Write:
    """Bytes that were written to a file, until they are known to be durable."""

    start: int
    stop: int
    began: int
    ended: int
    thread: int
    path: str
    lost: bool = False


@dataclass
class File:
    """What is not durable of a file; and whether it was renamed and that is not durable."""

    pending: list = field(default_factory=list)

    def covered(self, began):
        return [write for write in self.pending if write.ended < began]


class Rules:
    """The model, and what was found against the rules: ``wrong``."""

    def __init__(self):
        self.wrong = []
        self.acks = self.syncs = self.faults = self.found = 0
        self._files = {}
        self._names = {}  # directory -> {name: how it changed}
        self._latched = False
        self._opening = 0  # the line at which a store began to be opened
        self._written = {}  # token -> the write that has it
        self._before = {}  # id of a sync's call -> what it covers if it succeeds

    def check(self, events):
        """Replay a whole trace."""
        points = [(event.began, 0, event) for event in events]
        points += [(event.ended, 1, event) for event in events if not isinstance(event, Mark)]
        for at, leaves, event in sorted(points, key=lambda point: point[:2]):
            if isinstance(event, Mark):
                self._mark(at, event)
            elif leaves:
                self._leave(event)
            else:
                self._enter(event)
        return self

    def _complain(self, at, what):
        self.wrong.append(f"line {at + 1}: {what}")

    # -- what the program tells --------------------------------------------------------------------

    def _mark(self, at, mark):
        verb, _, rest = mark.text.partition(" ")
        if verb == "ack":
            self.acks += 1
            self._check_ack(at, mark.thread, rest)
        elif verb == "opening":
            self._opening = at
        elif verb == "shown":
            self._latched, opened = False, self._opening or at
            self._opening = 0
            self._check_shown(at, mark.thread, opened)
        elif verb == "returned":
            self._check_returned(at)
        elif verb == "found":
            self.found += int(rest)
        elif verb == "missing":
            self._complain(at, f"{rest} was acknowledged, and is not there")

    def _check_ack(self, at, thread, token):
        if self._latched:
            self._complain(at, f"{token} is acknowledged after a failed write or sync of the log")
        written = self._written.get(token)
        if written is None:
            self._complain(at, f"{token} is acknowledged, and was not written")
            return
        for path, file in self._files.items():
            if not os.path.basename(path).startswith("wal-"):
                continue
            for write in file.pending:
                if write.began <= written.began or write.thread == thread:
                    self._complain(at, f"{token} is acknowledged before a sync of {path}")
        if written.path in self._files and self._is_pending(written.path):
            self._complain(at, f"{token} is acknowledged, and {written.path} has no durable name")

    def _check_shown(self, at, thread, opened):
        """What the log was found to hold is durable before it is shown.

        What the background has begun to write since is another thing.
        """
        for path, file in self._files.items():
            if not os.path.basename(path).startswith(("wal-", "CHECKPOINT")):
                continue
            if any(write.thread == thread or write.began < opened for write in file.pending):
                self._complain(at, f"shown before what was written to {path} is durable")
            if self._is_pending(path):
                self._complain(at, f"shown before the name of {path} is durable")

    def _check_returned(self, at):
        """What a checkpoint, a compaction, a backup or a close have made is durable."""
        kinds = ("CHECKPOINT", "MANIFEST", "BACKUP", ".table")
        for path, file in self._files.items():
            name = os.path.basename(path)
            if name.endswith(kinds) and file.pending:
                self._complain(at, f"returned before what was written to {path} is durable")
            if name.endswith(kinds) and self._is_pending(path):
                self._complain(at, f"returned before the name of {path} is durable")

    def _is_pending(self, path):
        """Whether its name is not durable, or that of a directory above it."""
        while path:
            directory, name = os.path.split(path)
            if name in self._names.get(directory or ".", {}):
                return True
            path = directory
        return False

    # -- calls -------------------------------------------------------------------------------------

    def _enter(self, call):
        if not _KNOWN.match(call.name):
            self._complain(call.began, f"a call that the rules do not know: {call.name}")
        elif call.name.startswith("pwrite"):
            self._check_write(call)
        elif call.name in ("fdatasync", "fsync"):
            file = self._files.get(call.path)
            covered = [] if file is None else file.covered(call.began)
            names = dict(self._names.get(call.path, {}))
            self._before[id(call)] = covered, names
        elif call.name.startswith("rename"):
            self._check_rename(call)
        elif call.name.startswith("unlink"):
            self._check_unlink(call)

    def _leave(self, call):
        if call.failed and "INJECTED" in call.note:
            self.faults += 1
        if call.name.startswith("pwrite"):
            self._wrote(call)
        elif call.name in ("fdatasync", "fsync"):
            self._synced(call)
        elif not call.failed:
            self._renamed(call)

    # -- bytes -------------------------------------------------------------------------------------

    def _check_write(self, call):
        """To what got its name by a rename only when that is durable; the marker's turn comes last.

        So an entry is never in a segment whose name may go, a recycled file keeps its bytes until
        its old name is durably gone, and the marker rests on a durable manifest. What an opening
        writes again, unchanged, may come before the directory's sync.
        """
        directory, name = os.path.split(call.path)
        if self._names.get(directory, {}).get(name) == "renamed" and not self._opening:
            self._complain(call.began, f"{call.path} is written before its name is durable")
        if name == "CHECKPOINT":
            store = os.path.dirname(directory)
            self._check_manifest(call, store)
            self._check_tables(call, store)

    def _wrote(self, call):
        segment = os.path.basename(call.path).startswith("wal-")
        if call.failed:
            self._latched = self._latched or segment
            return
        offset = int(call.text.split(", ")[-2 if call.name == "pwritev2" else -1])
        span = (offset, offset + call.result)
        write = Write(*span, call.began, call.ended, call.thread, call.path)
        for token in _TOKEN.findall(call.text) if segment else ():
            self._written.setdefault(token, write)
        file = self._files.setdefault(call.path, File())
        # What was lost and is written again is as good as new.
        file.pending = [
            old
            for old in file.pending
            if not (old.lost and write.start <= old.start and old.stop <= write.stop)
        ]
        file.pending.append(write)

    def _synced(self, call):
        covered, names = self._before.pop(id(call))
        self.syncs += not call.failed
        file = self._files.get(call.path)
        if call.failed:
            for write in covered:
                write.lost = True
            self._latched = self._latched or os.path.basename(call.path).startswith("wal-")
            pending = self._names.get(call.path, {})
            pending.update({name: "renamed" for name in names if name in pending})
            return
        if file is not None:
            done = {id(write) for write in covered if not write.lost}
            file.pending = [write for write in file.pending if id(write) not in done]
        left = self._names.get(call.path, {})
        for name, how in names.items():
            if left.get(name) == how:
                del left[name]

    # -- names -------------------------------------------------------------------------------------

    def _check_rename(self, call):
        old, new = call.paths
        name = os.path.basename(new)
        file = self._files.get(old)
        if not name.startswith(("free-", "tmp-")) and file is not None and file.pending:
            self._complain(call.began, f"{old} is not durable and gets the name {new}")
        directory = os.path.dirname(new)
        if name == "MANIFEST":
            self._check_tables(call, directory)
            if self._names.get(os.path.join(directory, "wal"), {}).get("CHECKPOINT") == "removed":
                self._complain(call.began, f"{new} may find the log of before come back")
        if os.path.basename(old).startswith("wal-"):
            self._check_let_go(call, old)

    def _check_unlink(self, call):
        directory, name = os.path.split(call.path)
        if name.startswith("wal-"):
            self._check_let_go(call, call.path)
        if name.endswith(".table"):
            self._check_manifest(call, os.path.dirname(directory))
        if name == "BACKUP":
            self._check_manifest(call, directory)

    def _check_let_go(self, call, path):
        """A segment is let go of when marker and manifest are durable without it."""
        directory = os.path.dirname(path)
        marker = self._files.get(os.path.join(directory, "CHECKPOINT"))
        if marker is not None and marker.pending:
            self._complain(call.began, f"{path} is let go of before the marker is durable")
        self._check_manifest(call, os.path.dirname(directory))

    def _check_manifest(self, call, store):
        if self._is_pending(os.path.join(store, "MANIFEST")):
            self._complain(call.began, f"{call.name} {call.paths} before the manifest is durable")

    def _check_tables(self, call, store):
        """Numbered tables have durable names and bytes before anything says that they are there."""
        tables = os.path.join(store, "tables")
        pending = [n for n in self._names.get(tables, {}) if n.endswith(".table")]
        pending = [n for n in pending if self._names[tables][n] != "removed"]
        if pending:
            self._complain(call.began, f"{call.name} {call.paths} before {pending} are durable")

    def _renamed(self, call):
        """After a call that changed names."""
        if call.name.startswith("rename"):
            old, new = call.paths
            self._files[new] = self._files.pop(old, File())
            if os.path.basename(new).startswith("wal-"):
                # What matters of a spare is the header, and that was checked.
                self._files[new] = File()
            self._changed(old, "removed")
            self._changed(new, "renamed")
        elif call.name.startswith("unlink"):
            self._files.pop(call.path, None)
            self._changed(call.path, "removed")
        elif call.name.startswith(("mkdir", "link")) or "O_EXCL" in call.text:
            self._changed(call.paths[-1], "created")

    def _changed(self, path, how):
        directory, name = os.path.split(path)
        self._names.setdefault(directory or ".", {})[name] = how
