"""Shared by the study's figures: colours, theme and common parts."""

import io
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.table_columns import MODALITY_NAMES

# Okabe and Ito's palette: distinguishable for colour-blind readers and in grey print.
COLOURS = {"real": "#0072B2", "fake": "#D55E00", "generated": "#D55E00", "uncertain": "#999999"}
ENDS = ("estimate", "low", "high")
NAMES = MODALITY_NAMES | {"generated": "generated", "real": "real"}
READERS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def theme() -> None:
    """Set the study's style for all later figures: white, light grid, printable text."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=[COLOURS["real"], COLOURS["fake"], COLOURS["uncertain"], *READERS],
        rc={
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "none",
            "svg.hashsalt": "study",
            "image.cmap": "gray",
            "figure.constrained_layout.use": True,
        },
    )


def stand_alone(figure: Figure, title: str, note: str) -> Figure:
    """Write the title above a figure, and the meaning of n and of the intervals below it."""
    inches = figure.get_size_inches()[0]
    about = {"x": 0.01, "ha": "left"}
    title, note = textwrap.fill(title, int(9.5 * inches)), textwrap.fill(note, int(14 * inches))
    figure.suptitle(title, weight="bold", fontsize=12, **about)
    figure.supxlabel(note, fontsize=8.5, color="#555555", **about)
    height = 0.22 * (title.count("\n") + 1) + 0.16 * (note.count("\n") + 1) + 0.15
    figure.set_size_inches(inches, figure.get_size_inches()[1] + height)
    return figure


def intervals(
    axes: Axes, places, rows: pd.DataFrame, colour: str, marker: str = "o", ends=ENDS, **style
) -> None:
    """Estimates with their 95 % intervals at these heights; `ends`: columns of estimate, low and
    high; `style` of the marker.
    """
    estimate, low, high = (rows[name].astype(float) for name in ends)
    axes.hlines(places, low, high, color=colour, linewidth=2)
    axes.plot(estimate, places, marker, color=colour, **style)


def panels(
    count: int, across: int, each: tuple[float, float], more=(0.0, 0.0), **options
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes, `across` per row; the first `count` are used and the others
    hidden. `each` is the width and height of one panel in inches, `more` the extra size of the
    figure.
    """
    rows = max(1, -(-count // across))
    size = (each[0] * across + more[0], each[1] * rows + more[1])
    figure, grid = plt.subplots(rows, across, figsize=size, squeeze=False, **options)
    for spare in grid.flat[count:]:
        spare.axis("off")
    return figure, grid


def percent_axis(axes: Axes, **settings) -> None:
    """Shares from 0 to 100 % from left to right; `settings` of the axes."""
    axes.set(**{"xlim": (-0.02, 1.02), **settings})
    axes.xaxis.set_major_formatter(percents())


def percents() -> PercentFormatter:
    """Labels such as 80 % for shares."""
    return PercentFormatter(1, decimals=0, symbol="\u00a0%")


def legend_above(axes: Axes, columns: int = 2, **style) -> None:
    """A legend in one line above the axes."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "frameon": False}
    axes.legend(ncols=columns, **place, **style)


def mark(figure: Figure, what: list[str] | bool) -> Figure:
    """Mark the figure itself as based on simulated data; without a mark if `what` is empty or
    False. Closes it, so that a notebook shows it once: as what its cell returns.
    """
    plt.close(figure)
    if what:
        figure.text(
            1.0,
            1.01,
            "SIMULATED",
            ha="right",
            va="bottom",
            fontsize=11,
            color="#B00020",
            weight="bold",
            alpha=0.85,
        )
    return figure


def as_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as png, svg or pdf, with the same bytes every time."""
    target = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[
        kind
    ]
    figure.savefig(target, format=kind, metadata=metadata, facecolor="white")
    return target.getvalue()


def flow_chart(boxes: list[tuple], arrows: list[tuple], height: float = 5.4) -> Figure:
    """Draw boxes (x, y, text, colour of the border) on a field that is 1 wide and 1 high, and
    arrows, each from a box or a point (x, y) to a box; a box is given by its number.
    """
    figure, axes = plt.subplots(figsize=(8.2, height))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    edges = []
    for x, y, text, colour in boxes:
        style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour}
        drawn = axes.text(x, y, text, ha="center", va="center", fontsize=10, bbox=style)
        edges.append(drawn.get_bbox_patch())
    for start, end in arrows:
        style = {"arrowstyle": "-|>", "color": "#888888", "patchB": edges[end], "shrinkB": 3}
        if isinstance(start, int):
            style |= {"patchA": edges[start], "shrinkA": 3}
            start = boxes[start][:2]
        axes.annotate("", boxes[end][:2], start, arrowprops=style)
    return figure
