"""The store in one page. Run it twice: what it wrote the first time is there the second time.

python examples/quickstart.py [directory]
"""

from __future__ import annotations

import sys

import kvstore


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "quickstart.db"
    with kvstore.open(path) as db:
        runs = int(db.get(b"runs", b"0")) + 1
        db[b"runs"] = b"%d" % runs  # returns when it survives a power loss
        print(f"run number {runs}")

        # Keys are ordered, so what belongs together has a common beginning.
        db.write({b"fruit/apple": b"red", b"fruit/banana": b"yellow", b"nut/hazel": b"brown"})
        for key, value in db.scan(prefix=b"fruit/"):
            print(f"{key.decode()} is {value.decode()}")
        print("the last key is", next(db.keys(reverse=True, limit=1)).decode())

        # All or nothing, also if the power fails in the middle of it.
        with db.batch() as batch:
            batch.put(b"fruit/cherry", b"dark red")
            batch.delete(b"fruit/apple")
        print("apple and cherry:", db.get_many([b"fruit/apple", b"fruit/cherry"]))

        # Faster, where the last moments may be lost: synced in the background, or here and now.
        for number in range(1000):
            db.put(b"log/%06d" % number, b"", durability=kvstore.Durability.BUFFER)
        db.sync()
        print(f"{db.count(prefix=b'log/')} lines of log, the last is", end=" ")
        print(next(db.keys(prefix=b"log/", reverse=True)).decode())


if __name__ == "__main__":
    main()
