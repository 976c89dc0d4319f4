"""What of a damaged log is missing, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from wal.cli.found import SurveyedSegment
from wal.cli.survey import Survey
from wal.segments.frames import Frame


class Loss(NamedTuple):
    """Ids of which the entries cannot be read; ``last`` is None where nothing says how many.

    Not each of the ids need have been an entry's: some may have been rolled back.
    """

    first: int
    last: int | None
    path: str
    offset: int

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first_id": self.first,
            "last_id": self.last,
            "file": self.path,
            "offset": self.offset,
        }


def losses(found: Survey) -> list[Loss]:
    """Everything acknowledged that cannot be read, in order."""
    live = found.live()
    reached = _base(found)
    result: list[Loss] = []
    for index, segment in enumerate(live):
        last = index + 1 == len(live)
        if segment.state == "abandoned":
            due = found.evidence if last else reached
        elif segment.header is None:
            due = found.evidence if last else segment.limit or reached
            result.append(_unreadable(segment, reached, due))
        else:
            due = found.evidence if last else segment.limit or segment.last_id
            result += _in_segment(segment, reached, due, last=last)
            reached = max(reached, segment.islands[-1].last_id if segment.islands else 0)
        reached = max(reached, due, segment.limit or 0)
    if not live and found.evidence > reached:
        result.append(Loss(reached + 1, found.evidence, found.directory, 0))
    return result


def _base(found: Survey) -> int:
    """The id below which the log need not hold anything."""
    if found.marker is not None:
        return found.marker.checkpointed_id
    headers = [segment.header for segment in found.live() if segment.header is not None]
    return headers[0].previous_last_id if headers else 0


def _unreadable(segment: SurveyedSegment, reached: int, due: int) -> Loss:
    return Loss(reached + 1, due if due > reached else None, segment.path, 0)


def _in_segment(segment: SurveyedSegment, reached: int, due: int, *, last: bool) -> Iterator[Loss]:
    assert segment.header is not None
    previous = segment.header.previous_last_id
    if previous > reached:  # a whole segment before this one
        yield Loss(reached + 1, previous, segment.path, 0)
    reached, end, gap = max(reached, previous), segment.start, False
    for island in segment.islands:
        gap = gap or island.start != end
        if island.first_id:
            upto = min(island.first_id - 1, due) if last else island.first_id - 1
            if gap and upto > reached:
                yield Loss(reached + 1, upto, segment.path, end)
            reached, gap = max(reached, island.last_id), False
        end = island.end
    if due > reached:
        yield Loss(reached + 1, due, segment.path, end)


def is_doubtful(found: Survey, segment: SurveyedSegment, frame: Frame) -> bool:
    """Whether a frame lies past a tear and nothing says that it was ever acknowledged."""
    past_a_tear = segment is found.live()[-1] and frame.offset >= segment.end
    return past_a_tear and frame.last_id > found.evidence
