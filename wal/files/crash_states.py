"""Which states to try after a power loss: first the telling ones, then at random."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, TypeVar

from wal.files.memory import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wal.files.unsynced import Choice, DirectoryHistory, Node, Piece

    Labelled = tuple[str, str, Choice]

T = TypeVar("T")

#: So many mixtures in a row that lead to states seen before are taken for the end of them.
_PATIENCE: Final = 60
_MIXTURE: Final = "mixture"


class CrashState(MemoryFileSystem):
    """What a power loss may leave.

    ``label`` says which of the unsynced calls were lost; ``kind`` is ``"nothing"`` unsynced is
    there, ``"everything"``, ``"call lost"``, ``"sector lost"``, ``"data lost"`` where a file has
    grown, ``"call alone"``, or ``"mixture"``.
    """

    def __init__(
        self, kind: str, label: str, files: Mapping[str, bytes], directories: Sequence[str]
    ) -> None:
        super().__init__(files, directories)
        self.kind = kind
        self.label = label

    def __repr__(self) -> str:
        return f"<CrashState: {self.label}>"


class Snapshot:
    """All that the states after one power loss are made from.

    ``files`` and ``directories`` are what the system shows, by full path. ``histories`` are those
    of the directories in which something changed; nothing may change in them any more. ``labels``
    says of each tick which call it was.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        directories: Iterable[str],
        histories: Mapping[str, DirectoryHistory],
        labels: Sequence[str],
    ) -> None:
        self._files = files
        self._directories = set(directories)
        self._histories = histories
        nodes = dict.fromkeys(node for each in histories.values() for node in each.nodes())
        self._durable: dict[Node, bytes] = {
            node: node.history.durable() for node in nodes if node.history is not None
        }
        self._choices = Choices(histories, nodes, labels)

    def states(
        self, seed: int, limit: int | None, mixtures: int | None = None
    ) -> Iterator[CrashState]:
        """Up to ``limit`` states, no two of them alike; the same for the same seed.

        Mixtures take their turn among the other kinds, or so many of them come last.
        """
        seen: set[int] = set()
        mixed = repeated = 0
        for kind, label, choose in self._choices.tell(random.Random(seed), mixtures is not None):
            if kind is _MIXTURE and (mixed == mixtures or repeated > _PATIENCE):
                return
            files, directories = self._after(choose)
            state = hash((frozenset(files.items()), frozenset(directories)))
            if state not in seen:
                seen.add(state)
                yield CrashState(kind, label, files, directories)
            elif kind is _MIXTURE:
                repeated += 1
                continue
            if kind is _MIXTURE:
                mixed += 1
                repeated = 0
            if len(seen) == limit:
                return

    def _after(self, choose: Choice) -> tuple[dict[str, bytes], list[str]]:
        names = {path: each.after_crash(choose) for path, each in self._histories.items()}
        directories = self._kept(names)
        files: dict[str, bytes] = {}
        for path, data in self._files.items():
            parent = os.path.dirname(path)
            if parent in directories and parent not in names:
                files[path] = data
        known: dict[Node, bytes] = {}  # a file with two names is the same under both
        for directory in sorted(directories & names.keys()):
            for name, node in names[directory].items():
                path = os.path.join(directory, name)
                if path not in self._directories:
                    if node not in known:
                        known[node] = self._bytes(node, choose)
                    files[path] = known[node]
        return files, sorted(directories)

    def _kept(self, names: Mapping[str, Mapping[str, Node]]) -> set[str]:
        """The directories that still have a name, and whose parent has one."""
        kept: set[str] = set()
        for path in sorted(self._directories):
            parent, name = os.path.split(path)
            in_parent = parent not in names or not name or name in names[parent]
            if in_parent and (parent in kept or parent not in self._directories or not name):
                kept.add(path)
        return kept

    def _bytes(self, node: Node, choose: Choice) -> bytes:
        if node.history is None:
            return self._files[node.key]
        return node.history.after_crash(choose, self._durable[node])


class Choices:
    """The choices over all unsynced pieces, each with words that say what was lost."""

    def __init__(
        self,
        histories: Mapping[str, DirectoryHistory],
        nodes: Iterable[Node],
        labels: Sequence[str],
    ) -> None:
        self._labels = labels
        self._torn: list[tuple[int, Piece]] = []
        lengths: set[int] = set()
        ticks = {change.tick for each in histories.values() for change in each.changes()}
        for node in nodes:
            if node.history is not None:
                lengths.update(node.history.lengths().ticks)
                for sector in node.history.sectors():
                    self._torn.append((sector.ticks[-1], sector))
                    ticks.update(sector.ticks)
        self._ticks = sorted(ticks | lengths)
        self._growing = sorted(lengths)

    def tell(self, rng: random.Random, mixtures_last: bool) -> Iterator[Labelled]:
        """Nothing and everything first, then the kinds of loss in turn; mixtures for ever."""
        yield "nothing", "nothing unsynced is there", lambda piece, ticks: 0
        if not self._ticks:
            return
        yield "everything", "everything is there", lambda piece, ticks: len(ticks)
        kinds = [self._lost(rng), self._tears(rng), self._zeros(rng), self._alone(rng)]
        mixtures = self._random(rng)
        if not mixtures_last:
            kinds.append(mixtures)
        while kinds:
            for kind in list(kinds):
                found = next(kind, None)
                if found is None:
                    kinds.remove(kind)
                else:
                    yield found
        yield from mixtures

    def _lost(self, rng: random.Random) -> Iterator[Labelled]:
        for tick in _shuffled(rng, self._ticks):

            def choose(piece: Piece, ticks: Sequence[int], tick: int = tick) -> int:
                return len(ticks) - (ticks[-1] == tick)

            yield "call lost", f"everything but {self._labels[tick]}", choose

    def _alone(self, rng: random.Random) -> Iterator[Labelled]:
        for tick in _shuffled(rng, self._ticks):

            def choose(piece: Piece, ticks: Sequence[int], tick: int = tick) -> int:
                return ticks.index(tick) + 1 if tick in ticks else 0

            yield "call alone", f"nothing but {self._labels[tick]}", choose

    def _tears(self, rng: random.Random) -> Iterator[Labelled]:
        for tick, torn in _shuffled(rng, self._torn):

            def choose(piece: Piece, ticks: Sequence[int], torn: Piece = torn) -> int:
                return len(ticks) - (piece is torn)

            label = f"everything but one sector of {self._labels[tick]}"
            yield "sector lost", label, choose

    def _zeros(self, rng: random.Random) -> Iterator[Labelled]:
        sectors = {sector for _, sector in self._torn}
        for tick in _shuffled(rng, self._growing):

            def choose(piece: Piece, ticks: Sequence[int], tick: int = tick) -> int:
                return len(ticks) - (ticks[-1] == tick and piece in sectors)

            label = f"everything but the data of {self._labels[tick]}"
            yield "data lost", label, choose

    def _random(self, rng: random.Random) -> Iterator[Labelled]:
        while True:
            last = rng.choice(self._ticks)
            share = rng.choice((0.1, 0.5, 0.9))

            def scattered(piece: Piece, ticks: Sequence[int], share: float = share) -> int:
                return len(ticks) if rng.random() < share else rng.randrange(len(ticks) + 1)

            def stopped(piece: Piece, ticks: Sequence[int], last: int = last) -> int:
                count = bisect_right(ticks, last)
                return count - (count > 0 and ticks[count - 1] == last and rng.random() < 0.5)

            yield _MIXTURE, f"{share:.0%} at random", scattered
            label = f"what came before {self._labels[last]}, and some of that"
            yield _MIXTURE, label, stopped


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    return rng.sample(items, len(items))
