"""The study's colours, theme and one function per published figure."""

import io

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's palette: distinguishable for colour-blind readers and in grey print.
COLOURS = {"real": "#0072B2", "fake": "#D55E00", "generated": "#D55E00", "uncertain": "#999999"}
READERS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def theme() -> None:
    """Set the study's look for every figure made after it: white, light grid, text that prints."""
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
        },
    )
    plt.rcParams["figure.constrained_layout.use"] = True


NAMES = {"xray": "X-ray", "ct": "CT", "generated": "generated", "real": "real"}
ORDER = ["real", "uncertain", "fake"]
GALLERIES = {
    "gallery_real": "Generated images called real by {people}",
    "gallery_uncertain": "Images that left {people} uncertain",
    "gallery_fake": "Generated images identified as fake by at least two readers",
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


def mark(figure: Figure, what: list[str] | bool) -> Figure:
    """Say on the figure itself that it rests on something simulated; unmarked when `what` is empty
    or False.
    """
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
    """A figure as png, svg or pdf, the same bytes whenever it is drawn."""
    target = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[
        kind
    ]
    figure.savefig(target, format=kind, metadata=metadata, facecolor="white")
    return target.getvalue()


def reading_flow(flow: dict) -> Figure:
    """From the images presented to the answers that count (STARD item 19)."""
    left_out = (
        f"Not analysed as first readings:\n{flow['training']} training cases\n{flow['repeats']}"
        " hidden repeats"
    )
    gone = f"{flow['withdrawn']} withdrew: all their answers left out"
    unread = f"{flow['missing_answers']} not answered"
    boxes = [
        (0, 3, f"{flow['presentations']} presentations in the reading set"),
        (1, 3, left_out),
        (0, 2, f"{flow['images']} images"),
        (
            0,
            1,
            (
                f"{flow['registered']} reader{'s' if flow['registered'] != 1 else ''}"
                f" registered\n{flow['readers']} analysed"
            ),
        ),
        (1, 1, gone),
        (
            0,
            0,
            (
                f"{flow['answers']} of {flow['expected_answers']} first"
                f' answers\n{flow["uncertain_answers"]} of them "uncertain"'
            ),
        ),
        (
            1,
            0,
            (
                f"{unread}\n{flow['repeat_answers']} answers to repeats\n(only for intra-reader"
                " agreement)"
            ),
        ),
    ]
    figure, axes = plt.subplots(figsize=(8.2, 5.4))
    for x, y, text in boxes:
        style = {
            "boxstyle": "round,pad=0.5",
            "facecolor": "white" if x == 0 else "#F3F3F3",
            "edgecolor": "#444444",
        }
        axes.text(x * 0.62 + 0.22, y / 3, text, ha="center", va="center", fontsize=10.5, bbox=style)
    for y in (3, 2, 1):
        axes.annotate(
            "",
            (0.22, (y - 1) / 3 + 0.09),
            (0.22, y / 3 - 0.07),
            arrowprops={"arrowstyle": "-|>", "color": "#444444"},
        )
    for y in (3, 1, 0):
        axes.annotate(
            "", (0.63, y / 3), (0.45, y / 3), arrowprops={"arrowstyle": "-|>", "color": "#AAAAAA"}
        )
    axes.set(xlim=(0, 1.08), ylim=(-0.15, 1.15))
    axes.axis("off")
    return figure


def labels_by_source(per_image: pd.DataFrame) -> Figure:
    """The answers, one bar per source, as shares of all answers."""
    source = (
        per_image["modality"].map(NAMES)
        + ", "
        + per_image["generator"].fillna("real").astype(str).str.slice(0, 34)
    )
    counts = per_image.groupby(source)[[f"votes_{label}" for label in ORDER]].sum()
    counts = counts[counts.sum(axis=1) > 0]
    shares = counts.div(counts.sum(axis=1), axis=0)
    figure, axes = plt.subplots(figsize=(8.2, 0.9 + 0.55 * max(len(shares), 1)))
    left = 0 * shares.sum(axis=1)
    for label in ORDER:
        values = shares[f"votes_{label}"]
        bars = axes.barh(
            shares.index,
            values,
            left=left,
            color=COLOURS[label],
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
        left = left + values
    axes.set(xlim=(0, 1), xlabel="share of answers (numbers: answers)", ylabel="")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(False, axis="y")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    return figure


def agreement_intervals(table: pd.DataFrame) -> Figure:
    """Every coefficient with its 95 % interval, one panel a group of images; what has no value says
    so in its row.
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
        estimate, low, high = (rows[c].astype(float) for c in ("estimate", "low", "high"))
        places = range(len(rows))
        panel.hlines(places, low.clip(-1, 1), high.clip(-1, 1), color="#333333", linewidth=2)
        panel.plot(estimate, places, "o", color="#000000", markersize=6)
        for place, value in zip(places, estimate):
            if value != value:
                panel.text(
                    0, place, "not defined", ha="center", va="center", fontsize=9, color="#666666"
                )
        panel.axvline(0, color="#888888", linewidth=1, linestyle="--")
        panel.set_yticks(places, [COEFFICIENTS[name] for name in rows.index])
        panel.set(
            xlim=(-1.05, 1.05),
            ylim=(-0.6, len(rows) - 0.4),
            title=NAMES.get(group, group),
            xlabel="agreement",
        )
    return figure


def label_matrix(labels: pd.DataFrame, shown: pd.Series) -> Figure:
    """Label by label, one panel a kind of image: rows the first, columns the second of every pair
    of readers, counts of images.
    """
    kinds = list(dict.fromkeys(shown))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(1.2 + 2.6 * len(kinds), 3.3), squeeze=False, sharey=True
    )
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels.columns[i + 1 :]]
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
            title=f"{kind}\n{len(rows)} images",
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


def gallery(title: str, pictures: list, captions: list[str], columns: int = 6) -> Figure:
    """Images (2-D arrays, 0 to 1) with captions of two lines; an empty gallery says so."""
    rows = max(1, -(-len(pictures) // columns))
    height = 2.15 * rows + 0.3 if pictures else 0.8
    figure, axes = plt.subplots(rows, columns, figsize=(1.65 * columns, height), squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=12)
    for panel in axes.ravel():
        panel.axis("off")
    for panel, picture, caption in zip(axes.ravel(), pictures, captions):
        panel.imshow(picture, vmin=0, vmax=1, interpolation="antialiased")
        panel.set_title(caption, fontsize=8, loc="center", weight="normal")
    if not pictures:
        axes[0][columns // 2].text(
            0.5, 0.5, "no image", ha="center", va="center", fontsize=11, color="#666666"
        )
    return figure


def roc_curves(roc: pd.DataFrame, legend: dict[str, str]) -> Figure:
    """The ROC curve of every reader of `legend` (reader -> text), from label and confidence."""
    figure, axes = plt.subplots(figsize=(7.4, 4.6))
    style = {"marker": "o", "markersize": 4, "linewidth": 2}
    for number, (reader, text) in enumerate(legend.items()):
        curve = roc[roc["reader"] == reader] if len(roc) else roc
        if len(curve):
            colour, line = READERS[number % len(READERS)], ["-", "--", "-.", ":"][number % 4]
            look = style | {"color": colour, "linestyle": line, "label": text}
            axes.plot(curve["false_alarms"], curve["hits"], **look)
    axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=1, label="guessing: 0.5")
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="real images called fake, at least this surely",
        ylabel="generated images called fake",
        aspect="equal",
    )
    place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "frameon": False}
    axes.legend(title="area (95 % interval)", fontsize=9, title_fontsize=9, **place)
    if not len(roc):
        no_curve = "no curve: real and generated images\nare both needed"
        axes.text(0.5, 0.55, no_curve, ha="center", color="#666666")
    return figure


def subgroup_shares(table: pd.DataFrame) -> Figure:
    """How often an answer was "fake", by group and truth: hits beside false alarms, 95 %
    intervals.
    """
    shown = (table["measure"] == "called fake") & (table["by"] != "finding") & table["low"].notna()
    called = table[shown].reset_index(drop=True)
    group = called["group"].astype(str).replace(NAMES).str.slice(0, 34)
    called = called.assign(row=called["by"] + ": " + group)
    rows = list(dict.fromkeys(called["row"]))[::-1]
    figure, axes = plt.subplots(figsize=(8.2, 1.1 + 0.36 * max(len(rows), 1)))
    for shift, truth in ((0.13, "generated"), (-0.13, "real")):
        part = called[called["truth"] == truth]
        places = [rows.index(row) + shift for row in part["row"]]
        axes.hlines(places, part["low"], part["high"], color=COLOURS[truth], linewidth=2)
        marker = "o" if truth == "generated" else "s"
        axes.plot(
            part["estimate"],
            places,
            marker,
            color=COLOURS[truth],
            label=f"{truth} images",
            markersize=6,
        )
    axes.set(
        yticks=range(len(rows)),
        yticklabels=rows,
        xlim=(-0.02, 1.02),
        xlabel='share of answers that were "fake" (95 % interval)',
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)
    return figure


def findings_counted(table: pd.DataFrame) -> Figure:
    """The conditions that readers described, as shares of the answers to generated and to real
    images.
    """
    kinds = [m for m in ("xray", "ct") if (table["modality"] == m).any()] or ["xray"]
    figure, axes = plt.subplots(1, len(kinds), figsize=(1.5 + 4.1 * len(kinds), 4.3), squeeze=False)
    for panel, modality in zip(axes[0], kinds):
        part = table[table["modality"] == modality]
        names = (
            part.groupby("name")["answers"].sum().sort_values(ascending=False).head(10).index[::-1]
        )
        for shift, origin in ((0.19, "generated"), (-0.19, "real")):
            shares = (
                part[part["origin"] == origin].set_index("name")["share"].reindex(names).fillna(0)
            )
            if (part["origin"] == origin).any():
                panel.barh(
                    [i + shift for i in range(len(names))],
                    shares,
                    height=0.36,
                    color=COLOURS[origin],
                    label=f"{origin} images",
                )
        panel.set(
            yticks=range(len(names)),
            yticklabels=names,
            title=NAMES[modality],
            xlabel="share of answers",
        )
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
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
        palette = {label: COLOURS[label] for label in ORDER}
        sns.boxplot(
            timed,
            x="reader",
            y="seconds",
            hue="label",
            hue_order=ORDER,
            palette=palette,
            ax=axes,
            fliersize=3,
            linewidth=1,
            saturation=1,
        )
        axes.legend(title="", ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
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
    axes.plot(
        known.loc[~copies, "distance"],
        share[~copies],
        "o",
        color=COLOURS["fake"],
        alpha=0.7,
        label="no copy",
    )
    if copies.any():
        axes.plot(
            known.loc[copies, "distance"],
            share[copies],
            "X",
            color="#000000",
            markersize=9,
            label="near copy of a training case",
        )
        axes.legend()
    axes.set(
        xlabel="distance to the nearest training case (smaller: more similar)",
        ylabel="readers who called it real",
        ylim=(-0.06, 1.06),
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
