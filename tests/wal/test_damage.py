"""Damage, one flaw at a time: an error of the log's own, or exactly the right data; nothing else.

What the last flush before an unclean stop wrote, and nothing later bears witness of, may be taken
for a torn tail: only there may entries be missing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
import tracemalloc

import pytest

import wal
from tests.campaigns import seed
from tests.wal.promises import BUFFER, SMALL, Keeper, read_segment
from wal.checkpoint_marker import BLOCK, CleanMark, Marker
from wal.files.memory import MemoryFileSystem
from wal.segments import format as fmt
from wal.segments.lifecycle import segment_name
from wal.segments.reader import FrameSource

pytestmark = pytest.mark.usefixtures("no_power_no_noise")

MARKER = os.path.join(os.sep, "log", "CHECKPOINT")


def named(path, prefix):
    return os.path.basename(path).startswith(prefix)


class Holding(Keeper):
    """Never checkpoints, so that every segment stays."""

    def checkpoint_to(self, last_id, entries, log):
        raise OSError("not now")


class Left:
    """The files that a process left, the entries in them, and how many are beyond doubt."""

    def __init__(self, files, entries, sure, store=()):
        self.files = files
        self.entries = entries
        self.sure = sure
        self.store = list(store)

    def segments(self):
        return [path for path in sorted(self.files) if named(path, "wal-")]

    def used(self, path):
        """The length of a segment up to the end of its last frame."""
        system = MemoryFileSystem(self.files)
        file = system.open(path)
        header = fmt.decode_header(path, file.read_at(0, fmt.MAX_HEADER_BYTES))
        end = header.size
        for frame in FrameSource(file, path, header).frames(end, file.size(), 0):
            end = frame.end
        return end

    def outcome(self, files):
        """What opening makes of these files instead: "refused", "right" or "short"."""
        system = MemoryFileSystem(files)
        manager = Holding([])
        options = {**SMALL, "file_system": system}
        try:
            log = wal.Configuration("log", **options).open(manager)
        except wal.CorruptLogError as error:
            damage = error
        else:
            damage = None
        if damage is not None:
            assert damage.path.startswith("log")
            assert damage.offset >= 0
            assert damage.reason
            return "refused"
        with contextlib.suppress(wal.CheckpointError):
            log.shutdown()
        ids = [entry_id for entry_id, _ in manager.recovered]
        assert ids == sorted(set(ids))
        found = sorted(dict([*self.store, *manager.recovered]).items())
        assert found == self.entries[: len(found)], "wrong data"
        assert dict(self.entries).items() >= dict(manager.recovered).items()
        return "right" if len(found) == len(self.entries) else "short"

    def flip(self, path, offset, bit):
        data = bytearray(self.files[path])
        data[offset] ^= 1 << bit
        return self.outcome({**self.files, path: bytes(data)})

    def check_flip(self, path, offset, bit, allowed):
        outcome = self.flip(path, offset, bit)
        assert outcome in allowed, f"{outcome}: bit {bit} of byte {offset} of {path} flipped"
        return outcome


def wait_for_witness(log):
    """A log that falls idle writes an empty group; it is not counted as a commit."""
    before = log.stats().bytes_written
    deadline = time.monotonic() + 20
    while log.stats().bytes_written < before + fmt.GROUP_OVERHEAD - 4:
        assert time.monotonic() < deadline, "no witness"
        time.sleep(0.001)


def write(log):
    """Frames of both kinds."""
    entries = []

    def wrote(entry_id, chunks):
        entries.append((entry_id, chunks))

    wrote(log.append([b"first"]), [b"first"])
    chunks = [b"one", b"", b"three" * 9]
    wrote(log.append(chunks), chunks)
    with log.begin_entry() as entry:
        entry.write_chunk(b"streamed" * 5)
        with entry.begin_chunk(6) as chunk:
            chunk.write(b"in ")
            chunk.write(b"two")
        wrote(entry.commit(), [b"streamed" * 5, b"in two"])
    with log.begin_entry() as entry:
        entry.write_chunk(b"taken back")
        entry.rollback()
    wrote(log.append([b"buffered"], durability=BUFFER), [b"buffered"])
    wrote(log.append([], durability=BUFFER), [])
    wrote(log.append([b"synced"]), [b"synced"])
    with log.begin_entry() as entry:
        entry.write_chunk(b"the last")
        wrote(entry.commit(), [b"the last"])
    return entries


def one_segment(ending):
    """A log of one segment; ``ending`` is "closed", "witnessed" or "killed"."""
    system = MemoryFileSystem()
    options = {**SMALL, "file_system": system}
    if ending == "witnessed":
        options["flush_interval"] = 0.2  # idle only at the end
    log = wal.Configuration("log", **options).open(Holding([]))
    entries = write(log)
    if ending == "witnessed":
        wait_for_witness(log)
    if ending == "closed":
        log.shutdown()
    files = system.contents()
    log.shutdown()
    return Left(files, entries, len(entries) - (ending == "killed"))


def several_segments(ending, *, history=None):
    """A log of three segments and a spare file, and before them one that was checkpointed."""
    system = MemoryFileSystem()
    options = {**SMALL, "file_system": system, "keep_free_segments": 2}
    log = wal.Configuration("log", **options).open(manager := Keeper([]))
    entries = write(log)
    log.checkpoint_active(wait=True)
    manager.checkpoint_to = Holding([]).checkpoint_to
    for number in range(7):
        chunks = [b"%d" % number * 1200]
        entries.append((log.append(chunks), chunks))
        if history is not None:
            history.append(system.contents())
    if ending == "closed":
        with contextlib.suppress(wal.CheckpointError):
            log.shutdown()
    files = system.contents()
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()
    left = Left(files, entries, len(entries) - (ending == "killed"), manager.store)
    assert len(left.segments()) == 3
    return left


MAKE = {
    f"{make.__name__}, {ending}": (make, ending)
    for make in (one_segment, several_segments)
    for ending in ("closed", "killed", "witnessed")
    if (make, ending) != (several_segments, "witnessed")
}
ONE = [name for name in MAKE if name.startswith("one")]


def leave(name):
    make, ending = MAKE[name]
    return make(ending)


@pytest.mark.parametrize("name", MAKE)
def test_what_is_whole_opens(name):
    left = leave(name)
    assert left.outcome(left.files) == "right"
    assert left.sure >= len(left.entries) - 1


# -- single bits -----------------------------------------------------------------------------------


def flip_bits_of_a_segment(left, path, places):
    """Flip each of these (byte, bit), one at a time."""
    end, last = left.used(path), path == left.segments()[-1]
    allowed = {"refused"}
    if last and left.sure < len(left.entries):
        allowed.add("short")
    counts = dict.fromkeys(("refused", "right", "short"), 0)
    for offset, bit in places:
        if offset >= end:
            counts[left.check_flip(path, offset, bit, {"right"})] += 1
        else:
            counts[left.check_flip(path, offset, bit, allowed)] += 1
    return counts


def a_bit_of_each_byte(left, path):
    end = left.used(path)
    size = len(left.files[path])
    behind = {*range(end, min(end + 40, size)), *range(end, size, 97), size - 1}
    return [(offset, offset * 5 % 8) for offset in [*range(end), *sorted(behind)]]


def witness_of(left):
    """Where the witness at the end of the log begins."""
    return left.used(left.segments()[-1]) - fmt.GROUP_OVERHEAD + 4


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_bit_of_each_byte_of_a_segment(ending, record_property):
    left = one_segment(ending)
    path = left.segments()[0]
    counts = flip_bits_of_a_segment(left, path, a_bit_of_each_byte(left, path))
    record_property("flips", counts)
    assert counts["refused"] > 300
    assert bool(counts["short"]) == (ending == "killed")


def test_a_bit_of_each_byte_below_a_witness():
    """The last flush is beyond doubt once a witness follows it; the witness itself is not."""
    left = one_segment("witnessed")
    path = left.segments()[0]
    start = witness_of(left)
    for offset, bit in a_bit_of_each_byte(left, path):
        left.check_flip(path, offset, bit, {"refused"} if offset < start else {"right"})


@pytest.mark.long
@pytest.mark.parametrize("name", MAKE)
def test_every_bit_of_every_segment(name):
    left = leave(name)
    witness = witness_of(left) if "witnessed" in name else None
    for path in left.segments():
        used = left.used(path)
        places = [*itertools.product(range(used), range(8))]
        places += [(offset, offset % 8) for offset in range(used, len(left.files[path]))]
        if witness is None:
            flip_bits_of_a_segment(left, path, places)
            continue
        for offset, bit in places:
            left.check_flip(path, offset, bit, {"refused"} if offset < witness else {"right"})


def test_a_bit_of_some_bytes_of_several_segments():
    for ending in ("closed", "killed"):
        left = several_segments(ending)
        for path in left.segments():
            flip_bits_of_a_segment(left, path, a_bit_of_each_byte(left, path)[::7])


@pytest.mark.parametrize("name", MAKE)
def test_a_bit_of_each_byte_of_the_marker(name):
    left = leave(name)
    places = [*range(100), *range(100, BLOCK, 331), *range(BLOCK, BLOCK + 100), 2 * BLOCK - 1]
    for offset in places:
        left.check_flip(MARKER, offset, offset % 8, {"refused", "right"})


@pytest.mark.long
@pytest.mark.parametrize("name", MAKE)
def test_every_bit_of_the_marker(name):
    left = leave(name)
    slots = [*range(100), *range(BLOCK, BLOCK + 100)]
    places = [*itertools.product(slots, range(8))]
    places += [(offset, offset % 8) for offset in range(2 * BLOCK)]
    for offset, bit in places:
        left.check_flip(MARKER, offset, bit, {"refused", "right"})


# -- lengths, sectors, whole files -----------------------------------------------------------------


def cut_everywhere(left, step):
    for path in left.files:
        data = left.files[path]
        allowed = {"refused"} if named(path, "wal-") else {"refused", "right"}
        if named(path, "free-") or path.endswith("LOCK"):
            allowed = {"right"}
        for length in range(0, len(data), step):
            outcome = left.outcome({**left.files, path: data[:length]})
            assert outcome in allowed, f"{outcome}: {path} cut to {length} bytes"


@pytest.mark.parametrize("name", MAKE)
def test_files_cut_short(name):
    cut_everywhere(leave(name), 41)


@pytest.mark.long
@pytest.mark.parametrize("name", MAKE)
def test_files_cut_to_every_length(name):
    cut_everywhere(leave(name), 1)


@pytest.mark.parametrize("name", MAKE)
def test_sectors_lost_or_misplaced(name):
    """A whole sector is gone, or another one's content is in its place."""
    left = leave(name)
    sectors = [
        (path, at)
        for path in left.files
        if not named(path, "free-")
        for at in range(0, len(left.files[path]), 512)
    ]
    rng = random.Random(7)
    for path, at in sectors:
        from_path, from_at = rng.choice(sectors)
        stray = left.files[from_path][from_at : from_at + 512].ljust(512, b"\0")
        for content in (bytes(512), b"\xff" * 512, rng.randbytes(512), stray):
            data = left.files[path]
            changed = data[:at] + content[: len(data) - at] + data[at + 512 :]
            outcome = left.outcome({**left.files, path: changed})
            closed = "closed" in name or path != left.segments()[-1]
            assert outcome in ({"refused", "right"} if closed else {"refused", "right", "short"})


@pytest.mark.parametrize("name", MAKE)
def test_files_missing(name):
    left = leave(name)
    for path in left.files:
        files = {other: data for other, data in left.files.items() if other != path}
        expected = "right" if named(path, "free-") or path.endswith("LOCK") else "refused"
        if path == left.segments()[-1] and "closed" not in name:
            expected = "short"  # only a later file, or the marker, could tell that it was there
        assert left.outcome(files) == expected, path


@pytest.mark.parametrize("name", MAKE)
def test_files_swapped(name):
    left = leave(name)
    paths = [path for path in left.files if not path.endswith("LOCK")]
    for one, other in itertools.permutations(paths, 2):
        swapped = {**left.files, one: left.files[other], other: left.files[one]}
        assert left.outcome(swapped) == "refused", f"{one} and {other} swapped"
        copied = {**left.files, one: left.files[other]}
        outcome = left.outcome(copied)
        assert outcome == ("right" if named(one, "free-") else "refused"), (
            f"{other} copied to {one}"
        )


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_files_replaced_by_older_copies(ending):
    history = []
    left = several_segments(ending, history=history)
    last = left.segments()[-1]
    for older in history:
        for path in older.keys() & left.files.keys():
            # An older copy of what an unclean stop left is like writes that never reached the disk.
            allowed = {"refused", "right"}
            if ending == "killed" and path == last:
                allowed.add("short")
            outcome = left.outcome({**left.files, path: older[path]})
            assert outcome in allowed, f"{outcome}: an older {path}"


@pytest.mark.long
def test_damage_at_random():
    """Several flaws at once: data may be missing, but it is never wrong, nor the error strange."""
    rng = random.Random(seed())
    for name in MAKE:
        left = leave(name)
        for _ in range(3000):
            files = dict(left.files)
            for _ in range(rng.randrange(1, 4)):
                path = rng.choice([*left.segments(), MARKER])
                data = bytearray(files[path])
                at = rng.randrange(left.used(path) if path != MARKER else len(data))
                length = rng.choice((1, 2, 4, 30, 300))
                data[at : at + length] = rng.randbytes(len(data[at : at + length]))
                files[path] = bytes(data)
            assert left.outcome(files) in {"refused", "right", "short"}


# -- damage that the manager gives up --------------------------------------------------------------


class GivingUp(Holding):
    """Gives up what is damaged, and nothing else."""

    def __init__(self, store):
        super().__init__(store)
        self.given_up = []

    def should_recover_segment(self, segment):
        if segment.damage is None:
            return wal.Recovery.RECOVER
        self.given_up.append(segment)
        return wal.Recovery.ABANDON


def recover_from(system, manager):
    """Open, append one entry, and shut down; the id that it was given."""
    log = wal.Configuration("log", file_system=system, **SMALL).open(manager)
    entry_id = log.append([b"after"])
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()
    return entry_id


def give_up_damage(left, path, places):
    """The other segments' entries are all there, also at the next opening; ids are not repeated."""
    inside = dict(read_segment(MemoryFileSystem(left.files), path))
    rest = [entry for entry in left.entries if entry[0] not in inside]
    stored = len(left.store)
    given_up = 0
    for offset, bit in places:
        data = bytearray(left.files[path])
        data[offset] ^= 1 << bit
        system = MemoryFileSystem({**left.files, path: bytes(data)})
        manager = GivingUp([])
        new_id = recover_from(system, manager)
        if not manager.given_up:
            continue
        given_up += 1
        assert [os.path.basename(each.path) for each in manager.given_up] == [
            os.path.basename(path)
        ]
        assert manager.recovered == rest[stored:], f"bit {bit} of byte {offset} of {path}"
        assert new_id > max(entry_id for entry_id, _ in left.entries)
        again = Holding([])
        assert recover_from(system, again) > new_id
        assert again.recovered == [*rest[stored:], (new_id, [b"after"])]
    return given_up


@pytest.mark.parametrize("name", MAKE)
def test_a_damaged_segment_is_given_up(name):
    left = leave(name)
    for path in left.segments():
        assert give_up_damage(left, path, a_bit_of_each_byte(left, path)[::9]) > 5


@pytest.mark.long
@pytest.mark.parametrize("name", MAKE)
def test_every_damage_of_a_segment_is_given_up(name):
    left = leave(name)
    for path in left.segments():
        every = itertools.product(range(left.used(path)), range(8))
        assert give_up_damage(left, path, every) > 500


# -- while the log is open -------------------------------------------------------------------------


def open_with_positions():
    """An open log, its file, its entries, and a position of every chunk with what is there."""
    system = MemoryFileSystem()
    options = {**SMALL, "file_system": system}
    log = wal.Configuration("log", **options).open(Holding([]))
    entries = write(log)
    positions = [
        (chunk.position, chunk.read()) for entry in log.entries() for chunk in entry.chunks()
    ]
    (name,) = [name for name in system.list("log") if name.startswith("wal-")]
    file = system.open(f"log/{name}")
    return log, file, entries, positions


def end_of(file):
    header = fmt.decode_header("", file.read_at(0, fmt.MAX_HEADER_BYTES))
    frames = FrameSource(file, "", header).frames(header.size, file.size(), 0)
    return header.size, max(frame.end for frame in frames)


@contextlib.contextmanager
def flipped(file, offset, bit):
    byte = file.read_at(offset, 1)
    file.write_at(offset, [bytes([byte[0] ^ 1 << bit])])
    yield
    file.write_at(offset, [byte])


def read_until_damage(log):
    """The entries that can be read before CorruptLogError."""
    read = []
    try:
        for entry in log.entries():
            read.append((entry.id, entry.read_all()))  # noqa: PERF401
    except wal.CorruptLogError:
        return read
    raise AssertionError("the damage was not noticed")


def test_reading_a_log_that_is_damaged_while_it_is_open():
    log, file, entries, positions = open_with_positions()
    start, end = end_of(file)
    refused = 0
    for offset in range(start, end):
        with flipped(file, offset, offset * 3 % 8):
            read = read_until_damage(log)
            assert read == entries[: len(read)]
            log._reader._groups.clear()  # what was read before the damage is right
            for position, data in positions:
                try:
                    with log.read_at(position) as chunk:
                        valid = chunk.crc_is_valid()
                        got = chunk.read()
                except wal.CorruptLogError:
                    refused += 1
                else:
                    assert valid
                    assert got == data
    assert refused > end - start
    assert [(entry.id, entry.read_all()) for entry in log.entries()] == entries
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()


def test_positions_that_were_never_given():
    """Any offset, also inside another chunk, is refused; nothing but a chunk is ever returned."""
    log, file, _, positions = open_with_positions()
    _, end = end_of(file)
    known = dict(positions)
    segment_id = positions[0][0].segment_id
    for offset in range(end + 20):
        for index in (0, 1, 7, 0xFFFFFF):
            position = wal.LogPosition(segment_id, offset, index)
            try:
                with log.read_at(position) as chunk:
                    got = chunk.read()
            except wal.WalError:
                got = None
            assert got == known.get(position), position
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()


def test_a_damaged_segment_is_not_checkpointed():
    log, file, _, _ = open_with_positions()
    start, _ = end_of(file)
    manager = log._checkpointer._manager
    manager.checkpoint_to = lambda *args: Keeper.checkpoint_to(manager, *args)
    with flipped(file, start + 40, 1):
        with pytest.raises(wal.CheckpointError) as raised:
            log.checkpoint_active(wait=True)
        assert isinstance(raised.value.__cause__, wal.CorruptLogError)
        assert not manager.store
    while not manager.store:
        time.sleep(0.001)
    log.shutdown()


# -- lengths beyond reason -------------------------------------------------------------------------

HUGE = (1 << 32) - 1


def forged(*frames, size=64 << 10):
    """A log of one segment in which frames follow as told, each a function of header and offset."""
    header = fmt.SegmentHeader(1, 0, 1 << 20, size)
    data = header.encode()
    for frame in frames:
        data += frame(header, len(data))
    marker = Marker(sequence=1, newest_nonempty=0).encode()
    return {
        os.path.join(os.sep, "log", segment_name(1)): data.ljust(size, b"\0"),
        MARKER: (bytes(BLOCK) + marker).ljust(2 * BLOCK, b"\0"),
    }


def group(payload, *, first_id=1, durable_id=0, count=1, chunks=1, length=None):
    def frame(header, offset):
        start = fmt.seed_at(header.seed, offset)
        length_ = len(payload) if length is None else length
        numbers = (first_id, durable_id, count, chunks, length_)
        head = fmt.GROUP.pack(header.mark, fmt.GROUP_TAG, *numbers)
        crc, end = fmt.crc32c(head, start), fmt.crc32c(payload, start)
        return head + fmt.CRC.pack(crc) + payload + fmt.CRC.pack(end)

    return frame


def streamed(*lengths, entry_id=1, durable_id=0):
    """An entry whose chunks announce these lengths and have three bytes."""

    def frame(header, offset):
        seed_ = header.seed
        head = fmt.encode_entry_header(header, seed_, offset, entry_id, durable_id)
        data, crcs = head, b""
        for length in lengths:
            chunk = fmt.CHUNK.pack(fmt.CHUNK_TAG, length) + b"abc"
            crc = fmt.CRC.pack(fmt.chunk_crc(seed_, offset + len(data), chunk))
            data, crcs = data + chunk + crc, crcs + crc
        return data + fmt.encode_end(seed_, offset, head, crcs, len(lengths))

    return frame


def outcome_of(files):
    manager = Keeper([])
    configuration = wal.Configuration("log", file_system=MemoryFileSystem(files), **SMALL)
    try:
        configuration.open(manager).shutdown()
    except wal.CorruptLogError:
        return "refused"
    return manager.recovered


GOOD = group(b"\x91\xc4\x03abc")


def test_forged_frames_are_read_where_they_are_right():
    assert outcome_of(forged(GOOD)) == [(1, [b"abc"])]
    assert outcome_of(forged(streamed(3, 3))) == [(1, [b"abc", b"abc"])]


NESTED = b"\xdd\x00\x03\xff\xff" * (fmt.MAX_GROUP_PAYLOAD // 5)
FORGED = {
    "a group of 4 GiB": group(b"\x91\xc4\x03abc", length=HUGE),
    "4 Gi entries": group(b"\x91\xc4\x03abc", count=HUGE),
    "4 Gi chunks": group(b"\x91\xc4\x03abc", chunks=HUGE),
    "everything 4 Gi": group(b"\xdd\xff\xff\xff\xff", count=HUGE, chunks=HUGE, length=HUGE),
    "an array of 4 Gi": group(b"\xdd\xff\xff\xff\xff", chunks=5),
    "a bin of 4 GiB": group(b"\x91\xc6\xff\xff\xff\xff"),
    "a str of 4 GiB": group(b"\x91\xdb\xff\xff\xff\xff"),
    "a map of 4 Gi": group(b"\x91\xdf\xff\xff\xff\xff"),
    "an ext of 4 GiB": group(b"\x91\xc9\xff\xff\xff\xff\x01"),
    "a timestamp": group(b"\x91\xd6\xff\x00\x00\x00\x00"),
    "a str": group(b"\x91\xa3abc"),
    "an int": group(b"\x91\x01"),
    "nil": group(b"\x91\xc0"),
    "arrays in arrays": group(b"\x91\x91\x91\xc4\x01a"),
    "arrays in arrays in arrays": group(b"\x91" * 5000 + b"\xc0"),
    "nested arrays": group(NESTED, count=len(NESTED), chunks=len(NESTED)),
    "fewer entries": group(b"\x91\xc4\x03abc", count=2),
    "more entries": group(b"\x92\xc4\x03abc\xc4\x03abc"),
    "more bytes": group(b"\x91\xc4\x03abcd"),
    "no payload": group(b""),
    "no array": group(b"\xc4\x03abc"),
    "id 0": group(b"\x91\xc4\x03abc", first_id=0),
    "an id beyond the limit": group(b"\x91\xc4\x03abc", first_id=1 << 20),
    "the last id there is": group(b"\x91\xc4\x03abc", first_id=(1 << 64) - 1),
    "durable before written": group(b"\x91\xc4\x03abc", first_id=5, durable_id=5),
    "a chunk of 4 GiB": streamed(HUGE),
    "a second chunk of 4 GiB": streamed(3, HUGE),
    "a chunk that is too long": streamed(4),
    "a streamed entry beyond the limit": streamed(3, entry_id=1 << 20),
}


@pytest.mark.parametrize("what", FORGED)
def test_lengths_beyond_reason(what):
    """Valid checksums and absurd contents: no entry, little memory, little time."""
    frame = FORGED[what]
    files = {
        "alone": forged(frame, size=1 << 20),
        "after another": forged(GOOD, frame, size=1 << 20),
    }
    started = time.monotonic()
    tracemalloc.start()
    try:
        alone, after = outcome_of(files["alone"]), outcome_of(files["after another"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert alone in ([], "refused")
    assert after in ([(1, [b"abc"])], "refused")
    assert peak < 128 << 20
    assert time.monotonic() - started < 20


def test_a_chunk_of_4_gib_at_a_position():
    """``read_at`` checks the length against the segment before it takes any memory."""
    system = MemoryFileSystem()
    log = wal.Configuration("log", file_system=system, **SMALL).open(Keeper([]))
    with log.begin_entry() as entry:
        position = entry.write_chunk(b"abc").position
    (name,) = [name for name in system.list("log") if name.startswith("wal-")]
    system.open(f"log/{name}").write_at(position.offset + 1, [b"\xff\xff\xff\xff"])
    tracemalloc.start()
    try:
        with pytest.raises(wal.CorruptLogError), log.read_at(position) as chunk:
            chunk.read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()


def test_a_segment_full_of_marks_is_scanned_in_time():
    """The search for evidence meets the mark at every fourth byte."""
    files = forged(GOOD, size=2 << 20)
    (path,) = [path for path in files if named(path, "wal-")]
    header = fmt.decode_header(path, files[path][: fmt.MAX_HEADER_BYTES])
    data = files[path].rstrip(b"\0")
    files[path] = data + header.mark * ((len(files[path]) - len(data)) // 4)
    files[path] = files[path].ljust(2 << 20, b"\0")
    started = time.monotonic()
    assert outcome_of(files) == [(1, [b"abc"])]
    assert time.monotonic() - started < 20


NUMBERS = ["checkpointed_id", "durable_id", "highest_id", "oldest_live", "newest_nonempty"]


@pytest.mark.parametrize("value", [0, 1, 2, 1 << 20, (1 << 63), (1 << 64) - 2, (1 << 64) - 1])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_forged_marker(name, value):
    """Whoever can write the files may forge the marker; that is refused, or nothing is wrong."""
    left = one_segment("killed")
    if name == "checkpointed_id":
        left.store = [entry for entry in left.entries if entry[0] <= value]
    marker = Marker(**{"sequence": 1000, name: value}).encode()
    files = {**left.files, MARKER: marker + left.files[MARKER][len(marker) :]}
    assert left.outcome(files) in {"right", "short", "refused"}


@pytest.mark.parametrize("mark", [(0, 0, 0), (1, 1 << 40, 7), ((1 << 63) - 1,) * 3])
def test_a_forged_clean_mark(mark):
    left = one_segment("closed")
    marker = Marker(sequence=1000, clean=CleanMark(*mark)).encode()
    files = {**left.files, MARKER: marker + left.files[MARKER][len(marker) :]}
    assert left.outcome(files) == "refused"
