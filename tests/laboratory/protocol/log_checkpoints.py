"""What becomes of sealed segments: checkpointed, passed by the marker, kept or recycled."""

from __future__ import annotations

from tests.laboratory.protocol.disk import Failed
from tests.laboratory.protocol.log_segments import SPARES
from tests.laboratory.protocol.log_values import Scan


class Checkpoints:
    """The part of an open log that looks after its sealed segments."""

    def checkpoint(self, keep):
        """Everything for the oldest sealed segment; it goes on where an earlier attempt failed."""
        if not self.sealed:
            return
        segment = self.sealed[0]
        try:
            if not segment.passed:
                if not self.rules.marker_before_recycling:
                    self._recycle(segment)
                self._pass(segment)
            if not self.rules.marker_before_recycling:
                pass
            elif segment.name[0] == "kept" or (keep and self._may_be_kept(segment)):
                self._keep(segment)
            else:
                self._recycle(segment)
        except Failed:
            return
        self.sealed.pop(0)

    def _pass(self, segment):
        if segment.has_entries and not segment.abandoned:
            scan = Scan(segment.file.cells, segment.header, self.rules)
            found = []
            for frame, end in scan.frames(1, segment.header.previous):
                if end > segment.committed_end:
                    break
                found.append(frame)
            self.owner.checkpoint_to(segment.last, found)
        following = next((s for s in self._held() if s.id > segment.id), self.segment)
        self.marker.write(
            checkpointed=max(segment.last, self.marker.current.checkpointed),
            durable=self.durable,
            highest=self.next_id - 1,
            oldest_live=following.id,
            newest=self.newest(),
            clean=None,
        )
        segment.passed = True

    def _held(self):
        return [*self.sealed, *self.unwritten]

    def newest(self):
        """The newest segment with something durable."""
        return max((each.id for each in self._held() if each.durable_end > 1), default=0)

    @staticmethod
    def _may_be_kept(segment):
        return segment.has_entries and segment.name[0] == "wal"

    def _recycle(self, segment):
        """Make a file a spare. Its bytes may change once its name is durably gone."""
        directory = self.directory
        if segment.name[0] != "free":
            if len(self.spares) >= SPARES:
                directory.remove(segment.name)
                segment.name = ("free", None)
            else:
                number = 1 + max((n[1] for n in directory.names if n[0] == "free"), default=0)
                directory.rename(segment.name, ("free", number))
                segment.name = ("free", number)
        if self.rules.names_before_reuse:
            directory.sync()
        if segment.name[1] is not None and segment.name not in self.spares:
            self.spares.append(segment.name)

    def _keep(self, segment):
        """Keep a file for reading, under a name that recovery has no part in."""
        if segment.name[0] != "kept":
            name = ("kept", segment.id, segment.last)
            self.directory.rename(segment.name, name)
            segment.name = name
        self.directory.sync()
        self.kept.append(segment)

    def expire(self):
        """The oldest kept file's time is over."""
        if self.kept:
            try:
                self._recycle(self.kept[0])
            except Failed:
                return
            self.kept.pop(0)
