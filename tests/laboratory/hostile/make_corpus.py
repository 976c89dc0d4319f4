"""Writes the seeds of the corpus anew, from real files: after a change of a format.

``python -m tests.laboratory.hostile.make_corpus``. Seeds are called ``seed-…``; what a fuzzer found
(``found-…``, ``crash-…``) is left alone, but a change of format may have made it worthless.
"""

from __future__ import annotations

import json
import os
import random

import msgpack

import kvstore
import wal
from kvstore import mutations
from kvstore.background.worker import _send
from kvstore.names import Entry
from kvstore.tables.builder import TableBuilder
from kvstore.tables.manifest import Manifest
from kvstore.tables.records import TableRecord
from kvstore.upkeep.restoring import encode_mark
from tests.laboratory.hostile.fuzz import CORPUS
from tests.laboratory.hostile.log_targets import SMALL_SEGMENT, Reading
from tests.laboratory.hostile.sealing import seal_segment
from tests.laboratory.hostile.store_targets import all_files
from wal.files import MemoryFileSystem
from wal.segments import format as fmt


class Pipe:
    """Takes what is written to a worker's pipe."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data

    def flush(self):
        pass


def segments():
    yield "small", seal_segment(SMALL_SEGMENT)
    files = MemoryFileSystem()
    log = wal.Configuration(
        "log", files, preallocate_bytes=4096, version_info=b"version", flush_interval=3600.0
    ).open(Reading())
    log.append([b"head", b"key", b"value" * 9])
    tickets = [log.submit([b"%d" % n, b""]) for n in range(5)]
    for ticket in tickets:
        ticket.wait()
    for lengths in ((0,), (5, 300), ()):
        with log.begin_entry() as entry:
            for length in lengths:
                entry.write_chunk(bytes([length % 251]) * length)
    log.append([])
    log.shutdown()
    whole = all_files(files, "log")
    (name,) = [path for path in whole if "wal-" in path]
    used = len(whole[name].rstrip(b"\0")) + 40
    yield "mixed", seal_segment(whole[name][:used])


def streamed_segments():
    header = fmt.SegmentHeader(1, 0, 1 + (1 << 16), 0, salt=bytes(range(1, 17)), created_unix_ns=1)
    data = header.encode()
    for number, chunks in enumerate(([b"a" * 100, b"", b"b" * 30], [], [b"c" * 64] * 5), start=1):
        data += fmt.encode_entry_header(header, header.seed, 0, number, number - 1)
        for chunk in chunks:
            data += fmt.CHUNK.pack(fmt.CHUNK_TAG, len(chunk)) + chunk + bytes(4)
        data += fmt.END.pack(fmt.END_TAG, len(chunks)) + bytes(4)
    yield "streamed", seal_segment(data)


def groups():
    for name, items in {
        "single": [b"one", b"two", b""],
        "lists": [[b"head", b"key", b"value"], b"alone", []],
        "many": [[b"%d" % n] * (n % 20) for n in range(40)],
        "empty": [],
    }.items():
        chunks = sum(1 if isinstance(item, bytes) else len(item) for item in items)
        head = len(items).to_bytes(4, "little") + chunks.to_bytes(4, "little")
        yield name, head + msgpack.packb(items)


def markers():
    files = MemoryFileSystem()
    log = wal.Configuration("log", files, preallocate_bytes=4096).open(Reading())
    log.append([b"x"])
    log.shutdown()
    yield "clean", all_files(files, "log")[os.path.join("log", "CHECKPOINT")]


def tables():
    rng = random.Random(1)
    for compression in (None, "zlib", "zstd", "lz4"):
        files = MemoryFileSystem()
        files.make_directory("t")
        builder = TableBuilder(
            files,
            os.path.join("t", "x"),
            rng.randbytes(16),
            compression=compression,
            large_value_bytes=1 << 10,
        )
        items = {b"%04d" % n: b"value %d " % n * (n % 9) for n in range(0, 100, 3)}
        items |= {b"gone": None, b"large": bytes(1500), b"k" * 300: b"long key"}
        keys = sorted(items)
        builder.add(keys, [items[key] for key in keys])
        builder.finish(1, 9)
        yield compression or "plain", all_files(files, "t")["t/x"]


def manifests():
    yield "fresh", Manifest(bytes(16)).encode()
    yield "clearing", Manifest(bytes(16), clearing=True).encode()
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, processes=False, memtable_bytes=64 << 10) as db:
        for n in range(3):
            db.write({b"%d-%d" % (n, m): bytes(m) for m in range(20)})
            db.checkpoint()
    yield "runs", all_files(files, "s")[os.path.join("s", "MANIFEST")]
    records = tuple(
        TableRecord(n, bytes([n]) * 16, 1000, 5, 1, 9, 3, 0, b"a", None, "zstd", 30)
        for n in range(1, 4)
    )
    yield "foreign", Manifest(bytes(16), 9, (records[2:], records[:2]), 9).encode()


def chunked(chunks):
    return b"".join(len(chunk).to_bytes(2, "little") + chunk for chunk in chunks)


def entries():
    yield "put", chunked(mutations.encode_at(1, {b"key": b"value"}))
    yield "batch", chunked(mutations.encode_at(1, {b"a": b"1", b"b": None, b"": b"", b"c": b"3"}))
    yield "nothing", chunked(mutations.encode_at(1, {}))


def names():
    yield "users", b"\x07\x00users\x01" + Entry(1, "json").pack()
    yield "deep", b"\x05\x02\x01\x00ab" + Entry(1 << 40, "bytes").pack()


def values():
    tree = {"a": [1, 2.5, None, True], "b": {"c": "text ü"}, "long": list(range(30))}
    yield "json", json.dumps(tree).encode()
    yield "msgpack", msgpack.packb(tree | {"bytes": b"\xff\x00", "time": msgpack.Timestamp(5, 6)})
    yield "text", "grüße".encode()


def answers():
    record = TableRecord(1, bytes(16), 1000, 5, 1, 9, 3, 0, b"a", b"c", None, 30)
    for name, message in {
        "ready": ["ready", []],
        "built": ["built", [["tmp-1-00ff", record.pack()]]],
        "corrupt": ["corrupt", ["path", 7, "reason"]],
        "system": ["system", [28, "no room", "path"]],
        "format": ["format", ["newer"]],
    }.items():
        pipe = Pipe()
        _send(pipe, message)
        yield name, pipe.data


SEEDS = {
    "segment": segments,
    "streamed": streamed_segments,
    "group": groups,
    "marker": markers,
    "tools": segments,
    "table": tables,
    "manifest": manifests,
    "mark": lambda: iter([("mark", encode_mark(bytes(range(16))))]),
    "entry": entries,
    "name": names,
    "value": values,
    "answer": answers,
}


def main():
    for target, seeds in SEEDS.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("seed-*"):
            old.unlink()
        for name, data in seeds():
            (directory / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
