"""Measure beside other engines: ``python -m benches.peers [--only ROW ...] [--engines ENGINE ...]``

Rows come in groups; ``--only`` takes names of either. What has to be loaded first is kept in
``--dir`` between runs and made anew when the engine, or kvstore's source, is another.
``kvstore@DIRECTORY`` is kvstore from another checkout: old and new are measured side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benches.peers import engines, stock, syncs, tables
from benches.peers.results import document
from benches.peers.rows.catalogue import AT_LENGTH, GROUPS, PLOTTED, named
from benches.peers.running import Run
from benches.peers.sizes import FULL, QUICK, Sizes
from benches.settings import size, with_sizes


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = "; ".join(
        f"{group.name} ({', '.join(row.name for row in group.rows)})" for group in GROUPS.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benches.peers", description="Measure beside other engines."
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: see that all of it works")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help=f"some of: {names}")
    known = ", ".join(engines.ENGINES)
    parser.add_argument("--engines", nargs="+", default=list(engines.ENGINES), metavar="ENGINE",
                        help=f"some of: {known}; kvstore@DIRECTORY")  # fmt: skip
    parser.add_argument("--keys", type=int, metavar="N", help=f"default: {FULL.keys:,}")
    parser.add_argument("--repeats", type=int, metavar="N", help=f"default: {FULL.repeats}")
    parser.add_argument("--set", nargs="+", metavar="NAME=NUMBER", default=[], type=size,
                        help="other sizes: any number of benches/peers/sizes.py")  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="save what was found")
    parser.add_argument("--dir", metavar="DIR",
                        help="where to keep what is loaded (default: nowhere)")  # fmt: skip
    parser.add_argument("--check-syncs", action="store_true",
                        help="only count the syncs of durable puts, by strace")  # fmt: skip
    parser.add_argument("--plots", action="store_true", help="also measure what only plots show")
    parser.add_argument("--ten-million", action="store_true",
                        help="also what ten million keys cost; takes minutes")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="load anew what is kept there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only if not named([name])]
    unknown += [name for name in options.engines if name.partition("@")[0] not in engines.ENGINES]
    if unknown:
        parser.error(f"nobody knows {', '.join(unknown)}")
    return options


def sizes_of(options: argparse.Namespace) -> Sizes:
    chosen = {"keys": options.keys, "repeats": options.repeats}
    given = {name: number for name, number in chosen.items() if number is not None}
    return with_sizes(QUICK if options.quick else FULL, {**given, **dict(options.set)})


@contextmanager
def directory_of(options: argparse.Namespace) -> Iterator[str]:
    if options.dir is None:
        with tempfile.TemporaryDirectory(prefix="benches-") as directory:
            yield directory
        return
    os.makedirs(options.dir, exist_ok=True)
    if options.fresh:
        stock.forget(options.dir)
    yield options.dir


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    sizes = sizes_of(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # leave no process behind
    present = engines.present(options.engines)
    if options.check_syncs:
        syncs.report(present)
    else:
        with directory_of(options) as directory:
            measure(options, present, sizes, directory)


def measure(
    options: argparse.Namespace, present: Sequence[str], sizes: Sizes, directory: str
) -> None:
    rows = named(options.only, plots=options.plots)
    if options.ten_million:
        rows |= AT_LENGTH
    run = Run(present, rows, sizes, directory, tables.progress)
    lines = list(run.lines())
    tables.show([line for line in lines if line.row.name not in PLOTTED or options.only])
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(document(lines, sizes, directory), file)
            file.write("\n")
    if run.failures:
        sys.exit("\n".join(run.failures))


if __name__ == "__main__":
    main()
