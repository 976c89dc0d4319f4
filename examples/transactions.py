"""Transactions: threads move money between accounts, and none is made or lost.

`transact` runs a function as one step, and again if something that it has read was changed. The
main thread adds everything up while they are at it, and always finds the same sum.

python examples/transactions.py [directory]
"""

from __future__ import annotations

import random
import sys
import threading
from functools import partial

import kvstore

ACCOUNTS = [b"account/%02d" % number for number in range(10)]
START = 1000
THREADS = 4
MOVES = 100


def move(tx: kvstore.Transaction, payer: bytes, payee: bytes, amount: int) -> bool:
    """Move an amount, if the payer has it. It may be called several times: it changes only tx."""
    left = int(tx[payer]) - amount
    if left < 0:
        return False
    tx[payer] = b"%d" % left
    tx[payee] = b"%d" % (int(tx[payee]) + amount)
    return True


def trade(db: kvstore.Store, seed: int, moved: list[bool]) -> None:
    """Some moves between accounts at random; notes which of them were made."""
    rng = random.Random(seed)
    for _ in range(MOVES):
        payer, payee = rng.sample(ACCOUNTS, 2)
        asked = partial(move, payer=payer, payee=payee, amount=rng.randint(1, 500))
        moved.append(db.transact(asked, attempts=100))


def total(reads: kvstore.Snapshot | kvstore.Transaction) -> int:
    return sum(int(value) for value in reads.values(prefix=b"account/"))


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "transactions.db"
    with kvstore.open(path, "n", durability=kvstore.Durability.BUFFER) as db:
        db.write(dict.fromkeys(ACCOUNTS, b"%d" % START))

        moved: list[bool] = []
        traders = [threading.Thread(target=trade, args=(db, n, moved)) for n in range(THREADS)]
        for trader in traders:
            trader.start()
        sums = set()
        while any(trader.is_alive() for trader in traders):
            with db.snapshot() as snap:  # one state, whatever is written meanwhile
                sums.add(total(snap))
        for trader in traders:
            trader.join()
        with db.snapshot() as snap:
            sums.add(total(snap))
        print(f"{len(moved)} moves asked for, {sum(moved)} made; every sum was {sums}")

        # Without transact a conflict is an error, and nothing was written.
        try:
            with db.transaction() as tx:
                tx[b"audit"] = b"%d" % total(tx)
                db.put(ACCOUNTS[0], b"0")  # somebody else, before this one commits
        except kvstore.ConflictError as error:
            print(f"no audit: {error}; was one written? {b'audit' in db}")
        db.sync()  # BUFFER until here: what came before is durable now


if __name__ == "__main__":
    main()
