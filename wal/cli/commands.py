"""The command line: arguments, exit status, errors for people."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from wal.cli.dump import DumpOptions, dump
from wal.cli.output import warn
from wal.cli.report import print_inspection, print_verification
from wal.cli.salvage import print_salvage, salvage
from wal.cli.survey import Survey, survey
from wal.errors import WalError
from wal.files import FileSystem, StandardFileSystem

SOUND = 0
UNSOUND = 1
FAILED = 2

_EPILOG = """\
exit status: 0 the log is sound, 1 it is damaged, 2 wrong usage, not a log, or it cannot be read.
The log is never written to nor locked, and may be in use.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, print what it finds, and return the exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[Survey, argparse.Namespace], None] = arguments.command
    files: FileSystem = StandardFileSystem()
    try:
        found = survey(files, arguments.directory)
        command(found, arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (WalError, OSError) as error:
        warn(str(error))
        return FAILED
    return SOUND if found.sound else UNSOUND


def _inspect(found: Survey, arguments: argparse.Namespace) -> None:
    print_inspection(found, as_json=arguments.json)


def _verify(found: Survey, arguments: argparse.Namespace) -> None:
    print_verification(found, as_json=arguments.json)


def _dump(found: Survey, arguments: argparse.Namespace) -> None:
    options = DumpOptions(
        frozenset(arguments.segment or ()),
        arguments.data,
        arguments.data_bytes,
        arguments.limit,
        arguments.json,
    )
    known = {segment.segment_id for segment in found.segments}
    for unknown in sorted(options.segments - known):
        raise WalError(f"there is no segment {unknown} in {found.directory}")
    dump(found, options)


def _salvage(found: Survey, arguments: argparse.Namespace) -> None:
    work = salvage(found, arguments.out, doubtful=arguments.doubtful, files=found.files)
    print_salvage(work, arguments.out, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wal",
        description="Look at a write-ahead log, check it, save what can be saved of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "inspect", _inspect, "the marker and every segment")
    _add_dump_options(_add(commands, "dump", _dump, "every frame, one line each"))
    _add(commands, "verify", _verify, "read everything and say whether it is sound")
    saving = _add(commands, "salvage", _salvage, "copy every readable entry into a new log")
    saving.add_argument("out", metavar="OUT", help="the new log; must not exist, or be empty")
    saving.add_argument(
        "--doubtful",
        action="store_true",
        help="also copy what lies past a tear and may never have been acknowledged",
    )
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[Survey, argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", help="the log's directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)
    return parser


def _add_dump_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--segment", type=int, action="append", metavar="ID", help="only this one; may be repeated"
    )
    parser.add_argument("--data", choices=("hex", "ascii"), help="print the chunks' data as well")
    parser.add_argument(
        "--data-bytes",
        type=_count,
        default=64,
        metavar="N",
        help="of each chunk's data (64); 0 for all of it",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="print at most N lines")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text}")
    return number
