"""An open file of a faulty file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wal.files import Buffer, File
    from wal.files.faults import Faults
    from wal.files.unsynced import Node


class FaultyFile:
    """Passes every call on, unless a fault strikes, and notes what a power loss could undo."""

    __slots__ = ("_faults", "_inner", "_node")

    def __init__(self, faults: Faults, inner: File, node: Node) -> None:
        self._faults = faults
        self._inner = inner
        self._node = node

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer at the end of the file."""
        return self._faults.call(
            "read_at",
            self._node.path,
            f"{offset}+{length}",
            lambda label: self._inner.read_at(offset, length),
        )

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one behind the other."""
        data = b"".join(buffers)

        def act(label: str, data: bytes = data) -> None:
            with self._faults.powered():
                history = self._node.history_of(self._inner)
                self._inner.write_at(offset, [data])
                if data:
                    history.write(self._faults.tick(label), offset, data)

        self._faults.call(
            "write_at",
            self._node.path,
            f"{offset}+{len(data)}",
            act,
            partly=lambda label, written: act(label, data[:written]),
        )

    def allocate(self, length: int) -> None:
        """Grow the file with zeros."""

        def act(label: str, length: int = length) -> None:
            self._resize(label, length, self._inner.allocate)

        def partly(label: str, written: int) -> None:
            act(label, min(self._inner.size() + written, length))

        self._faults.call("allocate", self._node.path, str(length), act, partly=partly)

    def truncate(self, length: int) -> None:
        """Cut the file, or grow it with zeros."""
        self._faults.call(
            "truncate",
            self._node.path,
            str(length),
            lambda label: self._resize(label, length, self._inner.truncate),
        )

    def sync(self) -> None:
        """Make durable what was written, but for what a failed sync left clean."""

        def act(label: str) -> None:
            with self._faults.powered():
                mark = self._faults.last_tick
            try:
                self._inner.sync()
            except OSError:
                failed()
                raise
            with self._faults.powered():
                if self._node.history is not None:
                    self._node.history.synced(mark)

        def failed() -> None:
            with self._faults.powered():
                if self._node.history is not None:
                    self._node.history.sync_failed(self._faults.last_tick)

        self._faults.call("sync", self._node.path, "", act, failed=failed)

    def size(self) -> int:
        """The length in bytes."""
        return self._faults.call("size", self._node.path, "", lambda label: self._inner.size())

    def close(self) -> None:
        """Let go of the file; also after a power loss."""
        if self._faults.lost_power:
            self._inner.close()
        else:
            self._faults.call("close", self._node.path, "", lambda label: self._inner.close())

    def _resize(self, label: str, length: int, change: Callable[[int], None]) -> None:
        with self._faults.powered():
            history = self._node.history_of(self._inner)
            change(length)
            history.resize(self._faults.tick(label), self._inner.size())
