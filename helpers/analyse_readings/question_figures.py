"""Figures of the study's own questions: by truth, from block to block, noticed while unaware."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers import figures
from helpers.analyse_readings.questions import TRUTH
from helpers.runner import runs


def draw(run: runs.Run, found: dict) -> dict[str, Figure]:
    """The figures that these results have, marked where something is simulated."""
    asked = found["own_questions"]
    means = pd.DataFrame(asked["means"])
    means = means[means["question"] != "label"] if len(means) else means
    changes = pd.DataFrame(asked["contrasts"])
    changes = changes[changes["contrast"] != TRUTH] if len(changes) else changes
    drawn = {}
    if len(means):
        drawn["questions_by_truth"] = by_truth(means, asked["texts"])
    if len(changes):
        drawn["block_changes"] = from_block_to_block(changes)
    if "difference" in asked["noticed"]:
        drawn["noticed"] = while_unaware(asked["noticed"])
    for figure in drawn.values():
        figures.mark(figure, run.simulated)
        plt.close(figure)
    return drawn


def by_truth(means: pd.DataFrame, texts: dict[str, str]) -> Figure:
    """The mean answer to real and to generated images, with 95 % intervals, one row per question
    and block.
    """
    rows = means[["block", "question"]].drop_duplicates().to_records(index=False).tolist()
    figure, axes = plt.subplots(figsize=(8.2, 1.2 + 0.5 * len(rows)))
    for shift, origin in ((-0.12, "real"), (0.12, "generated")):
        own = means[means["origin"] == origin].set_index(["block", "question"])
        own = own.reindex(rows).astype({"estimate": float, "low": float, "high": float})
        span = [own["estimate"] - own["low"], own["high"] - own["estimate"]]
        places = [number + shift for number in range(len(rows))]
        style = {"fmt": "o", "color": figures.COLOURS[origin], "label": f"{origin} images"}
        axes.errorbar(own["estimate"], places, xerr=span, capsize=3, **style)
    names = [f"{texts[question][:44]}\n({block})" for block, question in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("mean step of the scale; share of yes where 0 to 1")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure


def from_block_to_block(changes: pd.DataFrame) -> Figure:
    """Each reader's mean in the earlier and the later block, one panel per question; all readers
    together are the thick line.
    """
    panels = changes.groupby(["question", "contrast"], sort=False)
    figure, every = plt.subplots(
        1, len(panels), figsize=(max(4.4, 3.2 * len(panels)), 3.6), squeeze=False
    )
    for axes, ((question, contrast), rows) in zip(every[0], panels):
        later, _, earlier = contrast.partition(" minus ")
        for row in rows.to_dict("records"):
            if row["reader"].startswith("R"):
                values = [row["before"], row["after"]]
                axes.plot([0, 1], values, color="#999999", marker="o", markersize=3, linewidth=1)
        whole = rows[rows["reader"] == "these readers"].iloc[0]
        axes.plot([0, 1], [whole["before"], whole["after"]], color="black", marker="o", linewidth=3)
        axes.set_xticks([0, 1], [earlier, later])
        axes.set_xlim(-0.25, 1.25)
        axes.set_title("label: share right" if question == "label" else question)
        axes.margins(y=0.15)
    figure.tight_layout()
    return figure


def while_unaware(noticed: dict) -> Figure:
    """The shares of images called unusual before readers knew, with 95 % intervals."""
    figure, axes = plt.subplots(figsize=(6.4, 2.0))
    for place, origin in enumerate(("real", "generated")):
        share = noticed[origin]
        axes.barh(place, share["estimate"], color=figures.COLOURS[origin], height=0.6)
        if share["low"] is not None:
            axes.plot([share["low"], share["high"]], [place, place], color="black", linewidth=2)
    counts = [
        f"{origin}\n{noticed[origin]['count']} of {noticed[origin]['total']}"
        for origin in ("real", "generated")
    ]
    axes.set_yticks([0, 1], counts)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("answers that call the image unusual")
    return figure
