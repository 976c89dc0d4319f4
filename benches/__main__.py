"""Run the benchmarks: ``python -m benches [--quick] [--only NAME ...] [--out FILE] [--dir DIR]``"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence

from benches import (
    buffered_appends,
    event_loop,
    floor,
    fsync_commits,
    random_reads,
    recovery,
    reporting,
    streaming_memory,
)
from benches.goals import Figure
from benches.settings import FULL, QUICK, Settings

BENCHES: dict[str, Callable[[Settings, str], Iterator[Figure]]] = {
    "floor": floor.run,
    "fsync-commits": fsync_commits.run,
    "event-loop": event_loop.run,
    "buffered-appends": buffered_appends.run,
    "recovery": recovery.run,
    "random-reads": random_reads.run,
    "streaming-memory": streaming_memory.run,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Run the benchmarks.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: see that all of it works")
    parser.add_argument("--only", nargs="+", choices=BENCHES, metavar="NAME", default=list(BENCHES),
                        help=f"some of: {', '.join(BENCHES)}")  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="save the figures")
    parser.add_argument("--dir", metavar="DIR", help="where to write (default: a temporary place)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = QUICK if options.quick else FULL
    figures = []
    with tempfile.TemporaryDirectory(prefix="benches-", dir=options.dir) as directory:
        for name in options.only:
            with tempfile.TemporaryDirectory(dir=directory) as place:
                for figure in BENCHES[name](settings, place):
                    print(reporting.row(figure), flush=True)
                    figures.append(figure)
        if options.out:
            reporting.save(options.out, figures, settings, directory)


if __name__ == "__main__":
    main()
