"""The change feed: over a bare log, where every step can be held; and through a store."""

from __future__ import annotations

import dataclasses
import gc
import random
import threading

import pytest

import kvstore
import wal
from kvstore.change_feed import Change, ChangeFeed
from kvstore.errors import (
    ChangesLostError,
    CorruptStoreError,
    FormatVersionError,
    StoreClosedError,
    translate,
)
from kvstore.keyspaces import Keyspace, directory_key
from kvstore.mutations import encode_at
from kvstore.pulse import Pulse
from wal.files import MemoryFileSystem

PATIENCE = 10.0
SECOND = 1_000_000_000
KEEP = {"retain_bytes": 1 << 30}


class Keeper(wal.LogManager):
    """A store of which only the log is there: what is visible, and a beat for each commit."""

    def __init__(self):
        self.pulse = Pulse()
        self.visible = 0
        self.entered = threading.Semaphore(0)
        self.hold = threading.Event()
        self.hold.set()

    def recover(self, entry):
        self.visible = entry.id

    def checkpoint_to(self, last_id, entries, log):
        pass

    def committed(self, entry_id, segment_id, chunks):
        if not self.hold.is_set():
            self.entered.release()
        assert self.hold.wait(PATIENCE)
        self.visible = entry_id
        self.pulse.beat()


class Made:
    """A log, written with mutations of stored keys."""

    def __init__(self, files=None, **options):
        self.files = MemoryFileSystem() if files is None else files
        self.manager = Keeper()
        self.pulse = self.manager.pulse
        options = {"preallocate_bytes": 64 << 10, "flush_interval": 3600, **options}
        self.configuration = wal.Configuration("log", file_system=self.files, **options)
        self.log = self.configuration.open(self.manager)
        self.names = {0: (), 1: (b"users",), 300: (b"users", b"old")}
        self.asked = []

    def write(self, mutations, *, now=SECOND, durability=None):
        return self.log.append(encode_at(now, mutations), durability=durability)

    def feed(self, after=None, *, follow=False):
        return ChangeFeed(
            lambda: self.log,
            lambda: self.manager.visible,
            self.name_of,
            self.pulse,
            translate,
            after=after,
            follow=follow,
        )

    def name_of(self, number):
        self.asked.append(number)
        return self.names.get(number)

    def checkpoint(self):
        self.log.checkpoint_active(wait=True)

    def close(self):
        self.pulse.close()
        self.log.shutdown()


@pytest.fixture
def made():
    made = Made(**KEEP)
    yield made
    made.close()


class Follower:
    """A thread that takes changes, and what it has taken."""

    def __init__(self, feed, arrived=None):
        self.feed = feed
        self.taken = []
        self.error = None
        self.arrived = threading.Semaphore(0) if arrived is None else arrived
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            for change in self.feed:
                self.taken.append(change)
                self.arrived.release()
        except BaseException as error:  # noqa: BLE001 - for who joins
            self.error = error

    def wait_for(self, count):
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE)
        return self.taken

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.taken


def until_waiting(pulse, count=1):
    """Wait until so many followers wait; they come to it."""
    moment = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if pulse.waiting == count:
            return
        moment.wait(0.001)
    raise AssertionError("nobody waits")


# -- what a change says ----------------------------------------------------------------------------


def test_each_commit_in_order(made):
    ids = [
        made.write({b"a": b"1", b"b": None}, now=5 * SECOND // 2),
        made.write({b"": b""}, now=2 * SECOND),
        made.write({b"c": b"3"}),
    ]
    changes = [*made.feed()]
    assert changes == [
        Change(ids[0], 2.5, (), ((b"a", b"1"), (b"b", None)), True),
        Change(ids[1], 2.0, (), ((b"", b""),), True),
        Change(ids[2], 1.0, (), ((b"c", b"3"),), True),
    ]
    assert [*made.feed(after=ids[0])] == changes[1:]
    assert [*made.feed(after=ids[2])] == []
    assert [*made.feed(after=ids[2] + 1000)] == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        changes[0].entry_id = 7


def test_namespaces(made):
    users, old = Keyspace(1), Keyspace(300)
    made.write(
        {
            directory_key(0, b"users"): b"entry",
            old.stored(b"\xff\x02k"): b"1",
            b"\xff\x00\xff": b"2",  # the root's key FF FF
            users.stored(b""): None,
            b"k": b"3",
            old.stored(b"a"): None,
            directory_key(1, b"old"): b"entry",
        }
    )
    made.write({directory_key(0, b"empty"): b"entry"})
    made.write({users.stored(b"z"): b"4"})
    first, second, third, last = made.feed()
    assert [(c.namespace, c.items, c.completes) for c in (first, second, third)] == [
        ((b"users", b"old"), ((b"\xff\x02k", b"1"), (b"a", None)), False),
        ((), ((b"\xff\xff", b"2"), (b"k", b"3")), False),
        ((b"users",), ((b"", None),), True),
    ]
    assert first.entry_id == second.entry_id == third.entry_id < last.entry_id
    assert (last.namespace, last.items, last.completes) == ((b"users",), ((b"z", b"4"),), True)
    assert [*made.feed(after=first.entry_id)] == [last]
    assert sorted(made.asked[:3]) == [0, 1, 300]  # each once in a feed
    assert len(made.asked) == 4


def test_large_values(made):
    value = random.Random(1).randbytes(300 << 10)
    with made.log.begin_entry() as entry:
        for chunk in encode_at(SECOND, {b"k": value, b"l": b"x"}):
            entry.write_chunk(chunk)
        entry.commit(on_commit=lambda entry_id, _: made.manager.committed(entry_id, 0, ()))
    (change,) = made.feed()
    assert change.items == ((b"k", value), (b"l", b"x"))


@pytest.mark.parametrize("after", [-1, 1.5, "1", True])
def test_wrong_starts(made, after):
    with pytest.raises((TypeError, ValueError), match="after"):
        made.feed(after)


def test_what_is_not_the_stores(made):
    made.write({b"a": b"1"})
    made.log.append([b"\x01" + bytes(8) + b"\x01", b"k"])
    feed = made.feed()
    next(feed)
    for _ in range(2):  # it does not go on behind it
        with pytest.raises(CorruptStoreError, match="entry 2"):
            next(feed)
    made.log.append([b"\x02" + bytes(8)])
    with pytest.raises(FormatVersionError):
        next(made.feed(after=2))
    made.write({Keyspace(77).stored(b"k"): b""})
    with pytest.raises(CorruptStoreError, match="77"):
        next(made.feed(after=3))
    made.write({b"\xff\x01\x09k": b""})
    with pytest.raises(CorruptStoreError):
        next(made.feed(after=4))


# -- how far ---------------------------------------------------------------------------------------


def test_it_ends_with_what_is_durable(made):
    made.write({b"a": b"1"})
    made.write({b"b": b"2"}, durability=wal.Durability.BUFFER)
    assert made.manager.visible == 2
    feed = made.feed()
    assert [change.entry_id for change in feed] == [1]
    assert [*feed] == []  # an iterator that has ended stays so
    made.log.sync()
    assert [*feed] == []
    assert [change.entry_id for change in made.feed()] == [1, 2]


def test_it_ends_with_what_is_visible(made):
    made.write({b"a": b"1"})
    made.manager.hold.clear()
    tickets = [made.log.submit(encode_at(SECOND, {b"b": b"2"})) for _ in range(3)]
    assert made.manager.entered.acquire(timeout=PATIENCE)
    assert made.log.durable_entry_id >= 2
    assert [change.entry_id for change in made.feed()] == [1]
    made.manager.hold.set()
    for ticket in tickets:
        ticket.wait(PATIENCE)
    assert [change.entry_id for change in made.feed()] == [1, 2, 3, 4]


def test_what_comes_meanwhile_is_there(made):
    made.write({b"a": b"1"})
    feed = made.feed()
    assert next(feed).entry_id == 1
    made.write({b"b": b"2"})
    made.checkpoint()
    made.write({b"c": b"3"})
    assert [change.entry_id for change in feed] == [2, 3]


# -- what is kept ----------------------------------------------------------------------------------


def test_resumed_in_another_life():
    files = MemoryFileSystem()
    made = Made(files, **KEEP)
    seen = []
    last = 0
    for number in range(9):
        made.write({b"%d" % number: b""})
        if number % 3 == 1:
            made.checkpoint()
        if number % 4 == 3:
            for change in made.feed(after=last):
                seen += [key for key, _ in change.items]
                last = change.entry_id
            made.close()
            made = Made(files, **KEEP)
            made.manager.visible = made.log.last_entry_id
    seen += [change.items[0][0] for change in made.feed(after=last)]
    assert seen == [b"%d" % number for number in range(9)]
    made.close()


def gone(made):
    """Changes of which the first are not kept; the id of the first that is."""
    for _ in range(3):
        made.write({b"a": b""})
    made.checkpoint()
    return made.write({b"b": b""})


def test_lost_at_the_start():
    made = Made()
    oldest = gone(made)
    with pytest.raises(ChangesLostError) as caught:
        next(made.feed(after=1))
    assert caught.value.oldest_id == oldest
    assert isinstance(caught.value.__cause__, wal.PositionNotFoundError)
    assert [change.entry_id for change in made.feed(after=oldest - 1)] == [oldest]
    assert [change.entry_id for change in made.feed()] == [oldest]
    made.close()


def test_lost_midway():
    made = Made()
    for _ in range(3):
        made.write({b"a": b""})
    feed = made.feed()
    assert next(feed).entry_id == 1  # it holds the segment
    made.checkpoint()
    for _ in range(2):
        made.write({b"b": b""})
        made.checkpoint()
    oldest = made.write({b"c": b""})
    assert [next(feed).entry_id, next(feed).entry_id] == [2, 3]
    for _ in range(2):
        with pytest.raises(ChangesLostError) as caught:
            next(feed)
        assert caught.value.oldest_id == oldest
    made.close()


def test_lost_before_the_first_look():
    """From the oldest on: what is there when the feed is made must not vanish without a word."""
    made = Made()
    feeds = [made.feed(), made.feed(follow=True)]
    gone(made)
    for feed in feeds:
        with pytest.raises(ChangesLostError):
            next(feed)
    made.close()


# -- following -------------------------------------------------------------------------------------


def test_a_follower_waits_for_more(made):
    made.write({b"a": b"1"})
    follower = Follower(made.feed(follow=True))
    follower.wait_for(1)
    for number in range(5):
        until_waiting(made.pulse)
        assert made.log.stats().segments_pinned == 0
        made.write({b"b": b"%d" % number})
        follower.wait_for(1)
    made.checkpoint()
    until_waiting(made.pulse)
    assert [segment.pins for segment in made.log._registry] == [0, 0]  # it holds nothing
    made.pulse.close()
    assert [change.entry_id for change in follower.join()] == [1, 2, 3, 4, 5, 6]


def test_a_follower_sees_what_becomes_durable_later(made):
    follower = Follower(made.feed(follow=True))
    until_waiting(made.pulse)
    made.write({b"a": b"1"}, durability=wal.Durability.BUFFER)
    until_waiting(made.pulse)
    assert follower.taken == []
    made.log.sync()
    follower.wait_for(1)
    follower.feed.close()
    assert [change.entry_id for change in follower.join()] == [1]


def test_without_a_beat_a_follower_looks_again_now_and_then(made):
    made.pulse._seldom = 0.001
    made.pulse.beat = lambda: None
    follower = Follower(made.feed(follow=True))
    until_waiting(made.pulse)
    made.write({b"a": b"1"})
    follower.wait_for(1)
    made.pulse.close()
    follower.join()


def test_closed_by_another_thread_while_it_waits(made):
    followers = [Follower(made.feed(follow=True)) for _ in range(3)]
    until_waiting(made.pulse, 3)
    followers[1].feed.close()
    assert followers[1].join() == []
    until_waiting(made.pulse, 2)
    made.write({b"a": b"1"})
    for follower in (followers[0], followers[2]):
        follower.wait_for(1)
        follower.feed.close()
        follower.feed.close()
        assert len(follower.join()) == 1
    assert made.pulse.waiting == 0


def test_closed_in_the_middle(made):
    for _ in range(3):
        made.write({b"a": b"1"})
    with made.feed(follow=True) as feed:
        next(feed)
        made.checkpoint()
        assert sum(segment.pins for segment in made.log._registry) == 1
    assert sum(segment.pins for segment in made.log._registry) == 0
    assert [*feed] == []


def test_dropped_in_the_middle(made):
    for _ in range(3):
        made.write({b"a": b"1"})
    feed = made.feed()
    next(feed)
    del feed
    gc.collect()
    assert sum(segment.pins for segment in made.log._registry) == 0


def test_the_end_of_the_store():
    made = Made(**KEEP)
    for _ in range(3):
        made.write({b"a": b"1"})
    plain, following = made.feed(), made.feed(follow=True)
    next(plain)
    next(following)
    follower = Follower(made.feed(follow=True))
    follower.wait_for(3)
    made.close()
    assert len(follower.join()) == 3
    assert [*following] == []
    with pytest.raises(StoreClosedError):
        next(plain)
    with pytest.raises(StoreClosedError):
        made.feed()


def test_the_end_of_the_log_alone():
    """It was shut down, and nobody said so."""
    made = Made(**KEEP)
    made.write({b"a": b"1"})
    plain, following = made.feed(), made.feed(follow=True)
    made.log.shutdown()
    assert [*following] == []
    with pytest.raises(StoreClosedError):
        next(plain)


def test_a_reader_that_has_a_fresh_log(made):
    """As after a refresh beside a writer: the log that was read is shut down, another is there."""
    for _ in range(4):
        made.write({b"a": b"1"})
        made.checkpoint()
    writer = made.log
    made.log = dataclasses.replace(made.configuration, read_only=True).open(Keeper())
    feed, following = made.feed(), made.feed(follow=True)
    ids = [next(feed).entry_id, next(following).entry_id]
    former, made.log = made.log, writer
    former.shutdown()
    ids += [change.entry_id for change in feed]
    assert ids == [1, 1, 2, 3, 4]
    assert [next(following).entry_id for _ in range(3)] == [2, 3, 4]
    following.close()


def test_entries_that_are_nobodys(made):
    """The log's last id may be above all that it has: who follows must not look on and on."""
    made.write({b"a": b"1"})
    feed = made.feed(after=0, follow=True)
    next(feed)
    log, looks = made.log, []

    class Ahead:
        durable_entry_id = 50

        def entries(self, after):
            looks.append(after)
            return log.entries(after)

    feed._log = Ahead
    made.manager.visible = 50
    follower = Follower(feed)
    until_waiting(made.pulse)
    assert len(looks) <= 1
    feed.close()
    assert follower.join() == []


def test_an_interrupt_loses_nothing(made):
    for _ in range(4):
        made.write({b"a": b"1"})
    feed = made.feed()
    ids = [next(feed).entry_id]
    for name in ("_changes", "_entry"):

        def interrupted(*arguments, name=name):
            getattr(ChangeFeed, name)(feed, *arguments)
            raise KeyboardInterrupt

        setattr(feed, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(feed)
        delattr(feed, name)
    assert ids + [change.entry_id for change in feed] == [1, 2, 3, 4]


def test_threads_share_a_feed(made):
    count = 300
    feed = made.feed(follow=True)
    arrived = threading.Semaphore(0)
    followers = [Follower(feed, arrived) for _ in range(4)]
    for number in range(count):
        made.write({b"k": b"%d" % number}, durability=wal.Durability.BUFFER)
        if number % 50 == 0:
            made.checkpoint()
    made.log.sync()
    followers[0].wait_for(count)
    feed.close()
    taken = [change.entry_id for follower in followers for change in follower.join()]
    assert sorted(taken) == [*range(1, count + 1)]


def test_followers_beside_writers(made):
    followers = [Follower(made.feed(follow=True)) for _ in range(2)]
    each = 100

    def write(name):
        for number in range(each):
            durability = (wal.Durability.FSYNC, wal.Durability.BUFFER)[number % 2]
            made.write({b"%d" % name: b"%d" % number}, durability=durability)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE)
    made.checkpoint()
    for follower in followers:
        taken = follower.wait_for(4 * each)
        assert [change.entry_id for change in taken] == [*range(1, 4 * each + 1)]
        for name in range(4):
            mine = [value for c in taken for key, value in c.items if key == b"%d" % name]
            assert mine == [b"%d" % number for number in range(each)]
    made.pulse.close()
    for follower in followers:
        follower.join()


# -- through a store -------------------------------------------------------------------------------


def open_store(files, **options):
    return kvstore.open("db", file_system=files, **{**KEEP, **options})


def test_a_stores_changes():
    files = MemoryFileSystem()
    with open_store(files) as db:
        db.put(b"a", b"1")
        users = db.namespace(b"users")
        with db.batch() as batch:
            batch.put(b"b", b"2")
            batch.namespace(b"users").put(b"ann", b"40")
        users.namespace(b"old").put(b"\xff", b"5")
        db.delete(b"a")
        expected = [
            ((), ((b"a", b"1"),)),
            ((), ((b"b", b"2"),)),
            ((b"users",), ((b"ann", b"40"),)),
            ((b"users", b"old"), ((b"\xff", b"5"),)),
            ((), ((b"a", None),)),
        ]
        changes = [*db.changes()]
        assert [(change.namespace, change.items) for change in changes] == expected
        db.checkpoint()
        assert [*db.changes()] == changes
        assert changes[-1].entry_id == db.last_entry_id
    with open_store(files) as db:
        assert [*db.changes()] == changes
        assert [*db.changes(after=changes[0].entry_id)] == changes[1:]


def test_a_stores_changes_are_lost_without_retention():
    with open_store(MemoryFileSystem(), retain_bytes=0) as db:
        db.put(b"a", b"1")
        db.checkpoint()
        db.put(b"b", b"2")
        with pytest.raises(ChangesLostError) as caught:
            next(iter(db.changes(after=0)))
        assert caught.value.oldest_id == db.last_entry_id


def test_a_store_is_followed():
    with open_store(MemoryFileSystem()) as db:
        follower = Follower(db.changes(follow=True))
        for number in range(20):
            db.put(b"k", b"%d" % number)
        db.put(b"large", bytes(200 << 10))
        follower.wait_for(21)
    taken = follower.join()
    assert [change.items[0][1] for change in taken[:-1]] == [b"%d" % n for n in range(20)]
    assert taken[-1].items == ((b"large", bytes(200 << 10)),)


def test_a_reader_beside_a_writer(tmp_path):
    path = tmp_path / "db"
    with kvstore.open(path, **KEEP) as db:
        for number in range(3):
            db.put(b"k", b"%d" % number)
        with kvstore.open(path, "r") as beside:
            seen = [change.items[0][1] for change in beside.changes()]
            assert seen == [b"%d" % number for number in range(len(seen))]
            follower = Follower(beside.changes(follow=True))
            follower.wait_for(len(seen))
            db.checkpoint()
            db.put(b"k", b"3")
            db.checkpoint()
            beside.refresh()
            follower.wait_for(4 - len(seen))
            assert [change.entry_id for change in beside.changes()] == [
                change.entry_id for change in db.changes()
            ]
        taken = follower.join()
    assert [change.items[0][1] for change in taken] == [b"0", b"1", b"2", b"3"]


def test_replayed_changes_are_the_store():
    """Whatever is written, checkpointed, reopened: a copy kept by the feed alone is the same."""
    rng = random.Random(5)
    files = MemoryFileSystem()
    copy = {(): {}, (b"n",): {}, (b"n", b"m"): {}}
    last = 0
    for _ in range(4):
        with open_store(files, memtable_bytes=64 << 10, log_segment_bytes=32 << 10) as db:
            nested = db.namespace(b"n")
            places = [db, nested, nested.namespace(b"m")]
            for _ in range(200):
                place = rng.choice(places)
                key = b"%d" % rng.randrange(50)
                if rng.random() < 0.3:
                    place.delete(key)
                else:
                    place.put(key, rng.randbytes(rng.choice((3, 300, 3000))))
                if rng.random() < 0.02:
                    db.checkpoint()
                if rng.random() < 0.05:
                    last = replay(db.changes(after=last), copy, last)
            last = replay(db.changes(after=last), copy, last)
            assert last == db.last_entry_id
            for place, names in zip(places, copy, strict=True):
                assert dict(place.scan()) == copy[names]


def replay(changes, copy, last):
    for change in changes:
        assert change.entry_id >= last
        for key, value in change.items:
            if value is None:
                copy[change.namespace].pop(key, None)
            else:
                copy[change.namespace][key] = value
        last = change.entry_id
    return last
