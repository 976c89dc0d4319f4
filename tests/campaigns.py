"""What every campaign shares: its seed, how long it may take, and where it tells what it tried.

A campaign is a test that tries many cases and whose worth lies in their number. In the default run
each tries a few, always the same; `make test-long` tries many, from a seed that it prints.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections import Counter

#: Multiplies the length of the long campaigns: SCALE=10 for a night.
SCALE = float(os.environ.get("SCALE", "1"))


def seed() -> int:
    """The seed of a long campaign; ``SEED`` repeats a run."""
    return int(os.environ.get("SEED", "0"))


def scaled(count: int) -> int:
    """So many cases of a long campaign, or more where more were asked for."""
    return max(1, round(count * SCALE))


class Ledger:
    """What the campaigns of a run tried, and what came of it, for one table at its end."""

    def __init__(self) -> None:
        self._begun = time.time()
        self._tried: dict[str, Counter[str]] = {}

    def add(self, campaign: str, counts: dict[str, int]) -> None:
        self._tried.setdefault(campaign, Counter()).update(counts)

    def lines(self) -> list[str]:
        """A line for each campaign, in the order in which they were first told of."""
        return [
            f"{campaign}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items())
            for campaign, counts in self._tried.items()
        ]

    def save(self, path: str) -> None:
        """Write all of it as JSON, with what it takes to repeat it.

        Where another part of the same run has written its own there, this is added to it.
        """
        told = {
            "seed": seed(),
            "scale": SCALE,
            "date": time.strftime("%Y-%m-%d", time.gmtime(self._begun)),
            "seconds": round(time.time() - self._begun),
            "python": sys.version.split()[0],
            "platform": platform.platform(),
        }
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            before = json.load(file)
            if before["seed"] == told["seed"]:
                self._tried = {**before["campaigns"], **self._tried}
                told["seconds"] = max(told["seconds"], before["seconds"])
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**told, "campaigns": self._tried}, file, indent=1)
            file.write("\n")
