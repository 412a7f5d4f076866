"""Figures and small tables of stage 01: where the files went, what the cases look like, how they
were split.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from helpers import figures, images
from helpers.findings import FINDINGS
from helpers.plurals import counted
from helpers.prepare_cases.cases import Cases
from helpers.table_columns import MODALITY_NAMES, SPLITS

UNREADABLE = (
    "damaged",
    "empty file",
    "cannot be read",
    "not an image",
    "text, not",
    "metadata table",
    "zip",
    "gzip",
    "rar",
    "7z",
    "PDF",
    "DICOM without",
)


def flow(prepared: Cases) -> Figure:
    """Flow diagram: files found, readable, kept, and the split of their images; files that were
    left out are at the side.
    """
    rejected, imported, cases = prepared.rejected, prepared.imported, prepared.images
    unreadable = rejected["reason"].str.startswith(UNREADABLE)
    kept = imported["file_hash"].nunique()
    real = cases[cases["origin"] == "real"]
    steps = (
        f"{counted(kept + len(rejected), 'file')} found",
        f"{kept + int((~unreadable).sum()):,} readable as images",
        f"{counted(kept, 'file')} kept\n{counted(len(cases), 'image')}",
    )
    splits = real["split"].value_counts().reindex(SPLITS, fill_value=0)
    blue, heights = figures.COLOURS["real"], (0.92, 0.64, 0.36)
    boxes = [(0.18, y, text, blue) for y, text in zip(heights, steps)]
    arrows = [(0, 1), (1, 2)]
    for y, lost in zip((0.78, 0.5), (rejected[unreadable], rejected[~unreadable])):
        if len(lost):
            arrows.append(((0.18, y), len(boxes)))
            boxes.append((0.7, y, _reasons(lost), "#BBBBBB"))
    last = [(f"{splits[name]:,} {name}", blue) for name in SPLITS]
    last.append((f"{len(cases) - len(real):,} generated\nelsewhere", figures.COLOURS["fake"]))
    arrows += [(2, len(boxes) + place) for place in range(len(last))]
    boxes += [(0.12 + 0.25 * place, 0.08, *end) for place, end in enumerate(last)]
    return figures.mark(figures.flow_chart(boxes, arrows, 5.2), cases["simulated"].any())


def _reasons(lost: pd.DataFrame, most: int = 4) -> str:
    counts = lost["reason"].value_counts()
    lines = [
        f"{count:,} × {textwrap.shorten(reason, 60, placeholder='…')}"
        for reason, count in counts.head(most).items()
    ]
    if len(counts) > most:
        lines.append(
            f"{counts.iloc[most:].sum():,} for {counted(len(counts) - most, 'other reason')}"
        )
    return "\n".join(lines)


def by_finding(
    prepared: Cases, folder: Path, modality: str, each: int = 8, most: int = 10
) -> Image.Image:
    """A contact sheet, one row per finding, the most frequent first: up to `each` images spread
    over the cases.
    """
    cases = prepared.images[prepared.images["modality"] == modality]
    first = cases["finding"].fillna("").str.split("|").str[0]
    rows = []
    for finding in first.value_counts().index[:most]:
        of_finding = cases[first == finding]
        spread = np.linspace(0, len(of_finding) - 1, min(each, len(of_finding)))
        chosen = of_finding.iloc[spread.round().astype(int)]
        name = FINDINGS.get(finding, "finding unknown")
        titles = [name + ("" if pd.isna(side) else f", {side}") for side in chosen["side"]]
        rows.append(images.contact_sheet(chosen, folder, titles, columns=each))
    if not rows:
        return images.contact_sheet(cases, folder)
    sheet = Image.new("L", (max(row.width for row in rows), sum(row.height for row in rows)), 255)
    for number, row in enumerate(rows):
        sheet.paste(row, (0, sum(before.height for before in rows[:number])))
    return sheet


def histograms(prepared: Cases) -> Figure:
    """Original size, original depth and mean grey of the images, one colour per source: differences
    that could give a source away.
    """
    cases = prepared.imported.merge(
        prepared.images[["image_id", "modality", "origin", "credit", "simulated"]], on="image_id"
    )
    named = cases["credit"].fillna(cases["layout"]).str.split(",").str[0].str.slice(0, 38)
    cases["source"] = (
        cases["modality"].map(MODALITY_NAMES)
        + ", "
        + named
        + np.where(cases["origin"] == "generated", " (generated)", "")
    )
    cases["side"] = cases[["original_width", "original_height"]].max(axis=1)
    top = cases["source"].value_counts().index[:6]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    palette = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(top)))
    for axis, column, label in zip(
        axes,
        ("side", "original_bits", "mean_grey"),
        ("longer side of the file, pixels", "stored depth, bits", "mean grey, share of the range"),
    ):
        values = [cases.loc[cases["source"] == source, column].astype(float) for source in top]
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        margin = 8 if column == "side" else 0.005  # whole pixels on the axis if all are alike
        bins = (
            np.arange(0.5, 33.5)
            if column == "original_bits"
            else np.linspace(low - margin, high + margin, 25)
        )
        axis.hist(values, bins=bins, stacked=True, label=list(top), color=list(palette))
        axis.set(xlabel=label, ylabel="images")
    axes[1].set_xlim(0, max(17, float(cases["original_bits"].max()) + 1))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": 2, "frameon": False}
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=9, **place)
    return figures.mark(figure, cases["simulated"].any())


def split_table(prepared: Cases) -> pd.DataFrame:
    """Real images by modality, finding and split; an image with several findings counts in each."""
    real = prepared.images[prepared.images["origin"] == "real"]
    long = real.assign(finding=real["finding"].fillna("unknown").str.split("|")).explode("finding")
    return (
        pd.crosstab(
            [
                long["modality"].map(MODALITY_NAMES),
                long["finding"].map(lambda name: FINDINGS.get(name, "finding unknown")),
            ],
            long["split"],
        )
        .reindex(columns=SPLITS, fill_value=0)
        .rename_axis(index=["modality", "finding"], columns=None)
    )


def clip_and_mask(prepared: Cases) -> pd.DataFrame:
    """What was done to the pixels, per modality: clipped by a window, masked, and by how much."""
    cases = prepared.imported.merge(prepared.images[["image_id", "modality"]], on="image_id")
    grouped = cases.groupby(cases["modality"].map(MODALITY_NAMES))
    return pd.DataFrame(
        {
            "images": grouped.size(),
            "windows": grouped["window"].nunique(),
            "outside the window, mean share": grouped["clipped"].mean().astype(float).round(3),
            "with masked text": grouped.apply(lambda g: int((g["masked"] > 0).sum())),
            "masked, largest share": grouped["masked"].max().astype(float).round(3),
        }
    ).rename_axis(None)


def with_marks(prepared: Cases, column: str, most: int = 16) -> pd.DataFrame:
    """The rows of images.csv with duplicates (`duplicate_group`), with the most masked text
    (`masked`) or suspected to be inverted (`inverted`), with a title for each.
    """
    marks = prepared.imported[["image_id", "masked", "inverted"]]
    rows = prepared.images.merge(marks, on="image_id").dropna(subset=column)
    rows = rows[~rows[column].isin([0])]  # nothing masked, not inverted
    rows = rows.sort_values([column, "image_id"], ascending=[column != "masked", True]).head(most)
    titles = {
        "masked": [f"{100 * share:.1f} % masked" for share in rows["masked"]],
        "inverted": rows["image_id"],
        "duplicate_group": [f"group {n + 1}" for n in pd.factorize(rows["duplicate_group"])[0]],
    }
    return rows.assign(title=titles[column])
