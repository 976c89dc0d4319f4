"""What an open log holds: its segments, and the file of its marker."""

from __future__ import annotations

SIZE = 7
"""Cells of a segment's file: one for the header, the others for frames."""
IDS = 8
"""How many ids a segment allows for."""
SPARES = 1
BUFFER, WRITE, FSYNC = range(3)


class Segment:
    """A segment that the log holds. Positions are numbers of cells."""

    __slots__ = (
        "abandoned",
        "activated",
        "committed_end",
        "durable_end",
        "end",
        "file",
        "gathered",
        "header",
        "id",
        "last",
        "limit",
        "must_seal",
        "name",
        "passed",
        "predecessor",
        "taken",
    )

    def __init__(self, header, file, name, end=1, last=None):
        self.header = header
        self.id = header.id
        self.file = file
        self.name = name
        self.end = self.committed_end = self.durable_end = self.taken = end
        self.last = header.previous if last is None else last
        self.gathered = []  # cells from ``taken`` to ``end``, not yet handed to the system
        self.limit = header.limit  # of ids given out now: below that of a durable header
        self.activated = True
        self.predecessor = None
        self.must_seal = False
        self.abandoned = False
        self.passed = False  # by the marker

    @property
    def has_entries(self):
        return self.last > self.header.previous


class MarkerFile:
    """The marker: each change goes to the slot that holds the older one."""

    def __init__(self, disk, file, current, rules):
        self.disk = disk
        self.file = file
        self.current = current
        self.rules = rules

    def write(self, **changes):
        marker = self.current._replace(sequence=self.current.sequence + 1, **changes)
        self.put(marker)
        self.current = marker

    def put(self, marker):
        slot = marker.sequence % 2 if self.rules.slots_in_turn else 0
        self.disk.write(self.file, slot, [marker])
        self.disk.sync(self.file)


def activate(directory, segment, rules):
    """Make a planned segment exist: header, sync, name, directory. Then entries may follow."""
    disk = directory.disk
    disk.write(segment.file, 0, [segment.header])
    if rules.sync_header:
        disk.sync(segment.file)
    name = ("wal", segment.id)
    directory.rename(segment.name, name)
    segment.name = name
    if rules.sync_names_at_activation:
        directory.sync()
    segment.activated = True
    segment.limit = segment.header.limit
