"""Run the benchmarks: ``python -m benches [--quick | --large] [--only NAME ...] [--out FILE]``"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from benches import reporting
from benches.goals import Figure
from benches.log import (
    buffered_appends,
    event_loop,
    floor,
    fsync_commits,
    random_reads,
    recovery,
    streaming_memory,
)
from benches.measuring import settle
from benches.peers import engines
from benches.settings import FULL, QUICK, Settings, at_large, size, with_sizes
from benches.store import event_loop as store_event_loop
from benches.store import (
    larger_than_cache,
    opening,
    put_latency,
    random_puts,
    transactions,
)

Bench = Callable[[Settings, str], Iterator[Figure]]

LOG: dict[str, Bench] = {
    "floor": floor.run,
    "fsync-commits": fsync_commits.run,
    "event-loop": event_loop.run,
    "buffered-appends": buffered_appends.run,
    "recovery": recovery.run,
    "random-reads": random_reads.run,
    "streaming-memory": streaming_memory.run,
}
STORE: dict[str, Bench] = {
    "store-opening": opening.run,
    "store-larger-than-cache": larger_than_cache.run,
    "store-random-puts": random_puts.run,
    "store-put-latency": put_latency.run,
    "store-transactions": transactions.run,
    "store-event-loop": store_event_loop.run,
}
GROUPS = {"log": LOG, "store": STORE}
BENCHES = {**LOG, **STORE}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Run the benchmarks.")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny sizes: see that all of it works")
    sizes.add_argument("--large", action="store_true", help="ten million keys, not a million")
    parser.add_argument("--set", nargs="+", metavar="NAME=NUMBER", default=[], type=size,
                        help="other sizes: any number of benches/settings.py")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=[*GROUPS, *BENCHES], metavar="NAME",
                        default=list(BENCHES),
                        help="some of: " + "; ".join(map(_listed, GROUPS)))  # fmt: skip
    parser.add_argument("--engines", nargs="+", choices=FULL.engines, metavar="ENGINE",
                        default=FULL.engines,
                        help=f"some of: {', '.join(FULL.engines)}")  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="save the figures")
    parser.add_argument("--dir", metavar="DIR", help="where to write (default: a temporary place)")
    return parser.parse_args(arguments)


def _listed(group: str) -> str:
    return f"{group} ({', '.join(GROUPS[group])})"


def _settings(options: argparse.Namespace) -> Settings:
    settings = QUICK if options.quick else FULL
    if options.large:
        settings = at_large(settings)
    return replace(with_sizes(settings, dict(options.set)), engines=tuple(options.engines))


def _names(chosen: Sequence[str]) -> list[str]:
    """The benches that were asked for, those of a group by its name."""
    return [name for each in chosen for name in GROUPS.get(each, [each])]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings, names = _settings(options), _names(options.only)
    if any(name in STORE for name in names):
        settings = replace(settings, engines=engines.present(settings.engines))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # leave no process behind
    figures = []
    with tempfile.TemporaryDirectory(prefix="benches-", dir=options.dir) as directory:
        for name in names:
            for figure in _run(name, settings, directory):
                print(reporting.row(figure), flush=True)
                figures.append(figure)
        if options.out:
            reporting.save(options.out, figures, settings, directory)


def _run(name: str, settings: Settings, directory: str) -> Iterator[Figure]:
    """Run a bench in a place of its own; the store's share one: several read the same stores."""
    if name in STORE:
        settle()
        yield from STORE[name](settings, directory)
        return
    with tempfile.TemporaryDirectory(dir=directory) as place:
        yield from LOG[name](settings, place)


if __name__ == "__main__":
    main()
