"""The chart of the speed measurements, and the machine they were taken on."""

import os
import platform
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures

ALIKE = 0.1  # within a tenth two measurements are called alike
GAIN, EVEN, LOSS = figures.COLOURS["real"], figures.COLOURS["uncertain"], figures.COLOURS["fake"]


def machine() -> dict[str, str | int]:
    """Processor, cores and memory, for the line below every table of speeds."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_gb),
    }


def chart(rows: pd.DataFrame) -> Figure:
    """One bar per measurement: how many times better than its plain baseline, on a logarithmic axis
    with a line at 1.
    """
    figures.theme()
    known = rows[rows["ratio"].notna()]
    names, ratios = (
        (known["path"] + ": " + known["what"]).tolist(),
        known["ratio"].astype(float).tolist(),
    )
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(names) + 0.9), layout="constrained")
    colours = [
        GAIN if ratio > 1 + ALIKE else LOSS if ratio < 1 - ALIKE else EVEN for ratio in ratios
    ]
    axes.barh(names, [ratio - 1 for ratio in ratios], left=1, color=colours)
    for place, ratio in enumerate(ratios):
        shown = f"{ratio:.2f}×" if ratio < 2 else f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"
        axes.annotate(
            shown,
            (max(ratio, 1), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.set(
        xscale="log",
        xlabel="times better than the plain baseline in the same run",
        xlim=(min([0.7, *ratios]), max([10, *ratios]) * 2),
    )
    axes.set(ylim=(-0.6, len(names) - 0.4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.tick_params(axis="y", labelsize=9)
    axes.invert_yaxis()
    plt.close(figure)
    return figure
