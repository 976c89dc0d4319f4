"""What has been written but not synced: the pure model behind a power loss.

A file is a durable image and, for each 512-byte sector and for the length, the versions that it has
had since. A directory is its durable names and the changes made to them since. Each version and
each change carries the number of the call that made it, its *tick*. What a power loss leaves is
then a choice of how many versions of each piece have reached the disk (:data:`Choice`).

A sync makes durable what was there when it began: the versions up to its *mark*. After a failed one
the versions up to its mark are readable, but clean: no later sync writes them again. They stay
uncertain until something is written over them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wal.files import File

SECTOR: Final = 512

#: What is on the disk or not: a sector, a length or a change of names. Only its identity matters.
Piece = Hashable
#: Told a piece and the ticks of its versions, oldest first: how many of them reached the disk.
Choice = Callable[[Piece, Sequence[int]], int]

T = TypeVar("T")


class Versions(Generic[T]):
    """What a sector, or a length, has been since it was durable."""

    __slots__ = ("ticks", "values")

    def __init__(self) -> None:
        self.ticks: list[int] = []
        self.values: list[T] = []

    def add(self, tick: int, value: T) -> None:
        """Note a newer version."""
        self.ticks.append(tick)
        self.values.append(value)

    def settle(self, failed: int, mark: int) -> T | None:
        """Take out what a sync settles, the last version that is dirty and all before it."""
        for count in range(len(self.ticks), 0, -1):
            if failed < self.ticks[count - 1] <= mark:
                value = self.values[count - 1]
                del self.ticks[:count], self.values[:count]
                return value
        return None

    def chosen(self, choose: Choice) -> T | None:
        """The version on the disk, or None for the durable one."""
        count = choose(self, self.ticks) if self.ticks else 0
        return self.values[count - 1] if count else None


class FileHistory:
    """The durable image of a file, and what may or may not have followed it."""

    __slots__ = ("_durable", "_failed", "_lengths", "_sectors")

    def __init__(self, durable: bytes) -> None:
        self._durable: bytes | bytearray = durable  # immutable, and shared, until the next sync
        self._sectors: dict[int, Versions[bytes]] = {}
        self._lengths: Versions[int] = Versions()
        self._failed = 0

    def write(self, tick: int, offset: int, data: bytes) -> None:
        """Note a write."""
        end = offset + len(data)
        former = self._length()
        for number in range(offset // SECTOR, -(-end // SECTOR)):
            at = number * SECTOR - offset
            piece = data[max(at, 0) : at + SECTOR]
            if len(piece) < SECTOR:
                before, head = self._sector(number), max(-at, 0)
                piece = before[:head] + piece + before[head + len(piece) :]
            self._add(tick, number, piece)
        # Even if the length stays: to write again what a failed sync left behind the durable end
        # makes the file reach that far.
        if data and end > min(former, len(self._durable)):
            self._lengths.add(tick, max(end, former))

    def resize(self, tick: int, length: int) -> None:
        """Note a truncation or an allocation. What was cut off is zeros if it comes back."""
        former = self._length()
        for number in range(length // SECTOR, -(-former // SECTOR)):
            before = self._sector(number)
            after = _padded(before[: max(length - number * SECTOR, 0)], SECTOR)
            if after != before:
                self._add(tick, number, after)
        if length != former:
            self._lengths.add(tick, length)

    def synced(self, mark: int) -> None:
        """Make durable what was written up to ``mark``, but for what a failed sync left clean."""
        length = self._lengths.settle(self._failed, mark)
        if length is not None:
            self._thawed()[:] = _padded(self._durable[:length], length)
        for number, versions in list(self._sectors.items()):
            sector = versions.settle(self._failed, mark)
            if sector is not None:
                _patch(self._thawed(), number, sector)
            if not versions.ticks:
                del self._sectors[number]

    def sync_failed(self, mark: int) -> None:
        """Leave what was written up to ``mark`` clean: no later sync covers it."""
        self._failed = max(self._failed, mark)

    def durable(self) -> bytes:
        """What is there if nothing unsynced is."""
        if not isinstance(self._durable, bytes):
            self._durable = bytes(self._durable)
        return self._durable

    def sectors(self) -> Iterable[Versions[bytes]]:
        """The sectors that a power loss may leave old or new."""
        return self._sectors.values()

    def lengths(self) -> Versions[int]:
        """The lengths that a power loss may leave, apart from the durable one."""
        return self._lengths

    def after_crash(self, choose: Choice, durable: bytes) -> bytes:
        """What is there under a choice. ``durable`` is :meth:`durable`, shared by many choices."""
        chosen = self._lengths.chosen(choose)
        length = len(durable) if chosen is None else chosen
        sectors = {number: each.chosen(choose) for number, each in self._sectors.items()}
        if length == len(durable) and not any(sectors.values()):
            return durable
        data = bytearray(_padded(durable[:length], length))
        for number, sector in sectors.items():
            if sector is not None:
                _patch(data, number, sector)
        return bytes(data)

    def __deepcopy__(self, memo: object) -> FileHistory:
        """A copy that shares every image of the disk, and only may have another future."""
        history = FileHistory(self.durable())
        history._sectors = copy.deepcopy(self._sectors)
        history._lengths = copy.deepcopy(self._lengths)
        history._failed = self._failed
        return history

    def _thawed(self) -> bytearray:
        """The durable image, to be changed."""
        if not isinstance(self._durable, bytearray):
            self._durable = bytearray(self._durable)
        return self._durable

    def _add(self, tick: int, number: int, sector: bytes) -> None:
        if number not in self._sectors:
            self._sectors[number] = Versions()
        self._sectors[number].add(tick, sector)

    def _length(self) -> int:
        return self._lengths.values[-1] if self._lengths.values else len(self._durable)

    def _sector(self, number: int) -> bytes:
        """A sector as the system shows it; behind the end it is zeros."""
        if number in self._sectors:
            return self._sectors[number].values[-1]
        return _padded(bytes(self._durable[number * SECTOR : (number + 1) * SECTOR]), SECTOR)


class Node:
    """A file whatever its name. It has no history as long as nothing in it changed."""

    __slots__ = ("history", "key", "path")

    def __init__(self, path: str, key: str, history: FileHistory | None = None) -> None:
        self.path = path
        self.key = key
        self.history = history

    def history_of(self, file: File) -> FileHistory:
        """The history, begun with what the file holds now if nothing in it has changed so far."""
        if self.history is None:
            self.history = FileHistory(file.read_at(0, file.size()))
        return self.history


class Change(NamedTuple):
    """A node given a name (``old`` is None), losing it (``new`` is None), or changing it."""

    tick: int
    old: str | None
    new: str | None
    node: Node

    def apply(self, names: dict[str, Node]) -> None:
        """Do it, unless a change that it rests on was lost."""
        if self.old is None:
            if self.new is not None:
                names.setdefault(self.new, self.node)
        elif names.get(self.old) is self.node:
            del names[self.old]
            if self.new is not None:
                names[self.new] = self.node


class DirectoryHistory:
    """The durable names of a directory, those that the system shows, and the changes between."""

    __slots__ = ("_changes", "_durable", "_failed", "names")

    def __init__(self, durable: Mapping[str, Node]) -> None:
        self._durable = dict(durable)
        self.names = dict(durable)
        self._changes: list[Change] = []
        self._failed = 0

    def change(self, tick: int, old: str | None, new: str | None, node: Node) -> None:
        """Note a creation, a removal or a renaming."""
        change = Change(tick, old, new, node)
        change.apply(self.names)
        self._changes.append(change)

    def adopt(self, name: str, node: Node) -> None:
        """Note a name that was there all along, unseen."""
        self._durable[name] = self.names[name] = node

    def forget(self, name: str) -> None:
        """Note that a name is gone, unseen, if it is one that was there."""
        if self.names.pop(name, None) is not None:
            self._durable.pop(name, None)

    def synced(self, mark: int) -> None:
        """Make durable the changes up to ``mark``, with any lost ones that they rest on."""
        touched: set[str | None] = set()
        settled: list[Change] = []
        for change in reversed(self._changes):
            ends = {change.old, change.new} - {None}
            if change.tick <= mark and (change.tick > self._failed or ends & touched):
                touched |= ends
                settled.insert(0, change)
        for change in settled:
            change.apply(self._durable)
            self._changes.remove(change)

    def sync_failed(self, mark: int) -> None:
        """Leave the changes up to ``mark`` clean: no later sync covers them."""
        self._failed = max(self._failed, mark)

    def changes(self) -> Sequence[Change]:
        """The changes that a power loss may undo."""
        return self._changes

    def after_crash(self, choose: Choice) -> dict[str, Node]:
        """The names under a choice. A change whose ground was lost is lost with it."""
        names = dict(self._durable)
        for change in self._changes:
            if choose(change, (change.tick,)):
                change.apply(names)
        return names

    def nodes(self) -> Sequence[Node]:
        """Every file that may turn up in the directory after a power loss, some of them twice."""
        return [*self._durable.values(), *(change.node for change in self._changes)]


def _padded(data: bytes | bytearray, length: int) -> bytes:
    return bytes(data).ljust(length, b"\0")


def _patch(data: bytearray, number: int, sector: bytes) -> None:
    """Put a sector in its place, as far as the file reaches."""
    start = number * SECTOR
    room = max(len(data) - start, 0)
    data[start : start + SECTOR] = sector[:room]
