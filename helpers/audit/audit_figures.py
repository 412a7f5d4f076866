"""Figures of stage 05: one function per figure, which returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import figures, images
from helpers.figures import COLOURS
from helpers.runner import runs

GENERATED, REAL, GREY = COLOURS["generated"], COLOURS["real"], COLOURS["uncertain"]
NAMES = {
    "frechet_distance": "Fréchet distance\n(lower: closer)",
    "kernel_distance": "Kernel distance\n(lower: closer)",
    "precision": "Precision\n(higher: more realistic)",
    "recall": "Recall\n(higher: more varied)",
    "density": "Density\n(higher: more realistic)",
    "coverage": "Coverage\n(higher: more varied)",
    "ms_ssim_within": "MS-SSIM within\n(higher: less varied)",
}


def save(run: runs.Run, relative: str, figure: Figure) -> Figure:
    """Save a figure as PNG in the run folder and return it for the notebook to show."""
    run.write_bytes(relative, figures.as_bytes(figure, "png"))
    return figure


def quality_figure(quality: pd.DataFrame, simulated: bool = False) -> Figure:
    """Each measure of each source with its interval (orange), beside real against real with the
    same number of images (blue).
    """
    shown = [name for name in NAMES if name in set(quality["metric"])]
    sources = list(dict.fromkeys(zip(quality["modality"], quality["source"])))
    across, each = min(max(len(shown), 1), 4), (2.1, 1.1 + 0.5 * len(sources))
    figure, axes = figures.panels(len(shown), across, each, more=(1.8, 0.4), sharey=True)
    sides = (
        (-0.14, ("estimate", "low", "high"), GENERATED, "generated against real"),
        (0.14, ("baseline", "baseline_low", "baseline_high"), REAL, "real against real"),
    )
    for axis, metric in zip(axes.flat, shown):
        some = quality[quality["metric"] == metric]
        places = [sources.index(source) for source in zip(some["modality"], some["source"])]
        for shift, ends, colour, label in sides:
            heights = np.array(places) + shift
            figures.intervals(axis, heights, some, colour, ends=ends, label=label, markersize=6)
        axis.set_title(NAMES[metric], fontsize=9)
        if metric.endswith("_distance") and some["high"].max() > 200:
            axis.set_xscale("symlog", linthresh=10)  # one poor source must not squeeze the others
        axis.tick_params(labelsize=8)
    for axis in axes[:, 0]:
        _label_sources(axis, sources)
    _legend(figure, axes[0][0])
    return figures.mark(figure, simulated)


def nearest_figure(nearest: pd.DataFrame, threshold, simulated: bool = False) -> Figure:
    """Distances of the images of one source to their nearest real case, with the calibrated
    `threshold`: its row of quality.csv (modality, source, estimate).
    """
    figure, axis = plt.subplots(figsize=(7, 2.6))
    bars, _, _ = axis.hist(
        nearest["distance"].astype(float), bins=np.linspace(0, 1, 51), color=GENERATED, alpha=0.85
    )
    axis.axvline(threshold.estimate, color="black", ls="--")
    axis.annotate(
        "too near: left of this line",
        (threshold.estimate, 0.95),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
        va="top",
    )
    axis.set(
        xlabel="distance to the nearest real case (1 − correlation of local structure)",
        ylabel="images",
        xlim=(0, 1),
        ylim=(0, max(1, bars.max()) * 1.3),
        title=_label(threshold.modality, threshold.source).replace("\n", " "),
    )
    return figures.mark(figure, simulated)


def pairs_figure(
    nearest: pd.DataFrame, pool: pd.DataFrame, count: int = 6, simulated: bool = False
) -> Figure:
    """The closest generated images (top) above their nearest real cases (bottom).

    For the notebook only: it shows real images.
    """
    closest = nearest.sort_values("distance").head(count)
    at = pool.drop_duplicates("image_id").set_index("image_id")
    figure, axes = plt.subplots(
        2, max(len(closest), 1), figsize=(1.7 * max(len(closest), 1) + 0.4, 3.9), squeeze=False
    )
    for column, row in zip(axes.T, closest.to_dict("records")):
        copied = " · copy" if row["copy"] else ""
        titles = (f"generated, {row['distance']:.2f}{copied}", "real case")
        for axis, name, title in zip(column, ("image_id", "nearest_image_id"), titles):
            axis.imshow(images.read_png(at.loc[row[name], "file"]), cmap="gray")
            axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figures.mark(figure, simulated)


def leakage_figure(leakage: pd.DataFrame, warn_above: float, simulated: bool = False) -> Figure:
    """How well signs outside the anatomy distinguish each source from real images, before and after
    the standardisation of stage 06.
    """
    joint = leakage[leakage["feature"] == "joint"]
    sources = list(dict.fromkeys(zip(joint["modality"], joint["source"])))
    figure, axis = plt.subplots(figsize=(7.5, 1.3 + 0.6 * len(sources)))
    for shift, stage, colour in ((-0.14, "before", GREY), (0.14, "after", GENERATED)):
        own = joint[joint["stage"] == stage].set_index(["modality", "source"]).reindex(sources)
        places = np.arange(len(sources)) + shift
        label, none = f"{stage} standardisation", f"none {stage}: too small for the reading size"
        figures.intervals(axis, places, own, colour, ends=("auc", "low", "high"), label=label)
        for place in places[own["auc"].isna()]:
            axis.text(0.5, place, none, fontsize=8, va="center", color=colour)
    axis.axvline(0.5, color="black", lw=0.8, label="chance")
    axis.axvline(warn_above, color="black", lw=0.8, ls=":", label="warning threshold")
    _label_sources(axis, sources)
    axis.set(
        xlabel="area under the curve, generated against real (all signs together)", xlim=(0.2, 1.02)
    )
    _legend(figure, axis)
    return figures.mark(figure, simulated)


def signs_figure(leakage: pd.DataFrame, simulated: bool = False) -> Figure:
    """The area under the curve of every single sign, one column per source and stage; the darker,
    the more a sign gives away.
    """
    single = leakage[leakage["feature"] != "joint"]
    named = zip(single["modality"], single["source"], single["stage"])
    single = single.assign(column=[f"{_label(*source)}\n{stage}" for *source, stage in named])
    order, features = list(dict.fromkeys(single["column"])), list(dict.fromkeys(single["feature"]))
    table = single.pivot_table(index="feature", columns="column", values="auc").astype(float)
    table = table.reindex(index=features, columns=order)
    figure, axis = plt.subplots(figsize=(2.5 + 1.25 * len(order), 1.6 + 0.2 * len(features)))
    axis.grid(visible=False)
    axis.imshow(table, cmap="Oranges", vmin=0.5, vmax=1, aspect="auto")
    for row, column in np.argwhere(table.notna().to_numpy()):
        value = table.iloc[row, column]
        axis.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if value > 0.85 else "black",
        )
    axis.set_yticks(
        range(len(features)), [feature.replace("_", " ") for feature in features], fontsize=7.5
    )
    axis.set_xticks(range(len(order)), order, fontsize=7)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    return figures.mark(figure, simulated)


def _label(modality: str, source: str) -> str:
    run, _, generator = source.partition(": ")
    name = generator or run
    name = name if len(name) <= 26 else name[:25] + "…"
    return f"{figures.NAMES[modality]} · {run.split('_')[0]}\n{name}"


def _label_sources(axis: Axes, sources: list[tuple[str, str]]) -> None:
    axis.set_yticks(range(len(sources)), [_label(*source) for source in sources], fontsize=8)
    axis.set_ylim(len(sources) - 0.5, -0.5)


def _legend(figure: Figure, axis: Axes) -> None:
    """Each label once, below the figure."""
    named = dict(zip(*axis.get_legend_handles_labels()[::-1]))
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=4,
        fontsize=9,
        frameon=False,
    )
