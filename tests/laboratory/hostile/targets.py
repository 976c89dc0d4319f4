"""The decoders that are tried, and what each of them may cost.

``factor`` and ``constant`` bound the memory: ``constant + factor * len(input)`` bytes at its peak,
as tracemalloc counts it. Most of the constant is what msgpack may set aside for nested arrays that
are announced and never come (see :mod:`wal.untrusted`); without such the factor alone is enough.
The tools have another one, since all that they print is kept in memory here. The processor's time
is bounded too.
"""

from __future__ import annotations

import logging
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from tests.laboratory.hostile import log_targets, sealing, store_targets

MOST_SECONDS = 2.0
SECONDS_PER_BYTE = 100e-6


@dataclass(frozen=True)
class Target:
    name: str
    run: Callable[[bytes], None]
    seal: Callable[[bytes], bytes] = sealing.seal_nothing
    factor: int = 128
    constant: int = 20 << 20

    def check(self, data, *, memory=False):
        """Run on the bytes as they are, and with right checksums. Raises for a bug only."""
        sealed = self.seal(data)
        for form in (data,) if sealed == data else (data, sealed):
            self._check_one(form, memory=memory)

    def _check_one(self, data, *, memory):
        begun = time.thread_time()
        if memory:
            self._check_memory(data)
        else:
            self.run(data)
        took = time.thread_time() - begun
        most = (MOST_SECONDS + SECONDS_PER_BYTE * len(data)) * (10 if memory else 1)
        assert took <= most, f"{len(data)} bytes took {took:.1f} s"

    def _check_memory(self, data):
        most = self.constant + self.factor * len(data)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            self.run(data)
            took = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        assert took <= most, f"{len(data)} bytes took {took:,} bytes of memory, not {most:,}"


TARGETS = {
    target.name: target
    for target in (
        Target("segment", log_targets.segment, sealing.seal_segment),
        Target("streamed", log_targets.streamed, sealing.seal_segment),
        Target("group", log_targets.group),
        Target("marker", log_targets.marker, sealing.seal_marker),
        Target("tools", log_targets.tools, sealing.seal_segment, factor=1000),
        Target("table", store_targets.table, sealing.seal_table),
        Target("manifest", store_targets.manifest, sealing.seal_manifest),
        Target("mark", store_targets.mark),
        Target("entry", store_targets.entry),
        Target("name", store_targets.name),
        Target("value", store_targets.value),
        Target("answer", store_targets.answer),
    )
}


def failed_thread_hook(failures):
    """An excepthook for threads: what they raise is a failure of the input that is tried."""

    def hook(arguments):
        failures.append(arguments.exc_value)

    return hook


class Silence:
    """No log messages; an exception in a background thread is one of the input."""

    def __enter__(self):
        self._failures = []
        self._usual = threading.excepthook
        threading.excepthook = failed_thread_hook(self._failures)
        logging.disable(logging.CRITICAL)
        return self

    def check(self):
        if self._failures:
            raise AssertionError("a background thread failed") from self._failures.pop()

    def __exit__(self, *_):
        threading.excepthook = self._usual
        logging.disable(logging.NOTSET)
