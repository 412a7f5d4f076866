"""The figures of the report, one function each."""

import textwrap
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from helpers import figures
from helpers.plurals import counted

ORDER = ["real", "uncertain", "fake"]
GALLERIES = {
    "gallery_real": "Generated images called real by {people}",
    "gallery_uncertain": "Images that left {people} uncertain",
    "gallery_fake": "Generated images identified as fake by {two}",
}
COEFFICIENTS = {
    "percent": "Percent agreement",
    "cohen": "Cohen's kappa",
    "scott": "Scott's pi",
    "conger": "Conger's kappa",
    "fleiss": "Fleiss' kappa",
    "gwet": "Gwet's AC1",
    "brennan_prediger": "Brennan–Prediger",
    "krippendorff": "Krippendorff's alpha",
}


def reading_flow(flow: dict) -> Figure:
    """The flow from presented images to counted answers (STARD item 19)."""
    steps = (
        f"{counted(flow['presentations'], 'presentation')} in the reading set",
        counted(flow["images"], "image"),
        f"{counted(flow['registered'], 'reader')} registered\n{flow['readers']} analysed",
        f"{flow['answers']} of {flow['expected_answers']} first answers\n"
        f"{flow['uncertain_answers']} of them “uncertain”",
    )
    left_out = {
        0: f"Not analysed as first readings:\n{counted(flow['training'], 'training case')}\n"
        f"{counted(flow['repeats'], 'hidden repeat')}",
        2: f"{flow['withdrawn']} withdrew" + ": all answers left out" * bool(flow["withdrawn"]),
        3: f"{flow['missing_answers']} not answered\n"
        f"{counted(flow['repeat_answers'], 'answer')} to repeats\n"
        "(only for intra-reader agreement)",
    }
    heights = [0.88, 0.62, 0.37, 0.11]
    boxes = [(0.24, y, text, "#444444") for y, text in zip(heights, steps)]
    boxes += [(0.78, heights[step], text, "#BBBBBB") for step, text in left_out.items()]
    beside = [(step, len(steps) + place) for place, step in enumerate(left_out)]
    return figures.flow_chart(boxes, [*pairwise(range(len(steps))), *beside])


def labels_by_source(per_image: pd.DataFrame) -> Figure:
    """The answers, one bar per source, as shares of all answers."""
    source = (
        per_image["modality"].map(figures.NAMES)
        + ", "
        + per_image["generator"].fillna("real").astype(str).str.slice(0, 34)
    )
    counts = per_image.groupby(source)[[f"votes_{label}" for label in ORDER]].sum()
    counts = counts[counts.sum(axis=1) > 0]
    shares = counts.div(counts.sum(axis=1), axis=0)
    shares.index = counts.index = [textwrap.fill(name, 26) for name in shares.index]
    figure, axes = plt.subplots(figsize=(8.2, 0.9 + 0.55 * max(len(shares), 1)))
    before = shares.cumsum(axis=1).shift(axis=1, fill_value=0)
    for label in ORDER:
        bars = axes.barh(
            shares.index,
            shares[f"votes_{label}"],
            left=before[f"votes_{label}"],
            color=figures.COLOURS[label],
            label=f"called {label}",
            edgecolor="white",
            height=0.7,
        )
        axes.bar_label(
            bars,
            [str(n) if n else "" for n in counts[f"votes_{label}"]],
            label_type="center",
            color="white",
            weight="bold",
            fontsize=10,
        )
    figures.percent_axis(axes, xlim=(0, 1), xlabel="share of answers (numbers: counts)", ylabel="")
    axes.grid(False, axis="y")
    figures.legend_above(axes, 3)
    return figure


def agreement_intervals(table: pd.DataFrame) -> Figure:
    """Every coefficient with its 95 % interval, one panel per group of images. A row without a
    value says why.
    """
    groups = [group for group in table["group"].unique() if " " not in group]
    figure, axes = plt.subplots(
        1, len(groups), figsize=(2.4 + 1.9 * len(groups), 3.9), sharey=True, squeeze=False
    )
    for panel, group in zip(axes[0], groups):
        rows = (
            table[table["group"] == group]
            .set_index("coefficient")
            .reindex(list(COEFFICIENTS)[::-1])
        )
        places, held = range(len(rows)), rows[["low", "high"]].astype(float).clip(-1, 1)
        figures.intervals(panel, places, held.assign(estimate=rows["estimate"]), "black")
        for place in np.flatnonzero(rows["estimate"].isna()):
            panel.text(
                0, place, "not defined", ha="center", va="center", fontsize=9, color="#666666"
            )
        panel.axvline(0, color="#888888", linewidth=1, linestyle="--")
        panel.set_yticks(places, [COEFFICIENTS[name] for name in rows.index])
        panel.set(
            xlim=(-1.05, 1.05),
            ylim=(-0.6, len(rows) - 0.4),
            title=figures.NAMES.get(group, group),
            xlabel="agreement",
        )
    return figure


def label_matrix(labels: pd.DataFrame, shown: pd.Series) -> Figure:
    """Label by label, one panel per kind of image: counts of images, with the first reader of every
    pair in rows and the second in columns.
    """
    kinds = list(dict.fromkeys(shown))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(1.2 + 2.6 * len(kinds), 3.3), squeeze=False, sharey=True
    )
    pairs = list(combinations(labels, 2))
    most = max((shown == kind).sum() for kind in kinds) * max(len(pairs), 1) / 2
    for panel, kind in zip(axes[0], kinds):
        rows = labels[(shown == kind).reindex(labels.index)]
        counts = sum(
            (
                pd.crosstab(rows[a], rows[b]).reindex(index=ORDER, columns=ORDER, fill_value=0)
                for a, b in pairs
            ),
            start=pd.DataFrame(0, index=ORDER, columns=ORDER),
        )
        sns.heatmap(
            counts,
            annot=True,
            fmt="d",
            cmap="Greys",
            cbar=False,
            square=True,
            linewidths=1,
            linecolor="#CCCCCC",
            ax=panel,
            vmin=0,
            vmax=most,
        )
        one = len(pairs) == 1
        panel.set(
            title=f"{kind}\n{counted(len(rows), 'image')}",
            xlabel=f"label of {pairs[0][1]}" if one else "second of a pair",
            ylabel=(
                ""
                if panel is not axes[0][0]
                else f"label of {pairs[0][0]}"
                if one
                else "first of a pair"
            ),
        )
        panel.tick_params(axis="x", rotation=0)
    return figure


def gallery(pictures: list, captions: list[str], columns: int = 6) -> Figure:
    """Images (2-D arrays, 0 to 1) with captions of two lines; an empty gallery is labelled as
    empty.
    """
    each = (1.65, 2.15 if pictures else 0.5)
    figure, axes = figures.panels(len(pictures), columns, each, more=(0, 0.3))
    for panel, picture, caption in zip(axes.flat, pictures, captions):
        panel.axis("off")
        panel.imshow(picture, vmin=0, vmax=1, interpolation="antialiased")
        panel.set_title(caption, fontsize=8, loc="center", weight="normal")
    if not pictures:
        axes[0][columns // 2].text(
            0.5, 0.5, "no image", ha="center", va="center", fontsize=11, color="#666666"
        )
    return figure


def roc_curves(roc: pd.DataFrame, titles: dict[str, str], legend: dict[str, str]) -> Figure:
    """The ROC curve of every reader of `legend` (reader -> text) and their mean (black: the hits
    averaged at every share of false alarms), one panel per source of `titles` (source -> title).
    """
    across, alarms = min(len(titles), 3), np.linspace(0, 1, 1001)
    figure, grid = figures.panels(len(titles), across, (3.4, 3.9), more=(2.6, 0.8), sharey=True)
    for axes, (source, title) in zip(grid.flat, titles.items()):
        hits = []
        for number, (reader, text) in enumerate(legend.items()):
            curve = roc[(roc["reader"] == reader) & (roc["source"] == source)]
            if not len(curve):
                continue
            axes.plot(
                curve["false_alarms"],
                curve["hits"],
                linewidth=1.2,
                label=text,
                color=figures.READERS[number % len(figures.READERS)],
                marker="o",
                markersize=3,
                linestyle=["-", "--", "-.", ":"][number % 4],
            )
            ends = ([0, *curve["false_alarms"].sort_values()], [0, *curve["hits"].sort_values()])
            hits.append(np.interp(alarms, *ends))
        if len(hits) > 1:
            mean, label = np.mean(hits, axis=0), "mean of the readers"
            axes.plot(alarms, mean, color="black", linewidth=2.6, label=label)
        if not hits:
            no_curve = "no curve: real and generated\nimages are both needed"
            axes.text(0.5, 0.55, no_curve, ha="center", color="#666666")
        axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=1, label="chance: 0.5")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=title)
        axes.title.set_fontsize(9)
        axes.set_xlabel("false-positive rate\n(real images called fake)", fontsize=10)
    grid[0][0].set_ylabel("true-positive rate\n(generated images called fake)", fontsize=10)
    grid[0][-1].legend(
        *grid[0][0].get_legend_handles_labels(),
        title="area over all images (95 % interval)",
        title_fontsize=9,
        fontsize=9,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
    )
    return figure


def subgroup_shares(table: pd.DataFrame) -> Figure:
    """How often an answer was "fake", by group and truth: hits beside false alarms, with 95 %
    intervals.
    """
    shown = (table["measure"] == "called fake") & (table["by"] != "finding") & table["low"].notna()
    called = table[shown].reset_index(drop=True)
    group = called["group"].astype(str).replace(figures.NAMES).str.slice(0, 34)
    called = called.assign(row=called["by"] + ": " + group)
    rows = list(called["row"].unique())[::-1]
    figure, axes = plt.subplots(figsize=(8.2, 1.1 + 0.36 * max(len(rows), 1)))
    for shift, truth, marker in ((0.13, "generated", "o"), (-0.13, "real", "s")):
        part = called[called["truth"] == truth]
        places = [rows.index(row) + shift for row in part["row"]]
        colour, label = figures.COLOURS[truth], f"{truth} images"
        figures.intervals(axes, places, part, colour, marker, label=label)
    axes.set_yticks(range(len(rows)), rows)
    below, ends = (
        'share of answers that were "fake" (95 % interval)',
        (-0.6, max(len(rows), 1) - 0.4),
    )
    figures.percent_axis(axes, xlabel=below, ylim=ends)
    figures.legend_above(axes)
    return figure


def findings_counted(table: pd.DataFrame) -> Figure:
    """The conditions that readers described, as shares of the answers to generated and to real
    images.
    """
    kinds = [m for m in ("xray", "ct") if (table["modality"] == m).any()] or ["xray"]
    figure, axes = plt.subplots(1, len(kinds), figsize=(1.5 + 4.1 * len(kinds), 4.3), squeeze=False)
    for panel, modality in zip(axes[0], kinds):
        part = table[table["modality"] == modality]
        most = part.groupby("name")["answers"].sum().sort_values(ascending=False).head(10)
        names = most.index[::-1]
        for shift, origin in ((0.19, "generated"), (-0.19, "real")):
            own = part[part["origin"] == origin].set_index("name")["share"]
            if len(own):
                panel.barh(
                    np.arange(len(names)) + shift,
                    own.reindex(names).fillna(0),
                    height=0.36,
                    color=figures.COLOURS[origin],
                    label=f"{origin} images",
                )
        panel.set_yticks(range(len(names)), names)
        title = figures.NAMES[modality]
        figures.percent_axis(panel, title=title, xlabel="share of answers", xlim=None)
        panel.grid(False, axis="y")
    axes[0][0].legend(loc="lower left", bbox_to_anchor=(0, 1.07), ncols=2, frameon=False)
    return figure


def reading_times(answers: pd.DataFrame) -> Figure:
    """Seconds on screen per answer, by reader and label; boxes hold the middle half."""
    timed = answers[(answers["presentation"] == 1) & answers["seconds"].notna()].assign(
        seconds=lambda t: t["seconds"].astype(float)
    )
    figure, axes = plt.subplots(figsize=(8.2, 3.4))
    if len(timed):
        sns.boxplot(
            timed,
            x="reader",
            y="seconds",
            hue="label",
            hue_order=ORDER,
            palette=figures.COLOURS,
            ax=axes,
            fliersize=3,
            linewidth=1,
            saturation=1,
        )
        figures.legend_above(axes, 3, title="")
    axes.set(xlabel="", ylabel="seconds on screen", ylim=(0, None))
    return figure


def votes_and_distance(per_image: pd.DataFrame) -> Figure:
    """Generated images: distance to the nearest training case against the share of readers who
    called it real.
    """
    known = per_image[per_image["distance"].notna() & (per_image["readers"] > 0)]
    figure, axes = plt.subplots(figsize=(6.2, 3.6))
    share = known["votes_real"].astype(float) / known["readers"].astype(float)
    copies = known["copy"].fillna(False).astype(bool)
    colour, far = figures.COLOURS["fake"], known.loc[~copies, "distance"]
    axes.plot(far, share[~copies], "o", color=colour, alpha=0.7, label="no copy")
    if copies.any():
        near, label = known.loc[copies, "distance"], "near copy of a training case"
        axes.plot(near, share[copies], "X", color="black", markersize=9, label=label)
        axes.legend()
    axes.set(
        xlabel="distance to the nearest training case (smaller: more similar)",
        ylabel="readers who called it real",
        ylim=(-0.06, 1.06),
    )
    axes.yaxis.set_major_formatter(figures.percents())
    return figure
