"""Judging a log's files: what is there, what was torn by a crash, what is damaged.

The design's recovery, up to where it begins to write; and salvage, which only reads. Nothing here
changes the disk.
"""

from __future__ import annotations

from tests.laboratory.protocol.disk import MIXTURE
from tests.laboratory.protocol.log_values import FIRST, MARKER, Damage, Header, Marker, Scan


class Scanned:
    """One live segment as far as it could be read."""

    __slots__ = (
        "abandoned",
        "damage",
        "end",
        "file",
        "frames",
        "header",
        "id",
        "last",
        "limit",
        "name",
        "scan",
        "settled",
    )

    def __init__(self, name, file, rules):
        self.name = name
        self.id = name[1]
        self.file = file
        self.abandoned = name[0] == "abandoned"
        self.damage = None
        self.frames = []  # with where each ends
        self.end = 1
        self.settled = 1  # the end of the last frame that the evidence covers
        self.last = 0
        header = file.cells[0]
        self.header = self.scan = None
        self.limit = self.id + 1
        if type(header) is not Header or header.id != self.id:
            self.damage = f"{name}: no header, or that of another segment"
        else:
            self.header = header
            self.limit = header.limit
            self.scan = Scan(file.cells, header, rules)


class Judgement:
    """What the files say. ``read`` judges; Damage where nothing can be abandoned to go on."""

    def __init__(self, names, rules):
        self.rules = rules
        self.names = names
        self.scanned = []
        self.dead = []
        self.marker, self.doubtful = read_marker(names)
        live = [name for name in names if name[0] in ("wal", "abandoned")]
        self.is_new = self.marker is None or (self.marker == FIRST and not live)
        if self.marker is None:
            if live:
                raise Damage("no valid marker, but there are segments")
            self.marker = Marker()
        marker = self.marker
        self.last = marker.checkpointed
        self.evidence = max(marker.checkpointed, marker.durable)
        believed = not (self.doubtful and rules.doubtful_slot)
        self.clean = marker.clean if believed else None
        for name in sorted(live, key=_number):
            if name[1] < marker.oldest_live:
                self.dead.append(name)
            else:
                self.scanned.append(Scanned(name, names[name], rules))

    def read(self):
        """Follow the chain through all live segments."""
        self._check_newest()
        following = None
        limits = []
        for scanned in reversed(self.scanned):
            limits.append(following.previous if following is not None else None)
            following = scanned.header
        for scanned, limit in zip(self.scanned, reversed(limits), strict=True):
            self._follow(scanned, limit)
        if self.scanned:
            self._judge_tail(self.scanned[-1])
        self._check_clean()
        return self

    def _check_newest(self):
        if not self.rules.marker_names_newest:
            return
        marker, live = self.marker, {scanned.id for scanned in self.scanned}
        if marker.newest >= max(marker.oldest_live, 1) and marker.newest not in live:
            raise Damage(f"segment {marker.newest} is missing")
        if not live and self.evidence > self.last:
            raise Damage("all segments are missing")

    def _follow(self, scanned, limit):
        header, chain = scanned.header, self.rules.chain
        if header is not None and header.previous != self.last and chain:
            scanned.damage = f"{scanned.name} follows {header.previous}, not {self.last}"
        if scanned.damage is None:
            self._read_frames(scanned, limit)
            if limit is not None and self.last != limit and chain:
                scanned.damage = f"{scanned.name} ends at {self.last}, not at {limit}"
        if scanned.damage is not None and scanned.abandoned:
            self.last = limit if limit is not None else max(self.last, self.evidence)
        elif scanned.damage is not None and limit is not None:
            self.last = limit
        scanned.last = self.last

    def _read_frames(self, scanned, limit):
        uncovered = []
        last, evidence = self.last, self.evidence
        if limit is None or last < limit or not self.rules.nothing_beyond_end:
            for frame, end in scanned.scan.frames(1, last):
                if limit is not None and frame.last > limit and self.rules.nothing_beyond_end:
                    break
                last = max(last, frame.last)
                evidence = max(evidence, frame.durable)
                scanned.end = end
                scanned.frames.append((frame, end))
                # A witness holds no entry, but later ones can only be read through it.
                witness = frame.first if self.rules.rewrite_witness else 0
                uncovered.append((max(frame.last, witness), end))
                if last == limit and self.rules.nothing_beyond_end:
                    break
        for frame_last, end in uncovered:
            if frame_last > evidence:
                break
            scanned.settled = end
        self.last, self.evidence = last, evidence

    def _judge_tail(self, scanned):
        if scanned.damage is None and not self._ends_as_left(scanned):
            if self.rules.evidence_behind_flaw:
                self.evidence = max(self.evidence, scanned.scan.evidence(scanned.end + 1))
            if self.evidence > self.last and not scanned.abandoned:
                scanned.damage = f"{scanned.name}: {self.last + 1}..{self.evidence} were durable"
        if scanned.abandoned:
            scanned.last = self.last = max(self.last, self.evidence)

    def _check_clean(self):
        if self.clean is None or self.problem() is not None:
            return
        last = self.scanned[-1] if self.scanned else None
        if last is not None and last.abandoned:
            self.clean = None
        elif last is None:
            raise Damage(f"the log was left at {self.clean}, and no segment is there")
        elif not self._ends_as_left(last):
            if self.rules.clean_mark_exact:
                last.damage = f"{last.name} was left at {self.clean}"
            else:
                self.clean = None

    def _ends_as_left(self, scanned):
        return self.clean == (scanned.id, scanned.end, self.last)

    def problem(self):
        """The first damage in a segment that is not abandoned."""
        for scanned in self.scanned:
            if scanned.damage is not None and not scanned.abandoned:
                return scanned.damage
        return None

    def next_id(self):
        """The first id that was certainly never given out."""
        highest = self.marker.highest if self.rules.highest_in_marker else 0
        known = max(highest, self.last) + 1
        if self.clean is not None or not self.rules.id_limit:
            return known
        return max([known, *(scanned.limit for scanned in self.scanned)])


def _number(name):
    return name[1]


def read_marker(names):
    """The newest valid slot, and whether one is neither valid nor empty."""
    file = names.get(MARKER)
    if file is None:
        return None, False
    valid = [slot for slot in file.cells if type(slot) is Marker]
    return max(valid, default=None, key=lambda slot: slot.sequence), MIXTURE in file.cells


def salvaged(judgement):
    """Every frame that salvage copies from segments with a successor: on behind each flaw."""
    found = []
    for scanned, successor in zip(judgement.scanned, judgement.scanned[1:], strict=False):
        if scanned.header is None or successor.header is None or scanned.abandoned:
            continue
        end, last, at = successor.header.previous, scanned.header.previous, 1
        if not judgement.rules.nothing_beyond_end:
            end = scanned.header.limit
        while at < len(scanned.file.cells):
            resumed = at + 1
            for frame, after in scanned.scan.frames(at, last):
                if frame.last > end:
                    break
                found.append(frame)
                last, resumed = max(last, frame.last), after
            at = resumed
    return found
