"""Hostile bytes for the log: segments, group payloads, streamed entries, markers, the tools.

Each function takes bytes and returns; an exception that the log does not document, or an answer
that contradicts another one, is the bug that is looked for.
"""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

import wal
from tests.laboratory.hostile.sealing import seal_segment
from wal.checkpoint_marker import BLOCK, Marker, decode_slots
from wal.cli.dump import DumpOptions, dump
from wal.cli.report import print_inspection, print_verification
from wal.cli.salvage import salvage
from wal.cli.survey import survey
from wal.files import MemoryFileSystem
from wal.positions import MAX_ID, LogPosition
from wal.segments import format as fmt
from wal.segments import reader
from wal.segments.lifecycle import segment_name
from wal.segments.uniform import columns_of

EVERY_BYTE = DumpOptions(frozenset(), "hex", 0, None, False)


class Reading(wal.LogManager):
    """Reads all of every entry in each way that there is. Keeps ids and data, if asked to."""

    def __init__(self, *, keep=False, abandon=False):
        self.kept = [] if keep else None
        self.abandon = abandon

    def should_recover_segment(self, segment):
        repr(segment)
        return wal.Recovery.ABANDON if self.abandon and segment.damage else wal.Recovery.RECOVER

    def recover(self, entry):
        data = self.read(entry)
        if self.kept is not None:
            self.kept.append((entry.id, data))

    def read(self, entry):
        data = entry.read_all()
        if [bytes(chunk) for chunk in entry.chunks()] != data:
            raise AssertionError("one entry, read in two ways, is not the same")
        for chunk in entry.read_below(16):
            assert isinstance(chunk, bytes) or chunk.crc_is_valid()
        return data

    def checkpoint_to(self, last_id, entries, log):
        for entry in entries:
            self.read(entry)
        raise _NotNowError


class _NotNowError(Exception):
    """Keeps every segment: a checkpoint would take from the next opening what it is to find."""


def log_around(data):
    """A log whose only segment is these bytes, and whose marker fits them."""
    segment_id = int.from_bytes(data[8:16], "little")
    previous = int.from_bytes(data[16:24], "little")
    if not 0 < segment_id <= MAX_ID or previous > MAX_ID:
        segment_id, previous = 1, 0
    marker = Marker(2, previous, previous, max(previous, segment_id), 0, 0).encode()
    return MemoryFileSystem(
        {
            os.path.join("log", "CHECKPOINT"): marker.ljust(2 * BLOCK, b"\0"),
            os.path.join("log", segment_name(segment_id)): data,
        }
    )


def open_log(files, manager, **options):
    """The log, or None where opening raises what it may raise."""
    options = {"preallocate_bytes": 4096, "flush_interval": 3600.0, **options}
    with mock.patch("wal.read_only._ATTEMPTS", 1):
        try:
            return wal.Configuration("log", files, **options).open(manager)
        except wal.WalError:
            return None


def read_everything(log):
    """All entries of an open log, in the ways that need one."""
    for entry in log.entries():
        for chunk in entry.chunks():
            try:
                with log.read_at(chunk.position) as again:
                    assert bytes(again) == bytes(chunk)
            except wal.PositionNotFoundError:
                raise AssertionError("an entry's own position is not found") from None


def segment(data):
    """A segment file, to a reader and, now and then, to a writer."""
    log = open_log(log_around(data), Reading(), read_only=True)
    if log is not None:
        with log:
            read_everything(log)
            for index in (0, 1, 0xFFFFFF):
                with contextlib.suppress(wal.WalError), log.read_at(LogPosition(1, 77, index)):
                    pass
    if len(data) % 8 == 0:
        written(data)
    if len(data) % 8 == 1:
        abandoned = open_log(log_around(data), Reading(abandon=True))
        if abandoned is not None:
            close(abandoned)


def written(data):
    """What a writer found is found again, with what it added, and nothing else."""
    files = log_around(data)
    first = Reading(keep=True)
    log = open_log(files, first)
    if log is None:
        return
    try:
        added = log.append([b"after", b"wards"])
    finally:
        close(log)
    again = Reading(keep=True)
    log = open_log(files, again)
    assert log is not None, "a log that could be written to cannot be opened any more"
    close(log)
    assert again.kept == [*first.kept, (added, [b"after", b"wards"])]


def close(log):
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown(timeout=10)


def streamed(data):
    """As a segment, but with windows so small that every streamed entry is read in pieces."""
    with mock.patch.multiple(reader, WINDOW=64, PIECE=16):
        log = open_log(log_around(data), Reading(), read_only=True)
        if log is not None:
            with log:
                read_everything(log)


def group(data):
    """A group's payload, behind the counts that its header would give: those of the decoder."""
    if len(data) < 8:
        return
    count, chunks = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
    payload = data[8 : 8 + fmt.MAX_GROUP_PAYLOAD]
    if max(count, chunks) > len(payload):
        return  # decode_group_header has refused it
    items = fmt.decode_payload(payload, count, chunks)
    columns = columns_of(payload, count, chunks)
    assert columns is None or columns.items() == items
    if items is None:
        return
    found = 0
    for item in items:
        found += 1 if type(item) is bytes else len(item)
        assert type(item) is bytes or all(type(each) is bytes for each in item)
    assert (len(items), found) == (count, chunks)


def marker(data):
    """A CHECKPOINT file, alone and beside a segment."""
    with contextlib.suppress(wal.FormatVersionError):
        decode_slots("CHECKPOINT", data)
    for with_segment in (False, True):
        names = {os.path.join("log", "CHECKPOINT"): data}
        if with_segment:
            sealed = seal_segment(SMALL_SEGMENT)
            names[os.path.join("log", segment_name(1))] = sealed
        log = open_log(MemoryFileSystem(names), Reading(), read_only=True)
        if log is not None:
            log.shutdown()
        log = open_log(MemoryFileSystem(names), Reading(abandon=True))
        if log is not None:
            with contextlib.suppress(wal.WalError):
                log.append([b"more"])
            close(log)


SALVAGED = "wal.cli.salvage.Configuration"


def small_log(*arguments, **options):
    return wal.Configuration(*arguments, preallocate_bytes=4096, **options)


def tools(data):
    """A segment file, to ``python -m wal``: looked at, dumped, verified, salvaged."""
    files = log_around(data)
    with mock.patch("wal.cli.survey._PAUSE", 0), contextlib.redirect_stdout(io.StringIO()):
        try:
            found = survey(files, "log")
        except wal.WalError:
            return
        for as_json in (False, True):
            print_inspection(found, as_json=as_json)
            print_verification(found, as_json=as_json)
        dump(found, EVERY_BYTE)
        if len(data) % 4 == 0:
            with contextlib.suppress(wal.WalError), mock.patch(SALVAGED, small_log):
                salvage(found, "rescued", doubtful=True, files=files)


def _small_segment():
    header = fmt.SegmentHeader(1, 0, 1 + (1 << 16), 0, salt=bytes(range(1, 17)), created_unix_ns=1)
    frames = fmt.encode_group(header, header.seed, header.size, 1, 0, [b"one", [b"two", b""]], 3)
    return header.encode() + b"".join(frames)


SMALL_SEGMENT = _small_segment()
