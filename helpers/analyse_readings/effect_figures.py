"""Figures of the mixed model and of changes during the read."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from helpers import figures
from helpers.analyse_readings.texts import finding_names

TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
WIDE_TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


def draw(tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures of these results: odds ratios if there is a model, and the course over
    the read.
    """
    drawn, effects = {}, tables["model_effects"]
    fitted = effects[effects["low"].notna()]
    if len(fitted):
        drawn["model_effects"] = forest(fitted)
    if len(tables["drift_course"]):
        drawn["drift"] = over_position(tables["drift_course"])
    return drawn


def named(row: dict) -> str:
    """generator: tiny-sd, against api-model."""
    level, reference = finding_names(row["level"]), finding_names(row["reference"])
    against = f", against {reference}" if reference else ""
    return f"{row['effect']}: {level}{against}"


def forest(effects: pd.DataFrame) -> Figure:
    """Odds ratios of a right answer with 95 % intervals, one row per effect."""
    rows = effects.to_dict("records")
    places = np.arange(len(rows))[::-1]
    figure, axes = plt.subplots(figsize=(8.2, 1.5 + 0.36 * len(rows)))
    axes.axvline(1, color="#888888", linewidth=1, linestyle="--")
    figures.intervals(axes, places, effects, "black", markersize=6)
    lowest, highest = min(effects["low"].min(), 0.5), max(effects["high"].max(), 2)
    axes.set(xscale="log", xlim=(max(lowest / 1.1, 0.01), min(highest * 1.1, 100)))
    left, right = axes.get_xlim()
    ticks = WIDE_TICKS if right > 30 * left else TICKS
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(places, [textwrap.fill(named(row), 36) for row in rows])
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel="odds ratio of a right answer")
    return figure


def over_position(course: pd.DataFrame) -> Figure:
    """Share of right answers and seconds per answer in each fifth of the read."""
    figure, both = plt.subplots(1, 2, figsize=(8.2, 2.7))
    titles = {"accuracy": "Right answers", "seconds": "Seconds per answer"}
    for axes, (measure, title) in zip(both, titles.items()):
        part = course[course["measure"] == measure].astype(
            dict.fromkeys(("estimate", "low", "high"), float)
        )
        known = part["low"].notna()
        axes.vlines(part["fifth"][known], part["low"][known], part["high"][known], color="#333333")
        axes.plot(part["fifth"], part["estimate"], "o-", color="black", markersize=5)
        axes.grid(visible=False, axis="x")
        axes.set(xticks=range(1, 6), xlabel="fifth of the read", title=title)
        if measure == "accuracy":
            axes.set_ylim(0, 1)
            axes.axhline(0.5, color="#888888", linewidth=1, linestyle="--")
            axes.yaxis.set_major_formatter(figures.percents())
        else:
            top = np.nanmax(part[["estimate", "high"]].to_numpy(), initial=1)
            axes.set_ylim(0, 1.1 * top)
    return figure
