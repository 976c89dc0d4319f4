"""``python -m tests.laboratory.soak --seconds 1200 --seed 1 --json soak.json --plot soak.svg``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

from tests.laboratory.soak.run import Soak
from tests.laboratory.soak.samples import LEAST_SECONDS


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.laboratory.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", help="where to work; by default a temporary one")
    parser.add_argument("--json", help="write all samples and a summary there")
    parser.add_argument("--plot", help="draw them there, as SVG; needs matplotlib")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        soak = Soak(directory, asked.seed)
        try:
            soak.run(asked.seconds)
            failed, outcome = False, "all as the models say"
            if asked.seconds >= LEAST_SECONDS:
                outcome += ", all bounded"
        except AssertionError as error:
            failed, outcome = True, str(error)
    told = soak.summary() | {"outcome": outcome, "samples": soak.samples}
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(told, file)
    if asked.plot:
        from tests.laboratory.soak.drawing import draw

        draw(told, asked.plot)
    told.pop("samples")
    json.dump(told, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
