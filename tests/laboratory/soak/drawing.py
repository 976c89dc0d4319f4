"""The plot of a soak: what it took over time, as SVG. Needs matplotlib."""

from __future__ import annotations

from itertools import pairwise

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

MIB = 1 << 20
MOST_POINTS = 200
#: What is drawn in each part of the plot: title, divisor, series and their names.
PARTS = (
    ("memory, MiB", MIB, {"rss": "writer", "reader rss": "reader"}),
    (
        "disk, MiB",
        MIB,
        {"store bytes": "store", "backup bytes": "backup", "live bytes": "live data"},
    ),
    ("log and recent writes, MiB", MIB, {"log bytes": "log", "memtable bytes": "in memory"}),
    (
        "descriptors, threads, children",
        1,
        {name: name for name in ("descriptors", "threads", "children")},
    ),
    (
        "tables, layers, snapshots' epochs",
        1,
        {name: name for name in ("tables", "layers", "epochs")},
    ),
    ("steps per second", 1, {"rate": "all actors"}),
)


def draw(told, path):
    """Draw what a run tells of itself."""
    points = thinned(with_rates(told["samples"]))
    mpl.rcParams.update({"font.size": 8, "svg.hashsalt": "soak", "svg.fonttype": "none"})
    figure, axes = plt.subplots(3, 2, figsize=(9, 7), sharex=True, layout="constrained")
    for axis, (title, unit, series) in zip(axes.flat, PARTS, strict=True):
        for name, label in series.items():
            known = [(p["time"] / 60, p[name] / unit) for p in points if name in p]
            if known:
                axis.plot(*zip(*known, strict=True), label=label, linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower right")
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.suptitle(f"{told['seconds']} seconds, seed {told['seed']}: {told['outcome'][:80]}")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def with_rates(samples):
    """The steps since the sample before, by the second."""
    for before, sample in pairwise(samples):
        passed = sample["time"] - before["time"]
        if passed > 0:
            sample["rate"] = (sample["steps"] - before["steps"]) / passed
    return samples


def thinned(samples):
    """So many points that the file stays small."""
    return samples[:: max(1, len(samples) // MOST_POINTS)]
