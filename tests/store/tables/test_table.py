"""Tables and runs, built and read, over files and in memory."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from kvstore.errors import CorruptStoreError
from kvstore.tables.blobs import TableBlob
from kvstore.tables.builder import TableBuilder
from kvstore.tables.cache import Cache
from kvstore.tables.records import TableRecord, upper_bound
from kvstore.tables.runs import SortedRun
from kvstore.tables.table import Table
from kvstore.values import MISSING
from tests.store.tables.tables import ID, contents, get, plain, some_items, table, write

SHAPES = {
    "plain": {},
    "compressed": {"compression": "zlib"},
    "small blocks": {"block_bytes": 100},
    "blobs": {"large_value_bytes": 200},
}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


class TestReading:
    def test_all_that_was_added_and_nothing_else(self, files, directory, shape):
        items = some_items(1500)
        read = table(files, directory, items, **shape)
        assert {key: plain(get(read, key)) for key in items} == items
        assert all(get(read, key + b"!") is MISSING for key in items if key + b"!" not in items)
        read.verify()
        read.close()

    @pytest.mark.parametrize("cache_bytes", [0, 30_000])
    def test_with_hardly_any_memory(self, files, directory, shape, cache_bytes):
        items = some_items(1500)
        cache = Cache(cache_bytes)
        read = table(files, directory, items, cache=cache, **shape)
        for key in random.Random(2).sample(list(items), 500):
            assert plain(get(read, key)) == items[key]
            told = cache.statistics()
            assert told.bytes + told.piece_bytes <= cache_bytes

    def test_pages_between_bounds(self, files, directory, shape):
        items = some_items(800)
        read = table(files, directory, items, **shape)
        keys = list(items)
        rng = random.Random(3)
        bounds = [(b"", None), (keys[5], keys[5]), (keys[9], keys[3]), (keys[-1] + b"z", None)]
        bounds += [(rng.choice(keys), rng.choice([*keys, None])) for _ in range(30)]
        for low, high in bounds:
            expected = [k for k in keys if low <= k and (high is None or k < high)]
            pages = list(read.pages(low, high))
            assert [key for page in pages for key in page[0]] == expected
            assert contents(pages) == {key: items[key] for key in expected}
            back = list(read.pages(low, high, reverse=True, fill_cache=False))
            assert [page[0] for page in reversed(back)] == [page[0] for page in pages]

    def test_the_first_and_the_last_items_between_bounds(self, files, directory, shape):
        items = some_items(800)
        keys, rng = list(items), random.Random(4)
        read = table(files, directory, items, **shape)
        tables = [
            table(files, directory, {k: items[k] for k in keys[at : at + 200]}, number=at + 7)
            for at in range(0, len(keys), 200)
        ]
        places = [(b"", None), (keys[9], keys[3]), (keys[-1] + b"z", None), (b"", keys[0])]
        places += [(rng.choice(keys), rng.choice([*keys, None])) for _ in range(40)]
        for (low, high), most in itertools.product(places, (1, 3, 50, 900)):
            expected = [k for k in keys if low <= k and (high is None or k < high)]
            for source in (read, SortedRun([read]), SortedRun(tables)):
                page = source.some(low, high, most, reverse=False)
                assert contents([page]) == {key: items[key] for key in expected[:most]}
                page = source.some(low, high, most, reverse=True)
                assert page[0] == expected[-most:]
                assert contents([page]) == {key: items[key] for key in expected[-most:]}

    def test_long_keys_and_values(self, files, directory, shape):
        items = {
            bytes([n]) * length: bytes(length)
            for n, length in enumerate([0, 1, 255, 256, 65_535, 65_536, 70_000])
        }
        read = table(files, directory, items, **shape)
        assert contents(read.pages(b"", None)) == items
        assert {key: plain(get(read, key)) for key in items} == items
        assert get(read, b"\x02" * 254) is MISSING
        read.verify()

    def test_a_value_with_records_within(self, files, directory):
        inner = b"\xc4\x01b\xc4\x01x"
        items = {b"a": inner * 20, b"c": inner}
        read = table(files, directory, items)
        assert [get(read, key) for key in (b"a", b"b", b"c")] == [inner * 20, MISSING, inner]

    def test_an_empty_table(self, files, directory):
        read = table(files, directory, {})
        assert get(read, b"k") is MISSING
        assert list(read.pages(b"", None)) == []
        read.verify()

    def test_more_tiny_records_than_a_slot_can_number(self, files, directory):
        items = {b"%04x" % n: None for n in range(9000)}
        read = table(files, directory, items, block_bytes=1 << 20, step=9000)
        assert max(len(keys) for keys, _ in read.pages(b"", None)) == 4096
        assert all(get(read, key) is None for key in items)
        read.verify()

    def test_keys_with_equal_hashes(self, files, directory, monkeypatch):
        monkeypatch.setattr("kvstore.tables.reader.FACTOR", 0)
        monkeypatch.setattr("kvstore.tables.builder.hashes_of", lambda crcs: [0] * len(crcs))
        items = some_items(100)
        read = table(files, directory, items)
        assert {key: get(read, key) for key in items} == items
        assert get(read, b"not there") is MISSING

    def test_hashes_too_uneven_for_a_filter(self, files, directory, monkeypatch):
        monkeypatch.setattr("kvstore.tables.builder.make_filter", lambda hashes: None)
        items = some_items(100)
        read = table(files, directory, items)
        assert {key: get(read, key) for key in items} == items
        assert get(read, b"not there") is MISSING

    def test_from_many_threads(self, files, directory, shape):
        items = some_items(500)
        read = table(files, directory, items, cache=Cache(20_000), **shape)
        wrong = []

        def look(seed):
            for key in random.Random(seed).sample(list(items), 400):
                if plain(get(read, key)) != items[key]:
                    wrong.append(key)
                if seed == 1:
                    read.let_go()

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class TestBlobs:
    LARGE = bytes(range(256)) * (9 << 10)  # 2.25 MiB: three pieces

    def test_read_whole_and_in_pieces(self, files, directory):
        read = table(files, directory, {b"k": self.LARGE, b"l": b"v"})
        blob = get(read, b"k")
        assert (blob.length, blob.read()) == (len(self.LARGE), self.LARGE)
        assert [len(piece) for piece in blob.pieces()] == [1 << 20, 1 << 20, 1 << 18]

    def test_copied_from_table_to_table(self, files, directory):
        blob = get(table(files, directory, {b"k": self.LARGE}), b"k")
        copy = table(files, directory, {b"a": b"1", b"k": blob}, number=2)
        assert get(copy, b"k").read() == self.LARGE
        assert copy.record.value_bytes == len(self.LARGE) + 1

    def test_a_source_of_another_length(self, files, directory):
        class Source:
            length = 5

            def pieces(self):
                yield b"four"

        builder = TableBuilder(files, os.path.join(directory, "tmp"), ID)
        with pytest.raises(ValueError, match="length"):
            builder.add([b"k"], [Source()])
        builder.abandon()
        assert files.list(directory) == []

    def test_a_blob_keeps_its_table(self, files, directory):
        removed = queue.SimpleQueue()
        read = table(files, directory, {b"k": self.LARGE})
        contents(read.pages(b"", None))
        read.retire(removed.put)
        blob, path = get(read, b"k"), read.path
        del read
        gc.collect()
        assert removed.empty()
        assert blob.read() == self.LARGE
        del blob
        gc.collect()
        assert removed.get_nowait() == path


class TestBuilder:
    def test_the_record(self, files, directory):
        items = {b"a": b"12", b"b" * 70: None, b"c" * 70: b"3"}
        record = write(files, directory, items, compression="zlib")
        assert (record.items, record.tombstones, record.value_bytes) == (3, 1, 3)
        assert (record.low, record.high) == (b"a", b"c" * 63 + b"d")
        assert (record.first_entry_id, record.last_entry_id) == (1, 9)
        assert TableRecord.unpack(record.pack()) == record

    def test_no_upper_bound(self):
        assert upper_bound(b"\xff" * 64) == b"\xff" * 64
        assert upper_bound(b"\xff" * 65) is None

    @pytest.mark.parametrize("step", [1, 7, 10_000])
    def test_the_same_bytes_however_they_were_added(self, files, directory, step):
        items = some_items(600)
        assert write(files, directory, items, step=step) == replace(
            write(files, directory, items, number=2), number=1
        )

    @pytest.mark.parametrize("second", [b"a", b"b", b"bb"])
    def test_keys_that_do_not_ascend(self, files, directory, second):
        builder = TableBuilder(files, os.path.join(directory, "tmp"), ID, block_bytes=1)
        with pytest.raises(ValueError, match="ascend"):
            builder.add([b"c", second], [b"", b""])
        builder.add([b"bb"], [b""])
        with pytest.raises(ValueError, match="ascend"):
            builder.add([second], [b""])
        builder.abandon()

    def test_values_of_other_types(self, files, directory):
        builder = TableBuilder(files, os.path.join(directory, "tmp"), ID)
        with pytest.raises(TypeError, match="int"):
            builder.add([b"k"], [7])
        builder.abandon()
        builder.abandon()

    def test_its_estimate_of_the_size(self, files, directory):
        items = some_items(3000)
        builder = TableBuilder(files, os.path.join(directory, "tmp"), ID)
        builder.add(list(items), list(items.values()))
        estimate = builder.size
        assert abs(builder.finish(1, 2).size - estimate) < estimate / 50


class TestFiles:
    def test_making_one_does_no_io_and_a_missing_file_is_damage(self, files, directory):
        read = Table(files, directory, write(files, directory, {b"k": b"v"}), Cache(1000))
        files.remove(read.path)
        for touch in (read.open, lambda: get(read, b"k"), lambda: list(read.pages(b"", None))):
            with pytest.raises(CorruptStoreError, match="missing") as caught:
                touch()
            assert isinstance(caught.value.__cause__, FileNotFoundError)

    def test_too_many_open_files(self, files, directory):
        cache = Cache(1 << 20)
        cache.open_tables.most = 3
        tables = [
            table(files, directory, {b"k": b"%d" % n}, number=n, cache=cache) for n in range(10)
        ]
        for _ in range(2):
            assert [get(read, b"k") for read in tables] == [b"%d" % n for n in range(10)]
            assert sum(read._reader is not None for read in tables) == 3
        tables[0].open()
        for read in tables[1:]:
            get(read, b"k")
        assert tables[0]._reader is not None

    def test_an_open_one_outlives_its_name(self, files, directory):
        read = table(files, directory, some_items(500))
        read.open()
        if os.name != "nt":
            files.remove(read.path)
            read.verify()


class TestRuns:
    def tables(self, files, directory, items, count):
        keys = list(items)
        cuts = [len(keys) * n // count for n in range(count + 1)]
        return [
            table(files, directory, {k: items[k] for k in keys[a:b]}, number=n)
            for n, (a, b) in enumerate(pairwise(cuts))
        ]

    @pytest.mark.parametrize("prefix", [b"", b"p" * 80])
    def test_reads_as_one(self, files, directory, prefix):
        items = {prefix + key: value for key, value in some_items(400).items()}
        run = SortedRun(self.tables(files, directory, items, 5))
        assert {key: get(run, key) for key in items} == items
        assert get(run, b"~") is MISSING
        assert get(run, prefix + b"~~~") is MISSING
        assert contents(run.pages(b"", None)) == items
        back = [key for page in run.pages(b"", None, reverse=True) for key in reversed(page[0])]
        assert back == list(items)[::-1]
        keys = list(items)
        assert list(contents(run.pages(keys[7], keys[201]))) == keys[7:201]
        assert (run.items, run.tombstones) == (len(items), list(items.values()).count(None))

    def test_no_tables(self):
        assert get(SortedRun([]), b"k") is MISSING
        assert list(SortedRun([]).pages(b"", None)) == []
        assert SortedRun([]).some(b"", None, 1, reverse=False) == ([], [])


def test_blobs_are_told_by_their_type(files, directory):
    read = table(files, directory, {b"k": bytes(70_000)})
    assert isinstance(get(read, b"k"), TableBlob)
