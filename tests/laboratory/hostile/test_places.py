"""Who else may read or write what a store leaves, and what may stand in the place of its files.

Proved on the operating system's own files: every file that a store or a log ever makes has mode
0600 and every directory 0700, or less where the umask says so, whoever makes it (a worker's process
too); a directory that was there keeps its mode, and one that everybody may write to is warned of. A
store may be reached through links and is one store all the same; a link, a pipe, a device or a
directory in the place of one of its files is refused at once, by an error that names it.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import sys

import pytest

import kvstore
import wal
from tests.laboratory.hostile.log_targets import Reading, close
from wal.cli.commands import main as wal_tool
from wal.files import StandardFileSystem

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other modes and links")

OPTIONS = {"memtable_bytes": 64 << 10, "large_value_bytes": 1 << 10}


@pytest.fixture(params=[0o000, 0o277], ids=oct)
def umask(request):
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


@pytest.fixture
def modes(monkeypatch):
    """The mode of every file and directory that is made, looked at once it has a name."""
    seen = {}

    def note(path):
        seen[path] = stat.S_IMODE(os.lstat(path).st_mode)

    create, rename = StandardFileSystem.create, StandardFileSystem.rename

    def noted_create(self, path):
        file = create(self, path)
        note(path)
        return file

    def noted_rename(self, old, new):
        rename(self, old, new)
        note(new)

    monkeypatch.setattr(StandardFileSystem, "create", noted_create)
    monkeypatch.setattr(StandardFileSystem, "rename", noted_rename)
    return seen


def modes_below(top):
    for directory, _, files in os.walk(top):
        yield directory, stat.S_IMODE(os.stat(directory).st_mode)
        for name in files:
            path = os.path.join(directory, name)
            yield path, stat.S_IMODE(os.stat(path).st_mode)


def busy(path, backup, **options):
    """A store that does all that makes files."""
    with kvstore.open(path, **OPTIONS, retain_bytes=1 << 20, **options) as db:
        for number in range(5):
            db.write({b"%d-%d" % (number, n): bytes(n * 10) for n in range(150)})
            db.checkpoint()
        db.compact()
        db[b"in the log"] = b"1"
        db.backup(backup)
        return [w.pid for w in (db._parts._compactor._worker,) if w.pid]


def test_modes_of_all_that_is_made(tmp_path, modes, umask, monkeypatch):
    if umask & 0o200 and os.geteuid():
        pytest.skip("only root writes to what nobody may write to")
    monkeypatch.setattr("kvstore.background.worker.LEAST_BYTES", 0)
    top = str(tmp_path / "new")
    path, backup = os.path.join(top, "a", "s"), os.path.join(top, "b")
    busy(path, backup)
    out = os.path.join(top, "saved")
    assert wal_tool(["salvage", os.path.join(path, "wal"), out]) == 0
    kinds = {os.path.basename(each).partition("-")[0] for each in modes}
    assert {"MANIFEST.new", "MANIFEST", "CHECKPOINT", "wal", "kept", "free", "BACKUP"} <= kinds
    seen = {**modes, **dict(modes_below(top))}
    wrong = {
        each: oct(mode)
        for each, mode in seen.items()
        if mode != (0o700 if os.path.isdir(each) else 0o600) & ~umask
    }
    # The lock's mode is set by a call of its own, which the umask does not touch.
    assert {each for each in wrong if os.path.basename(each) != "LOCK"} == set()
    assert set(wrong.values()) <= {oct(0o600)}


def test_a_worker_makes_its_files_alike(tmp_path):
    from kvstore.background.worker import Worker
    from tests.store.disk import segment_job

    former = os.umask(0)
    try:
        files = StandardFileSystem()
        job = segment_job(files, str(tmp_path / "d"), [{b"k": b"v"}])
        worker = Worker(files, least_bytes=0)
        try:
            (built,) = worker.run(job)
            assert worker.pid not in (None, os.getpid())
        finally:
            worker.stop()
    finally:
        os.umask(former)
    assert stat.S_IMODE(os.stat(tmp_path / "d" / built.name).st_mode) == 0o600


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o700, None), (0o755, None), (0o775, logging.INFO), (0o777, logging.WARNING)],
    ids=["0700", "0755", "0775", "0777"],
)
@pytest.mark.parametrize("place", ["s", os.path.join("s", "wal"), os.path.join("s", "tables")])
def test_a_directory_that_others_may_write_to(tmp_path, caplog, place, mode, level):
    path = str(tmp_path / "s")
    kvstore.open(path, **OPTIONS).close()
    os.chmod(tmp_path / place, mode)
    caplog.set_level(logging.INFO, logger="wal.files")
    kvstore.open(path, "r", **OPTIONS).close()
    assert caplog.records == []
    kvstore.open(path, **OPTIONS).close()
    told = [(each.levelno, each.getMessage()) for each in caplog.records]
    assert [number for number, _ in told] == ([] if level is None else [level])
    for _, message in told:
        assert str(tmp_path / place) in message
        assert f"{mode:04o}" in message
    assert stat.S_IMODE(os.stat(tmp_path / place).st_mode) == mode, "it is the user's to choose"


# ------------------------------------------------------------------ links


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "s")
    with kvstore.open(path, **OPTIONS) as db:
        db[b"k"] = b"v"
        db.checkpoint()
        db[b"tail"] = b"t"
    return path


def test_a_store_through_links_is_one_store(tmp_path, path):
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    os.symlink(path, one)
    os.symlink(os.path.basename(path), other)
    with kvstore.open(one, **OPTIONS) as db:
        for way in (one, other, path):
            with pytest.raises(kvstore.StoreLockedError):
                kvstore.open(way, **OPTIONS)
        os.remove(one)  # it was followed once, at the opening
        os.symlink(tmp_path, one)
        db[b"more"] = b"m"
        db.checkpoint()
    with kvstore.open(other, "r") as db:
        assert dict(db.scan()) == {b"k": b"v", b"more": b"m", b"tail": b"t"}


@pytest.mark.parametrize("part", ["wal", "tables"])
def test_a_part_on_another_disk(tmp_path, path, part):
    """Links to directories are for that, and are followed."""
    shutil.move(os.path.join(path, part), tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", os.path.join(path, part))
    for flag in "wr":
        with kvstore.open(path, flag, **OPTIONS) as db:
            assert db[b"k"] + db[b"tail"] == b"vt"
            if flag == "w":
                db[b"more"] = b"m"
                db.checkpoint()
    assert kvstore.verify(path).ok


def names_in(path):
    """One file of each kind, as its path in the store."""
    found = {}
    for directory, _, names in os.walk(path):
        for name in names:
            kind = name.split("-")[0] if "-" in name else os.path.splitext(name)[1] or name
            found[kind] = os.path.relpath(os.path.join(directory, name), path)
    return found


KINDS = ["MANIFEST", "LOCK", "CHECKPOINT", "wal", ".table"]


def as_link(place, tmp_path):
    """The file itself, elsewhere, and a link to it: no byte of it is wrong."""
    shutil.move(place, tmp_path / "target")
    os.symlink(tmp_path / "target", place)


def as_dangling_link(place, tmp_path):
    os.remove(place)
    os.symlink(tmp_path / "target", place)


def as_pipe(place, tmp_path):
    os.remove(place)
    os.mkfifo(place)


def as_directory(place, tmp_path):
    os.remove(place)
    os.mkdir(place)


def as_device(place, tmp_path):
    os.remove(place)
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # as /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange", [as_link, as_dangling_link, as_pipe, as_directory, as_device])
def test_what_stands_in_the_place_of_a_file(tmp_path, path, kind, exchange):
    """It is refused by name, at once, and nothing is written through it."""
    place = os.path.join(path, names_in(path)[kind])
    exchange(place, tmp_path)
    target = tmp_path / "target"
    before = target.read_bytes() if target.exists() else None
    for flag in "rw":
        if (kind, flag) == ("LOCK", "r"):
            continue  # a reader takes none
        with pytest.raises((OSError, kvstore.CorruptStoreError)) as caught:
            use(path, flag)
        named = getattr(caught.value, "filename", None) or getattr(caught.value, "path", "")
        assert os.path.dirname(place) in str(named)
        if exchange in (as_link, as_dangling_link) and isinstance(caught.value, OSError):
            assert caught.value.errno == errno.ELOOP or kind == "CHECKPOINT"
    assert (target.read_bytes() if target.exists() else None) == before
    if kind != "LOCK":
        assert not kvstore.verify(path).ok


def use(path, flag):
    with kvstore.open(path, flag, **OPTIONS) as db:
        assert db[b"k"] + db[b"tail"] == b"vt"


@pytest.mark.parametrize("name", ["MANIFEST.new", "CHECKPOINT-new", "tmp-1-00", "free-0", "BACKUP"])
def test_a_planted_link_is_not_written_through(tmp_path, path, name):
    """Names that a store is about to use: whoever plants links there gains nothing."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    below = {"CHECKPOINT-new": "wal", "free-0": "wal", "tmp-1-00": "tables"}.get(name, "")
    os.symlink(target, os.path.join(path, below, name))
    refusals = []
    try:
        with kvstore.open(path, **OPTIONS) as db:
            for number in range(3):
                db.write({b"%d" % number: bytes(40_000)})
                db.checkpoint()
    except OSError as error:
        refusals.append(str(error))
    assert all(name in refusal for refusal in refusals)
    assert target.read_bytes() == b"precious"
    assert stat.S_IMODE(target.stat().st_mode) & 0o077 == 0o044 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_log_of_its_own(tmp_path):
    """The same without a store."""
    path = str(tmp_path / "log")
    log = wal.Configuration(path, preallocate_bytes=4096).open(Reading())
    log.append([b"x"])
    close(log)
    (segment,) = (name for name in os.listdir(path) if name.startswith("wal-"))
    as_link(os.path.join(path, segment), tmp_path)
    for read_only in (False, True):
        with pytest.raises(OSError, match="symbolic link") as caught:
            wal.Configuration(path, read_only=read_only).open(Reading())
        assert caught.value.filename == os.path.join(path, segment)
