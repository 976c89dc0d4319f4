"""Opening a log: what was judged is settled on the disk, and only then shown."""

from __future__ import annotations

from tests.laboratory.protocol.log_judgement import Judgement, salvaged
from tests.laboratory.protocol.log_segments import (
    IDS,
    SIZE,
    SPARES,
    MarkerFile,
    Segment,
    activate,
)
from tests.laboratory.protocol.log_values import DRAFT, FIRST, MARKER, Damage, Header, Scan
from tests.laboratory.protocol.log_writing import Log


def open_log(directory, rules, owner, *, upgraded=False):
    """Recover what is there, show it to the owner, and be ready to append.

    ``upgraded``: the header's version_info is another one, so a clean log too gets a fresh segment.
    Raises Damage, and Crash and Failed from any call.
    """
    judgement = Judgement(directory.names, rules).read()
    chosen = _consult(judgement, owner)
    if judgement.is_new:
        marker = _create_marker(directory, rules)
    else:
        marker = MarkerFile(directory.disk, directory.names[MARKER], judgement.marker, rules)
    _settle(directory, judgement, marker, chosen)
    _show(judgement, owner)
    log = Log(directory, rules, owner, marker, judgement.next_id(), judgement.last)
    _adopt_spares(log)
    _go_on(log, judgement, upgraded)
    _take_dead(log, judgement)
    return log


def _consult(judgement, owner):
    """Which segments the owner abandons now; Damage where it does not."""
    chosen = []
    previous = judgement.marker.checkpointed
    for scanned in judgement.scanned:
        before, previous = previous, scanned.last
        if scanned.abandoned or (scanned.damage is None and scanned.last == before):
            continue
        if owner.abandons(scanned.id):
            chosen.append(scanned)
        elif scanned.damage is not None:
            raise Damage(scanned.damage)
    if chosen and chosen[-1] is judgement.scanned[-1]:
        judgement.clean = None
        judgement.last = max(judgement.last, judgement.evidence)
        chosen[-1].last = judgement.last
    return chosen


def _create_marker(directory, rules):
    """Also in the place of one whose creation was cut short: by a rename, which the sync covers."""
    disk = directory.disk
    file = directory.names.get(DRAFT) or directory.create(DRAFT, 2)
    marker = MarkerFile(disk, file, FIRST, rules)
    marker.put(FIRST)
    directory.rename(DRAFT, MARKER)
    directory.sync()
    return marker


def _settle(directory, judgement, marker, chosen):
    """Make what was read durable, before any of it is shown."""
    rules = judgement.rules
    if rules.settle_marker:
        marker.put(marker.current)
    last = judgement.scanned[-1] if judgement.scanned else None
    if last is not None and judgement.clean is None and not last.abandoned and last not in chosen:
        start = 0 if last.settled == 1 else last.settled
        if rules.rewrite_before_sync and start < last.end:
            directory.disk.write(last.file, start, last.file.cells[start : last.end])
        directory.disk.sync(last.file)
    for scanned in judgement.scanned:
        if scanned in chosen:
            directory.rename(scanned.name, ("abandoned", scanned.id))
            scanned.name = ("abandoned", scanned.id)
            scanned.abandoned = True
    if rules.settle_names:
        directory.sync()


def _show(judgement, owner):
    shown = []
    for scanned in judgement.scanned:
        if not scanned.abandoned:
            for frame, end in scanned.frames:
                if not scanned.scan.intact(frame, end):
                    owner.break_promise(f"{frame} is shown, which nobody wrote so")
                shown.append(frame)
    owner.show(shown, [scanned.id for scanned in judgement.scanned if scanned.abandoned])
    owner.check_salvaged(salvaged(judgement))


def _adopt_spares(log):
    names = log.directory.names
    for name in [name for name in names if name[0] == "free"]:
        if len(log.spares) < SPARES:
            log.spares.append(name)
        else:
            log.directory.remove(name)


def _go_on(log, judgement, upgraded):
    """Go on in the segment that a clean shutdown left, or begin a fresh one."""
    rules, last = judgement.rules, None
    for scanned in judgement.scanned:
        last = _segment(scanned)
        log.sealed.append(last)
    clean = judgement.clean is not None and last is not None
    if log.marker.current.clean is not None and rules.remove_clean_mark:
        log.marker.write(clean=None, durable=judgement.last, highest=log.next_id - 1)
    torn = last is not None and not last.abandoned and not rules.fresh_segment
    if (clean and not upgraded) or torn:
        log.segment = log.sealed.pop()
        if not rules.fresh_segment:
            log.segment.limit = 1 << 60
    else:
        _begin_segment(log, last)
    log.unwritten = [log.segment]


def _begin_segment(log, last):
    id = log.next_id
    if last is not None and log.rules.increasing_ids:
        id = max(id, last.id + 1)
    elif not log.rules.increasing_ids:
        id = log.last + 1
    log.next_id = max(log.next_id, id)
    file, name = log.take_spare()
    log.segment = Segment(Header(id, log.last, id + IDS), file, name)
    activate(log.directory, log.segment, log.rules)


def _segment(scanned):
    header = scanned.header
    if header is None:  # abandoned: a stand-in
        header = Header(scanned.id, min(scanned.last, scanned.id - 1), scanned.id + 1)
    last = max(scanned.last, header.previous)
    segment = Segment(header, scanned.file, scanned.name, scanned.end, last)
    segment.abandoned = scanned.abandoned
    return segment


def _take_dead(log, judgement):
    """Segments that the marker has passed are on their way to be spares."""
    dead = []
    for name in judgement.dead:
        file = log.directory.names[name]
        header = file.cells[0]
        if type(header) is not Header or header.id != name[1]:
            log.directory.remove(name)  # it has a new life already
            continue
        last = header.previous
        for frame, _ in Scan(file.cells, header, log.rules).frames(1, last):
            last = max(last, frame.last)
        segment = Segment(header, file, name, len(file.cells), last)
        segment.abandoned = name[0] == "abandoned"
        segment.passed = True
        dead.append(segment)
    log.sealed[:0] = dead
    log.kept += [_kept(log, name) for name in log.directory.names if name[0] == "kept"]


def _kept(log, name):
    file = log.directory.names[name]
    header = Header(name[1], 0, 0)
    segment = Segment(header, file, name, SIZE, name[2])
    segment.passed = True
    return segment
