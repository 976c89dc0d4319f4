"""How many tables keep their file open at once: so many, those that were not used go first.

Tables take turns: when there are too many, the one opened longest ago is closed, unless it was used
since its last turn; then it goes to the end once. That costs a look-up no more than setting a flag.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Final, Protocol

MOST_OPEN: Final = 256


class Closeable(Protocol):
    """A table, as far as this module knows one."""

    used: bool

    def let_go(self) -> None:
        """Close the file; it is opened again when it is needed."""


class OpenTables:
    """Those that may be closed when there are too many."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[int, weakref.ref[Closeable]] = OrderedDict()

    def opened(self, table: Closeable) -> None:
        """A table has opened its file; others may be closed for it."""
        with self._lock:
            self._open[id(table)] = weakref.ref(table)
            spared = 0
            while len(self._open) > self.most:
                number, reference = self._open.popitem(last=False)
                oldest = reference()
                if oldest is not None and oldest.used and spared < self.most:
                    oldest.used = False
                    spared += 1
                    self._open[number] = reference
                elif oldest is not None:
                    oldest.let_go()

    def closed(self, table: Closeable) -> None:
        """A table has closed its file by itself, or wants to keep it."""
        with self._lock:
            self._open.pop(id(table), None)

    def close_all(self) -> None:
        """Close every file: the store has ended. Whoever is in the middle of reading ends that."""
        with self._lock:
            tables = [reference() for reference in self._open.values()]
            self._open.clear()
        for table in tables:
            if table is not None:
                table.let_go()

    def __len__(self) -> int:
        return len(self._open)
