"""A sealed segment read elsewhere: from its description, with the same entries and checks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap

import pytest

import wal
from tests.wal.support import Recorder

LONG = bytes(range(256)) * (5 << 12)  # 5 MiB: more than a window of the scan


class Describes(Recorder):
    """Keeps each segment's description, and what the log's own reader makes of it."""

    def __init__(self, hook=None):
        super().__init__()
        self.hook = hook
        self.descriptions = []

    def checkpoint_to(self, last_id, entries, log):
        super().checkpoint_to(last_id, entries, log)
        self.descriptions.append(entries.describe())
        if self.hook is not None:
            self.hook(entries.describe())


def checkpointed(place, manager, fill):
    """A log in which ``manager`` was handed one segment, filled by ``fill``."""
    log = place.open(manager)
    fill(log)
    log.checkpoint_active(wait=True)
    return log


def everything(log):
    log.append([b"one"])
    log.append([b"two", b"", b"three"])
    log.append([b"x" * 300_000, b"y"])  # too large for a group
    with log.begin_entry() as entry:
        entry.write_chunk(b"short")
        with entry.begin_chunk(len(LONG)) as chunk:
            chunk.write(LONG)
    log.append([])


def test_the_same_entries_from_the_description(place):
    found = []

    def read(description):
        with wal.SegmentReader.open(place.files, description) as reader:
            assert (reader.last_id, reader.path) == (description.last_id, description.path)
            assert reader.size == description.end
            entries = [(entry.id, entry.read_all()) for entry in reader]
            assert entries == [(entry.id, entry.read_all()) for entry in reader]
            found.extend(entries)

    manager = Describes(read)
    checkpointed(place, manager, everything)
    assert found == manager.checkpointed
    assert len(found) == 5


def test_long_chunks_come_as_readers_where_asked(place):
    lengths, pieces = [], []

    def read(description):
        with wal.SegmentReader.open(place.files, description) as reader:
            for entry in reader:
                chunks = entry.read_below(1000)
                lengths.append([type(chunk) is bytes for chunk in chunks])
                for chunk in chunks:
                    if type(chunk) is not bytes and chunk.length == len(LONG):
                        pieces.extend(iter(lambda chunk=chunk: chunk.read(1 << 20), b""))

    checkpointed(place, Describes(read), everything)
    assert lengths == [[True], [True] * 3, [False, True], [True, False], []]
    assert b"".join(pieces) == LONG


def test_what_was_appended_in_a_group_comes_as_data(place):
    found = []
    manager = Describes(
        lambda description: found.extend(
            entry.read_below(1) for entry in wal.SegmentReader.open(place.files, description)
        )
    )
    checkpointed(place, manager, lambda log: log.append([b"abc", b"d"]))
    assert found == [[b"abc", b"d"]]


def test_a_segment_used_for_another_is_refused(place):
    manager = Describes()
    log = checkpointed(place, manager, lambda log: log.append([b"one"]))
    log.append([b"two"])
    log.checkpoint_active(wait=True)
    first, second = manager.descriptions
    stale = dataclasses.replace(first, path=log.append([b"z"]) and _active(place))
    with pytest.raises(wal.CorruptLogError, match="not the header"):
        wal.SegmentReader.open(place.files, stale)
    assert first.header != second.header


def _active(place):
    names = [name for name in place.files.list(place.directory) if name.startswith("wal-")]
    return f"{place.directory}/{names[-1]}"


def test_a_segment_that_is_gone(place):
    manager = Describes()
    checkpointed(place, manager, lambda log: log.append([b"one"]))
    gone = dataclasses.replace(manager.descriptions[0], path=place.directory + "/nothing")
    with pytest.raises(FileNotFoundError):
        wal.SegmentReader.open(place.files, gone)


@pytest.mark.parametrize("chunk", [b"victim", b"victim" * 60_000], ids=["group", "streamed"])
def test_damage_is_found(place, chunk):
    raised = []

    def damage(description):
        file = place.files.open(description.path)
        data = file.read_at(0, description.end)
        if b"victim" not in data:
            return
        offset = data.rindex(b"victim")
        file.write_at(offset, [b"V"])
        with wal.SegmentReader.open(place.files, description) as reader:
            with pytest.raises(wal.CorruptLogError, match=r"entries 2 to . cannot be read") as info:
                list(reader)
            raised.append(info.value.path)
        file.write_at(offset, [b"v"])
        file.close()

    def fill(log):
        log.append([b"before"])
        log.sync()
        log.append([chunk])
        log.append([b"after"])

    checkpointed(place, Describes(damage), fill)
    assert len(raised) == 1


def test_closing_closes_the_file(place):
    raised = []

    def read(description):
        reader = wal.SegmentReader.open(place.files, description)
        reader.close()
        with pytest.raises(ValueError, match="closed"):
            list(reader)
        raised.append(True)

    checkpointed(place, Describes(read), lambda log: log.append([b"one"]))
    assert raised


def test_closing_the_logs_own_reader_leaves_the_segment_alone(place):
    class Closes(Recorder):
        def checkpoint_to(self, last_id, entries, log):
            with entries:
                pass
            super().checkpoint_to(last_id, entries, log)

    manager = Closes()
    checkpointed(place, manager, lambda log: log.append([b"one"]))
    assert manager.checkpointed == [(1, [b"one"])]


def test_in_another_process(tmp_path):
    program = """
        import sys, wal
        path, header, end, last_id = sys.argv[1:]
        description = wal.SegmentDescription(path, bytes.fromhex(header), int(end), int(last_id))
        with wal.SegmentReader.open(wal.files.StandardFileSystem(), description) as reader:
            print([(entry.id, entry.read_all()) for entry in reader])
    """
    printed = []

    class Elsewhere(Recorder):
        def checkpoint_to(self, last_id, entries, log):
            told = entries.describe()
            words = [told.path, told.header.hex(), str(told.end), str(told.last_id)]
            command = [sys.executable, "-c", textwrap.dedent(program), *words]
            printed.append(subprocess.run(command, check=True, capture_output=True, text=True))

    with wal.Configuration(str(tmp_path / "log")).open(Elsewhere()) as log:
        log.append([b"one", b"two"])
        log.checkpoint_active(wait=True)
    assert printed[0].stdout.strip() == "[(1, [b'one', b'two'])]"
