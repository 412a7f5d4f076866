"""Analyses the marks on the images: how many readers marked which place, whether they agree, and
where each source is marked.
"""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers import protocol
from helpers.analyse_readings import results, texts
from helpers.statistics import accuracy, agreement

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")
REGIONS = [f"{row} {column}" for row in ROWS for column in COLUMNS]
REGIONS[4] = "central"
RADIUS = 0.06  # share of the side: the radius that a point marks
CELLS = 60  # cells along each side of the maps
BY_IMAGE = ["reader", "image_id"]


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
            own = {
                "marks": drawn.drop(columns="cluster"),
                "mark_regions": pd.DataFrame(_shares(read, hits)),
                "mark_agreement": _agreement(read, hits),
            }
            for name, table in own.items():
                frames[name].append(table.assign(**where))
            about = {
                "answers": len(read),
                "readers": int(read["reader"].nunique()),
                "marks": len(drawn),
                "images": int(read["image_id"].nunique()),
                "answers_by_source": read["source"].value_counts().to_dict(),
                "text": question.text,
                **_alike(read, hits),
                "regions": frames["mark_regions"][-1].to_dict("records"),
                "agreement": frames["mark_agreement"][-1].to_dict("records"),
            }
            found.append(where | about)
    if not found:
        return {}, {}
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
    return {"marks": found}, tables


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
    middle = (
        (table[at] + table[side] / 2).clip(0, 0.999)
        for at, side in (("x", "width"), ("y", "height"))
    )
    column, row = ((values * 3).astype(int) for values in middle)
    regions = [REGIONS[place] for place in 3 * row + column]
    return table.assign(region=regions)


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
            found = accuracy.counted(yes, rows["cluster"], of)
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


def _alike(read: pd.DataFrame, hits: pd.DataFrame) -> dict:
    """The generated images on which at least two readers marked the same region."""
    own = pd.concat([read, hits], axis=1)[read["origin"] == "generated"]
    most = own.groupby("image_id")[REGIONS].sum().max(axis=1)
    clusters = own.drop_duplicates("image_id").set_index("image_id")["cluster"]
    return {
        "two_alike": accuracy.counted(most >= 2, clusters.reindex(most.index), accuracy.unit([1]))
    }


def counted(marks: pd.DataFrame) -> np.ndarray:
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
