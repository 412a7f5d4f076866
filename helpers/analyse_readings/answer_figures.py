"""Figures that answer the study's questions: the first screen's, the expected findings, the mixed
model and the changes during the read.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from helpers import figures
from helpers.analyse_readings.texts import finding_names

MEAN = "mean of the readers"
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
WIDE_TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
OTHERS = ("others_high", "others_low")  # for specificity: the ends of 1 − specificity


def answer(shares: pd.DataFrame, areas: pd.DataFrame | None, mean: dict) -> Figure:
    """How often each reader called generated and real images fake. Beside it, each reader's area
    and the mean area (`areas`: reader, estimate, low, high).

    `shares`: the rows of accuracy.csv for "fake of" generated and real images.
    """
    readers = [*dict.fromkeys(shares["reader"]), MEAN]
    places = {reader: len(readers) - number for number, reader in enumerate(readers)}
    size = (8.2, 1.0 + 0.34 * len(readers))
    figure, panels = plt.subplots(
        1, 1 if areas is None else 2, figsize=size, sharey=True, squeeze=False
    )
    for shift, origin, marker in ((0.13, "generated", "o"), (-0.13, "real", "s")):
        own = shares[(shares["measure"] == f"fake of {origin}") & shares["estimate"].notna()]
        if len(own):
            whole = {"reader": MEAN, "estimate": own["estimate"].mean()}
            own = pd.concat([own, pd.DataFrame([whole])], ignore_index=True)
            where, label = own["reader"].map(places) + shift, f"{origin} images"
            figures.intervals(
                panels[0][0], where, own, figures.COLOURS[origin], marker, label=label
            )
    panels[0][0].set_yticks(list(places.values()), list(places))
    figures.percent_axis(panels[0][0], xlabel="called fake")
    if areas is not None:
        rows = pd.concat([areas, pd.DataFrame([mean | {"reader": MEAN}])], ignore_index=True)
        figures.intervals(panels[0][1], rows["reader"].map(places), rows, "black", "D")
        panels[0][1].axvline(0.5, color="#888888", linestyle="--", linewidth=1)
        panels[0][1].set(xlim=(-0.02, 1.02), xlabel="area under the ROC curve (0.5: chance)")
    panels[0][0].set_ylim(0.4, len(readers) + 0.6)
    figures.legend_above(panels[0][0])
    return figure


def expected_findings(table: pd.DataFrame) -> Figure:
    """How often readers named a finding where it was expected (filled) and where it was not
    (hollow), generated beside real images; `table`: findings_asked of all readers together.
    """
    names = table.groupby("name")["asked"].sum().sort_values().index[-12:]
    origins = [name for name in ("generated", "real") if (table["origin"] == name).any()]
    size = (2.2 + 3.2 * len(origins), 1.0 + 0.36 * len(names))
    figure, panels = plt.subplots(1, len(origins), figsize=size, sharey=True, squeeze=False)
    for axes, origin in zip(panels[0], origins):
        own, colour = table[table["origin"] == origin], figures.COLOURS[origin]
        own = own.set_index("name").reindex(names)
        expected, elsewhere = ("sensitivity", "low", "high"), ("specificity", *OTHERS)
        places = np.arange(len(names))
        figures.intervals(axes, places + 0.13, own, colour, ends=expected, label="expected")
        figures.intervals(
            axes,
            places - 0.13,
            1 - own[[*elsewhere]],
            colour,
            ends=elsewhere,
            markerfacecolor="white",
            label="not expected",
        )
        axes.set_yticks(places, names)
        figures.percent_axis(axes, title=f"{origin} images", xlabel="answers that name it")
        axes.legend(fontsize=8, loc="lower right", ncols=2)  # below the lowest finding
    panels[0][0].set_ylim(-1.4, len(names) - 0.5)
    return figure


def model_and_course(tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
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
    """generator: tiny-sd versus api-model."""
    said = f"{row['effect']}: {finding_names(row['level'])}"
    return said + (f" versus {finding_names(row['reference'])}" if row["reference"] else "")


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
            axes.set_ylim(0, 1.1 * np.nanmax(part[["estimate", "high"]].to_numpy(), initial=1))
    return figure
