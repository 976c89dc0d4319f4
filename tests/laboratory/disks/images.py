"""Real file systems in files: made, mounted, filled, made read-only, and cut off from their disk.

Needs Linux, root, and a program that makes the file system; :func:`missing` says what is not there.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import struct
import subprocess
import sys
import time

MAKE = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-m", "0"], 64),
    "xfs": (["mkfs.xfs", "-q", "-f"], 300),  # it makes none that is smaller
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128),
}
"""What makes each, and the megabytes of the image. It takes up only what is written to it."""

#: Options under which a disk is left in more ways than by default: without the help that ext4 gives
#: to those who forget to sync, without the order of data before names; and rarely tidied up.
HARSH = {
    "ext4": ("", "noauto_da_alloc", "data=writeback,noauto_da_alloc"),
    "xfs": ("",),
    "btrfs": ("commit=300",),
}

#: The ioctl with which a file system's own tests take its disk away (ext4, f2fs, xfs).
SHUT_DOWN = 0x8004587D
WITH_JOURNAL = 1  # what the journal has gathered is still written: names without their data
WITHOUT_JOURNAL = 2  # nothing is: whatever was not synced is gone

PATIENCE = 30.0


def missing(kind):
    """What keeps this kind from being made and mounted here; empty if nothing does."""
    if sys.platform != "linux":
        return "file systems in files need Linux"
    if os.geteuid():
        return "mounting needs root"
    program = MAKE[kind][0][0]
    for each in (program, "mount", "umount"):
        if shutil.which(each) is None:
            return f"{each} is not installed"
    return ""


class UnmountableError(Exception):
    """This machine mounts no such file system."""


class Image:
    """One file system. A context manager, which unmounts and removes it whatever happened."""

    def __init__(self, kind, directory, megabytes=None):
        self.kind = kind
        self.path = os.path.join(directory, f"{kind}.image")
        self.root = os.path.join(directory, f"{kind}-mounted")
        self._megabytes = megabytes or MAKE[kind][1]

    def __enter__(self):
        os.makedirs(self.root)
        with open(self.path, "wb") as file:
            file.truncate(self._megabytes << 20)
        made = _run(*MAKE[self.kind][0], self.path)
        if made.returncode:
            raise UnmountableError(f"mkfs of {self.kind}: {made.stderr}")
        self.mount()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.unmount(patience=3.0)
        if self._is_mounted():
            _run("umount", "-l", self.root)  # its loop device goes with the last open file
        with contextlib.suppress(OSError):
            os.remove(self.path)

    def mount(self, options=""):
        wanted = ",".join(filter(None, ("loop", options)))
        mounted = _run("mount", "-t", self.kind, "-o", wanted, self.path, self.root)
        if mounted.returncode:
            raise UnmountableError(f"{self.kind} cannot be mounted here: {mounted.stderr}")

    def unmount(self, patience=PATIENCE):
        """Unmount it. What is still open in a process that ends is waited for."""
        deadline = time.monotonic() + patience
        while self._is_mounted():
            done = _run("umount", self.root)
            if done.returncode and time.monotonic() > deadline:
                raise OSError(errno.EBUSY, done.stderr, self.root)
            if done.returncode:
                gc.collect()  # the frames of an error that was raised may hold a file
                time.sleep(0.01)

    def _is_mounted(self):
        with open("/proc/self/mounts", encoding="utf-8") as mounts:  # it may not answer itself
            return any(line.split()[1] == self.root for line in mounts)

    def remount(self, options):
        """Change a mounted one's options; whether it let."""
        return not _run("mount", "-o", f"remount,{options}", self.root).returncode

    def path_of(self, name):
        return os.path.join(self.root, name)

    # -- the power -----------------------------------------------------------------------------

    def shut_down(self, flag):
        """Take the disk away, now. Every write and sync fails from here on."""
        import fcntl

        directory = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUT_DOWN, struct.pack("I", flag))
        finally:
            os.close(directory)

    def can_shut_down(self):
        return self.kind != "btrfs"

    def lose_power(self, rng, kill, darken=lambda: None):
        """Cut the power under a process that writes, kill that, and start the machine again.

        ``darken`` is called just before: a machine without power answers nobody, but a file system
        that is being shut down may still call a sync done whose pages it has thrown away.
        """
        if self.can_shut_down():
            darken()
            self.shut_down(rng.choice((WITH_JOURNAL, WITHOUT_JOURNAL, WITHOUT_JOURNAL)))
            time.sleep(rng.uniform(0, 0.005))
            kill()
            self.unmount()
        else:
            # What the disk had at this moment, and not what the file system still has in memory.
            kill()
            left = self.path + ".left"
            _copy_sparse(self.path, left)
            self.unmount()
            os.replace(left, self.path)
        self.mount(rng.choice(HARSH[self.kind]))

    # -- room ----------------------------------------------------------------------------------

    def fill(self, name="ballast"):
        """Take up all the room that is left, to the last byte."""
        file = os.open(self.path_of(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (1 << 20, 64 << 10, 4 << 10, 512, 1):
                _write_until_full(file, bytes(size))
        finally:
            os.close(file)

    def free(self, name="ballast"):
        os.remove(self.path_of(name))


def _write_until_full(file, data):
    try:
        while True:
            os.write(file, data)
            if len(data) >= 4 << 10:
                os.fsync(file)  # what was promised room may not get it
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _copy_sparse(source, target):
    """Copy what a sparse file has, as fast as can be: it should not change meanwhile."""
    with open(source, "rb") as old, open(target, "wb") as new:
        end = os.fstat(old.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:  # none behind here
                break
            stop = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            new.seek(at)
            while at < stop:
                data = os.pread(old.fileno(), min(1 << 20, stop - at), at)
                new.write(data)
                at += len(data)
        new.truncate(end)


def _run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)
