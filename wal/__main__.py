"""``python -m wal``: look at a log, check it, and save what can be saved of a damaged one."""

import sys

from wal.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
