"""Figures that answer the study's questions: the first screen's, and the expected findings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures

MEAN = "mean of the readers"
OTHERS = ("others_high", "others_low")  # for specificity: the ends of 1 − specificity


def answer(shares: pd.DataFrame, areas: pd.DataFrame | None, mean: dict) -> Figure:
    """How often each reader called generated and real images fake. Beside it, each reader's area
    and the mean area (`areas`: reader, estimate, low, high).

    `shares`: the rows of accuracy.csv for "fake of" generated and real images.
    """
    readers = [*dict.fromkeys(shares["reader"]), MEAN]
    places = {reader: len(readers) - number for number, reader in enumerate(readers)}
    parts = 1 if areas is None else 2
    size = (8.2, 1.0 + 0.34 * len(readers))
    figure, panels = plt.subplots(1, parts, figsize=size, sharey=True, squeeze=False)
    for shift, origin, marker in ((0.13, "generated", "o"), (-0.13, "real", "s")):
        own = shares[(shares["measure"] == f"fake of {origin}") & shares["estimate"].notna()]
        if len(own):
            whole = {"reader": MEAN, "estimate": own["estimate"].mean()}
            own = pd.concat([own, pd.DataFrame([whole])], ignore_index=True)
            style = {"marker": marker, "label": f"{origin} images"}
            where = own["reader"].map(places) + shift
            figures.intervals(panels[0][0], where, own, figures.COLOURS[origin], **style)
    ticks = {"yticks": list(places.values()), "yticklabels": list(places)}
    figures.percent_axis(panels[0][0], xlabel="called fake", **ticks)
    if areas is not None:
        rows = pd.concat([areas, pd.DataFrame([mean | {"reader": MEAN}])], ignore_index=True)
        figures.intervals(panels[0][1], rows["reader"].map(places), rows, "black", "D")
        panels[0][1].axvline(0.5, color="#888888", linestyle="--", linewidth=1)
        panels[0][1].set(xlim=(-0.02, 1.02), xlabel="area under the ROC curve (0.5: guessing)")
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
        hollow = {"ends": elsewhere, "markerfacecolor": "white", "label": "not expected"}
        figures.intervals(axes, places - 0.13, 1 - own[[*elsewhere]], colour, **hollow)
        ticks = {"yticks": places, "yticklabels": names, "title": f"{origin} images"}
        figures.percent_axis(axes, **ticks, xlabel="answers that name it")
        axes.legend(fontsize=8, loc="lower right", ncols=2)  # below the lowest finding
    panels[0][0].set_ylim(-1.4, len(names) - 0.5)
    return figure
