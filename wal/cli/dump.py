"""``dump``: every frame of a log, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wal.cli.found import SurveyedSegment
from wal.cli.output import id_range, print_json
from wal.cli.pieces import ForgivingFile, Gap, Piece, kind_of, walk
from wal.cli.survey import Survey
from wal.errors import CorruptLogError
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Frame
from wal.segments.reader import FrameSource

_MOST_LENGTHS = 8


@dataclass(frozen=True)
class DumpOptions:
    """What ``dump`` was asked for."""

    segments: frozenset[int] = frozenset()  # none: every live one
    data: str | None = None  # hex or ascii
    data_bytes: int = 64  # of each chunk; 0 for all
    limit: int | None = None  # frames
    as_json: bool = False


def dump(found: Survey, options: DumpOptions) -> None:
    """Print the frames; also the gaps between them, and a torn tail."""
    for count, line in enumerate(_lines(found, options)):
        if count == options.limit:
            return
        if options.as_json:
            print_json(line, lines=True)
        else:
            _print(line)


def _lines(found: Survey, options: DumpOptions) -> Iterator[dict[str, Any]]:
    for segment in found.segments:
        wanted = segment.segment_id in options.segments
        if segment.state == "live" if not options.segments else wanted:
            yield from _segment(found, segment, options)


def _segment(
    found: Survey, segment: SurveyedSegment, options: DumpOptions
) -> Iterator[dict[str, Any]]:
    header = segment.header
    if header is None:
        reason = segment.damage.reason if segment.damage else ""
        yield {"segment": segment.name, "offset": 0, "kind": "unreadable", "reason": reason}
        return
    try:
        file = ForgivingFile(found.files.open(segment.path, writable=False))
    except FileNotFoundError:
        reason = "the log's writer recycled it meanwhile"
        yield {"segment": segment.name, "offset": 0, "kind": "gone", "reason": reason}
        return
    try:
        source = FrameSource(file, segment.path, header)
        after = header.previous_last_id
        for piece in walk(source, header.size, segment.stop, after, segment.limit):
            line = {"segment": segment.name, **_piece(piece)}
            if options.data and not isinstance(piece, Gap):
                line["data"] = list(_data(piece, options))
            yield line
    finally:
        file.close()
    for offset, kind, what in _endings(segment):
        yield {"segment": segment.name, "offset": offset, "kind": kind, **what}


def _endings(segment: SurveyedSegment) -> Iterator[tuple[int, str, dict[str, Any]]]:
    if segment.torn and segment.stop == segment.end:
        yield segment.end, "torn", {"bytes": segment.torn}
    if segment.damage is not None:
        yield segment.damage.offset, "damage", {"reason": segment.damage.reason}


def _piece(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Gap):
        return {"offset": piece.start, "kind": "gap", "bytes": piece.end - piece.start}
    lengths = [chunk.length for chunk in _chunks(piece)]
    return {
        "offset": piece.offset,
        "kind": kind_of(piece),
        "bytes": piece.end - piece.offset,
        "first_id": piece.first_id,
        "last_id": piece.last_id,
        "durable_id": piece.durable_id,
        "entries": piece.last_id - piece.first_id + 1,
        "chunks": len(lengths),
        "lengths": lengths,
    }


def _chunks(frame: Frame) -> list[ChunkReader]:
    return [chunk for entry in frame.entries() for chunk in entry.chunks()]


def _data(frame: Frame, options: DumpOptions) -> Iterator[str]:
    show = _SHOWN_AS[options.data or "hex"]
    for chunk in _chunks(frame):
        size = min(chunk.length, options.data_bytes) if options.data_bytes else chunk.length
        try:
            shown = show(chunk.read(size))
        except CorruptLogError as error:  # it was sound a moment ago: a writer took the file back
            shown = f"({error.reason})"
        yield shown + ("…" if size < chunk.length else "")


def _ascii(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


_SHOWN_AS: dict[str, Callable[[bytes], str]] = {"hex": bytes.hex, "ascii": _ascii}


def _print(line: dict[str, Any]) -> None:
    place = f"{line['segment']}  {line['offset']:>10}  {line['kind']:<8}"
    if "first_id" not in line:
        what = f"{line['bytes']} bytes" if "bytes" in line else line["reason"]
        print(f"{place}  {what}")
        return
    lengths = line["lengths"]
    shown = ",".join(map(str, lengths[:_MOST_LENGTHS]))
    shown += ",…" if len(lengths) > _MOST_LENGTHS else ""
    ids = id_range(line["first_id"], line["last_id"]) if line["entries"] else "-"
    print(
        f"{place}  id {ids}  durable {line['durable_id']}  chunks {line['chunks']}  "
        f"lengths {shown or '-'}  bytes {line['bytes']}"
    )
    for number, data in enumerate(line.get("data", ())):
        print(f"    chunk {number}: {data}")
