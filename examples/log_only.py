"""The log without the store: accounts whose balances are kept in a file of one's own.

A manager keeps a state in step with the log. Every transfer is one entry; ``recover`` applies what
a restart finds in the log, ``committed`` what is written from then on, in the same order. Now and
then the log hands over a segment: then the balances go to a file, and the log may reuse its space.

    python examples/log_only.py [directory]
"""

from __future__ import annotations

import collections
import json
import os
import sys
from collections.abc import Sequence

import wal


class Accounts(wal.LogManager):
    """Balances by name, and the entry that they contain last."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.balances: collections.Counter[str] = collections.Counter()
        self.last_id = 0
        self.saved_id = 0
        self.recovered = 0
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            self.balances.update(saved["balances"])
            self.last_id = self.saved_id = saved["last_id"]

    def recover(self, entry: wal.Entry) -> None:
        if entry.id > self.last_id:  # the file may be newer than the log knows
            self.committed(entry.id, entry.segment_id, entry.read_all())
            self.recovered += 1

    def committed(self, entry_id: int, segment_id: int, chunks: Sequence[bytes]) -> None:
        payer, payee, amount = chunks
        self.balances[payer.decode()] -= int(amount)
        self.balances[payee.decode()] += int(amount)
        self.last_id = entry_id

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        """Write what is known up to ``last_id`` beside the old file, sync it, and replace that.

        The balances in memory may be ahead of ``last_id``, so the saved ones are brought forward
        from the segment itself.
        """
        saved = Accounts(self.path)
        for entry in entries:
            saved.recover(entry)
        content = {"last_id": last_id, "balances": dict(sorted(saved.balances.items()))}
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.path + ".new", self.path)
        wal.files.StandardFileSystem().sync_directory(os.path.dirname(self.path) or os.curdir)
        self.saved_id = last_id


def main() -> None:
    directory = sys.argv[1] if len(sys.argv) > 1 else "accounts"
    os.makedirs(directory, exist_ok=True)
    accounts = Accounts(os.path.join(directory, "balances.json"))
    with wal.WriteAheadLog.recover(os.path.join(directory, "log"), accounts) as log:
        print(f"{accounts.recovered} transfers recovered from the log")

        log.append([b"bank", b"ann", b"100"])  # returns when it survives a power loss
        log.append([b"ann", b"bob", b"30"])
        for _ in range(1000):  # handed over at once, synced together
            log.append([b"ann", b"bob", b"0"], durability=wal.Durability.BUFFER)
        log.sync()
        for name, balance in sorted(accounts.balances.items()):
            print(f"{name:>5}: {balance:5}")

        log.checkpoint_active(wait=True)
        print(f"saved up to entry {accounts.saved_id}")
        log.append([b"bob", b"ann", b"5"])  # the next run will recover this one
    print("balances add up:", sum(accounts.balances.values()) == 0)


if __name__ == "__main__":
    main()
