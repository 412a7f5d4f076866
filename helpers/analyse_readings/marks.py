"""Analyses and draws the marks on the images: how many readers marked which place, whether they
agree, and where each source is marked.
"""

import json
import textwrap
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from helpers import figures, protocol
from helpers.analyse_readings import results, texts
from helpers.statistics import accuracy, agreement

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")
REGIONS = [f"{row} {column}" for row in ROWS for column in COLUMNS]
REGIONS[4] = "central"
RADIUS = 0.06  # share of the side: the radius that a point marks
CELLS = 60  # cells along each side of the maps
BY_IMAGE = ["reader", "image_id"]
HEAT = LinearSegmentedColormap.from_list(
    "marks", [(1, 0.8, 0, 0), (1, 0.6, 0, 0.45), (1, 0.35, 0, 0.65), (0.9, 0, 0, 0.85)]
)
ACROSS = 4


def analyse(
    designed: protocol.Protocol, answers: pd.DataFrame, key: pd.DataFrame, size: int
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Results under `marks`, one per block and question, and their tables; empty if no question
    asks for marks.

    `answers`: questions.scored; `size`: side of the images that were read, pixels. Every answer
    about an image counts, with or without a mark.
    """
    found, frames = [], {"marks": [], "mark_regions": [], "mark_agreement": []}
    for block in designed.scored():
        for question in designed.questions_of(block.block):
            if question.kind != protocol.MARKS:
                continue
            where = {"block": block.block, "question": question.id}
            read = _read(answers[answers["block"] == block.block], key)
            drawn = _drawn(read, answers, where, size)
            hits = _by_region(read, drawn)
            frames["marks"].append(drawn.drop(columns="cluster").assign(**where))
            frames["mark_regions"].append(pd.DataFrame(_shares(read, hits)).assign(**where))
            frames["mark_agreement"].append(_agreement(read, hits).assign(**where))
            about = {
                "answers": len(read),
                "readers": int(read["reader"].nunique()),
                "marks": len(drawn),
                "images": int(read["image_id"].nunique()),
                "answers_by_source": read["source"].value_counts().to_dict(),
                "text": question.text,
                "two_alike": _two_alike(read, hits),
                "regions": frames["mark_regions"][-1].to_dict("records"),
                "agreement": frames["mark_agreement"][-1].to_dict("records"),
            }
            found.append(where | about)
    if not found:
        return {}, {}
    return {"marks": found}, {n: pd.concat(f, ignore_index=True) for n, f in frames.items()}


def _read(answers: pd.DataFrame, key: pd.DataFrame) -> pd.DataFrame:
    """One row per reader and image of a block, with its source."""
    read = answers.drop_duplicates(BY_IMAGE)[[*BY_IMAGE, "blind_id", "origin", "cluster"]]
    read = read.merge(key[["blind_id", "modality", "generator"]], on="blind_id")
    kinds = read["modality"].map(texts.KINDS)
    source = (kinds + " by " + read["generator"]).fillna("real " + kinds)
    return read.drop(columns="generator").assign(source=source)


def _drawn(read: pd.DataFrame, answers: pd.DataFrame, about: dict, size: int) -> pd.DataFrame:
    """One row per mark, columns as in table_columns.TABLES["marks"] and cluster."""
    own = answers[(answers["block"] == about["block"]) & (answers["question"] == about["question"])]
    rows = [
        {"reader": reader, "image_id": image, "mark": number, "cue": mark["cue"] or None}
        | {name: mark[key] / size for name, key in zip(("x", "y", "width", "height"), "xywh")}
        for reader, image, value in own[[*BY_IMAGE, "value"]].itertuples(index=False)
        for number, mark in enumerate(json.loads(value), 1)
    ]
    columns = [*BY_IMAGE, "mark", "cue", "x", "y", "width", "height"]
    table = pd.DataFrame(rows, columns=columns).merge(read, on=BY_IMAGE)
    column, row = (
        ((table[at] + table[side] / 2).clip(0, 0.999) * 3).astype(int)
        for at, side in (("x", "width"), ("y", "height"))
    )
    return table.assign(region=[REGIONS[place] for place in 3 * row + column])


def _by_region(read: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Whether each answer (rows as in `read`) marked each region."""
    marked = pd.crosstab([drawn[name] for name in BY_IMAGE], drawn["region"]) > 0
    marked = marked.reindex(pd.MultiIndex.from_frame(read[BY_IMAGE]), columns=REGIONS)
    return marked.fillna(False).astype(bool).reset_index(drop=True)


def _shares(read: pd.DataFrame, hits: pd.DataFrame) -> Iterator[dict]:
    """For every source, and for all real and all generated images, the share of answers that marked
    anything, and each region.
    """
    whole = ((f"all {origin} images", rows) for origin, rows in read.groupby("origin"))
    for source, rows in [*whole, *read.groupby("source")]:
        for region in ("anywhere", *REGIONS):
            own = hits.loc[rows.index]
            yes = own.any(axis=1) if region == "anywhere" else own[region]
            of = accuracy.unit(rows["origin"].eq("generated").astype(int))
            found = accuracy.share_row(yes, rows["cluster"], of)
            yield {"source": source, "region": region} | found


def _agreement(read: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Whether readers mark the same regions of generated images: an item is a region of an image,
    regions of one prompt's images are one cluster.
    """
    long = pd.concat([read, hits.astype(float)], axis=1)[read["origin"] == "generated"]
    long = long.melt([*BY_IMAGE, "cluster"], REGIONS, "region", "marked")
    wide = long.pivot(index=["image_id", "region"], columns="reader", values="marked")
    groups = long.drop_duplicates(["image_id", "region"]).set_index(["image_id", "region"])
    if wide.shape[1] < 2:
        return pd.DataFrame(columns=["coefficient"])
    found = agreement.coefficients(
        wide, [0, 1], clusters=groups["cluster"].reindex(wide.index), scale="atanh"
    )
    return results.without_few(found.rename_axis("coefficient").reset_index())


def _two_alike(read: pd.DataFrame, hits: pd.DataFrame) -> dict:
    """The generated images on which at least two readers marked the same region."""
    own = pd.concat([read, hits], axis=1)[read["origin"] == "generated"]
    most = own.groupby("image_id")[REGIONS].sum().max(axis=1)
    clusters = own.drop_duplicates("image_id").set_index("image_id")["cluster"]
    return accuracy.share_row(most >= 2, clusters.reindex(most.index), accuracy.unit([1]))


def readers_by_cell(marks: pd.DataFrame) -> np.ndarray:
    """How many readers marked each cell of a map (CELLS, CELLS) of one or several images; a point
    marks what is within RADIUS of it.
    """
    centres = (np.arange(CELLS) + 0.5) / CELLS
    x, y = np.meshgrid(centres, centres)
    total = np.zeros((CELLS, CELLS), int)
    for _, own in marks.groupby(BY_IMAGE):
        seen = np.zeros((CELLS, CELLS), bool)
        for mark in own.itertuples():
            inside = (abs(x - mark.x - mark.width / 2) <= mark.width / 2) & (
                abs(y - mark.y - mark.height / 2) <= mark.height / 2
            )
            point = mark.width == mark.height == 0
            seen |= np.hypot(x - mark.x, y - mark.y) <= RADIUS if point else inside
        total += seen
    return total


def most_alike(marks: pd.DataFrame, most: int) -> list[str]:
    """The image_ids on which most readers marked the same place; among equals, those that most
    readers marked.
    """
    places = {
        image: (readers_by_cell(own).max(), own["reader"].nunique())
        for image, own in marks.groupby("image_id")
    }
    return sorted(places, key=lambda image: (*(-n for n in places[image]), image))[:most]


def on_images(marks: pd.DataFrame, pictures: dict[str, np.ndarray], readers: int) -> Figure:
    """The marks on the images; colour: how many readers marked that place. `pictures`: grey values
    from 0 to 1 by image_id.
    """
    figure, every = figures.panels(len(pictures), ACROSS, (2.05, 2.45))
    maps = {image: readers_by_cell(marks[marks["image_id"] == image]) for image in pictures}
    top = max(heat.max() for heat in maps.values())
    for axes, (image, picture) in zip(every.flat, pictures.items()):
        own = marks[marks["image_id"] == image]
        axes.axis("off")
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
        axes.imshow(maps[image], cmap=HEAT, vmin=0, vmax=top, extent=(0, 1, 1, 0))
        for mark in own.itertuples():
            style = {"fill": False, "edgecolor": "#56B4E9", "linewidth": 0.8}
            point = mark.width == mark.height == 0
            box = Rectangle((mark.x, mark.y), mark.width, mark.height, **style)
            axes.add_patch(Circle((mark.x, mark.y), RADIUS / 2, **style) if point else box)
        said = f"{own['reader'].nunique()} of {readers} readers marked"
        said += f",\n{maps[image].max()} at one place"
        axes.set_title(f"{own['origin'].iloc[0]}\n{said}", fontsize=8.5)
    return figure


def by_source(marks: pd.DataFrame, answers: dict[str, int]) -> Figure:
    """Where each source is marked, as the share of its `answers` (source -> number)."""
    sources = sorted(answers)
    figure, every = figures.panels(len(sources), ACROSS, (2.05, 2.6))
    shares = {
        name: readers_by_cell(marks[marks["source"] == name]) / answers[name] for name in sources
    }
    top = max(max(share.max() for share in shares.values()), 0.01)
    for axes, name in zip(every.flat, sources):
        drawn = axes.imshow(shares[name], cmap="Oranges", vmin=0, vmax=top, extent=(0, 1, 1, 0))
        thirds = [1 / 3, 2 / 3]
        axes.set(xticks=thirds, yticks=thirds, xticklabels=[], yticklabels=[])
        axes.grid(True, color="#999999", linewidth=0.5)
        axes.set_title(textwrap.fill(name, 24), fontsize=8.5)
    figure.colorbar(
        drawn, ax=every, shrink=0.8, format=figures.percents(), label="share of the answers"
    )
    return figure
