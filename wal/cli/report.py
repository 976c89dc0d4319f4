"""What ``inspect`` and ``verify`` say of a log."""

from __future__ import annotations

import os
from typing import Any

from wal.checkpoint_marker import Marker
from wal.cli.found import SurveyedSegment
from wal.cli.output import id_range, moment, print_json, print_table
from wal.cli.survey import Survey


def print_inspection(found: Survey, *, as_json: bool) -> None:
    """Everything there is: the marker, each segment, the spares."""
    if as_json:
        print_json(inspection(found))
        return
    print(f"log {found.directory}\n")
    print_table(("slot", "state", *_MARKER, "clean mark"), map(_slot_row, _slots(found)))
    print()
    print_table(_COLUMNS, [_segment_row(segment) for segment in found.segments])
    if found.names.spares:
        print(f"\nspare: {' '.join(found.names.spares)}")
    print()
    _print_verdict(found)


def print_verification(found: Survey, *, as_json: bool) -> None:
    """Whether the log is sound, and where it is not."""
    if as_json:
        print_json(verification(found))
        return
    columns = ("segment", "state", "frames", "entries", "bytes used", "verdict")
    print_table(columns, [
        (segment.name, segment.state, segment.total("frames"), segment.total("entries"),
         segment.end, _verdict_of(segment))
        for segment in found.segments
    ])  # fmt: skip
    print()
    _print_verdict(found)


def inspection(found: Survey) -> dict[str, Any]:
    """All that ``inspect`` prints, as one value."""
    return {
        **verification(found),
        "slots": _slots(found),
        "segments": [_segment(segment) for segment in found.segments],
        "spares": found.names.spares,
    }


def verification(found: Survey) -> dict[str, Any]:
    """All that ``verify`` prints, as one value."""
    live = [segment for segment in found.live() if segment.state == "live"]
    return {
        "directory": found.directory,
        "sound": found.sound,
        "clean": found.clean,
        "last_id": found.last_id,
        "evidence": found.evidence,
        "entries": sum(segment.total("entries") for segment in live),
        "torn_bytes": live[-1].torn if live else 0,
        "damage": [damage.values() for damage in found.damages],
    }


# -- as values -------------------------------------------------------------------------------------

_MARKER = (
    "sequence",
    "checkpointed_id",
    "durable_id",
    "highest_id",
    "oldest_live",
    "newest_nonempty",
)


def _slots(found: Survey) -> list[dict[str, Any]]:
    slots: list[dict[str, Any]] = []
    for marker, doubtful in zip(found.slots, found.doubtful_slots, strict=True):
        state = "valid" if marker else "doubtful" if doubtful else "empty"
        state = "newest" if marker and marker is found.marker else state
        slots.append({"slot": len(slots), "state": state, **_marker(marker)})
    return slots


def _marker(marker: Marker | None) -> dict[str, Any]:
    if marker is None:
        return {}
    values: dict[str, Any] = {name: getattr(marker, name) for name in _MARKER}
    values["clean"] = marker.clean._asdict() if marker.clean else None
    return values


def _segment(segment: SurveyedSegment) -> dict[str, Any]:
    values: dict[str, Any] = {
        "segment_id": segment.segment_id,
        "file": segment.path,
        "state": segment.state,
        "size": segment.size,
        "header": _header(segment),
        "bytes_used": segment.end,
        "frames": segment.total("frames"),
        "entries": segment.total("entries"),
        "chunks": segment.total("chunks"),
        "last_id": segment.last_id,
        "evidence": segment.evidence,
        "torn_bytes": segment.torn,
        "unreadable_blocks": segment.unreadable,
        "damage": segment.damage.values() if segment.damage else None,
    }
    values["readable"] = [
        {"start": part.start, "end": part.end, "first_id": part.first_id, "last_id": part.last_id}
        for part in segment.islands
    ]
    return values


def _header(segment: SurveyedSegment) -> dict[str, Any] | None:
    header = segment.header
    if header is None:
        return None
    return {
        "previous_last_id": header.previous_last_id,
        "id_limit": header.id_limit,
        "file_size": header.file_size,
        "created": moment(header.created_unix_ns),
        "created_unix_ns": header.created_unix_ns,
        "salt": header.salt.hex(),
        "version_info": header.version_info.hex(),
    }


# -- as rows ---------------------------------------------------------------------------------------

_COLUMNS = ("segment", "state", "size", "used", "frames", "entries", "after", "ids", "id limit",
            "evidence", "torn", "created", "version info", "verdict")  # fmt: skip


def _slot_row(slot: dict[str, Any]) -> list[object]:
    clean = slot.get("clean")
    mark = "{segment_id}:{length} id {last_id}".format(**clean) if clean else "-"
    return [slot["slot"], slot["state"], *(slot.get(name, "-") for name in _MARKER), mark]


def _segment_row(segment: SurveyedSegment) -> list[object]:
    header, part = segment.header, segment.sound_part
    described: list[object] = ["-", "-", "-", "-", "-", "-", "-"]
    if header is not None:
        described = [
            header.previous_last_id,
            id_range(part.first_id, part.last_id) if part else "-",
            header.id_limit,
            segment.evidence,
            segment.torn,
            moment(header.created_unix_ns),
            header.version_info.hex() or "-",
        ]
    return [
        segment.name, segment.state, segment.size, segment.end, segment.total("frames"),
        segment.total("entries"), *described, _verdict_of(segment),
    ]  # fmt: skip


def _verdict_of(segment: SurveyedSegment) -> str:
    if segment.state == "dead":
        return "not part of the log any more"
    if segment.damage is not None:
        verdict = f"damaged at {segment.damage.offset}: {segment.damage.reason}"
        return f"{verdict}{_MATTERS_NOT.get(segment.state, '')}"
    if segment.state == "kept":
        return "kept for reading alone"
    return f"torn tail of {segment.torn} bytes" if segment.torn else "sound"


_MATTERS_NOT = {"abandoned": " (given up)", "kept": " (kept for reading alone)"}


def _print_verdict(found: Survey) -> None:
    for damage in found.damages:
        print(f"damaged: {os.fspath(damage.path)} at offset {damage.offset}: {damage.reason}")
    closed = "shut down cleanly" if found.clean else "not shut down cleanly, or in use"
    verdict = "sound" if found.sound else "DAMAGED"
    print(
        f"{verdict}: entries up to {found.last_id}, known durable up to {found.evidence}; {closed}"
    )
