"""Analyses a forced choice between two images: how often readers picked the generated image, and
how often the left image, whatever it was.
"""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures, protocol
from helpers.statistics import accuracy, clusters
from helpers.statistics.differences import difference

THESE, GENERAL = "these readers", "readers in general"
CORRECT, LEFT = "correct", "left"
FINDING_AND_VIEW = ("finding", "view")
LIKE = {(True, True): "finding and view", (True, False): "finding", (False, True): "view"}


def of_key(key: pd.DataFrame) -> pd.DataFrame:
    """One row per pair that counts, columns blind_id (of the left image), block, left and right
    (image_ids), generated (the side), modality, matched (what both have in common) and cluster
    (pairs that share a prompt or a patient, also through other pairs).
    """
    scored = key[~key["training"].fillna(False).astype(bool) & key["pair"].notna()]
    is_left = scored["blind_id"] == scored["pair"]
    both = scored[is_left].merge(scored[~is_left], on=["pair", "block"], suffixes=("", "_right"))
    same = [both[name].fillna("") == both[f"{name}_right"].fillna("") for name in FINDING_AND_VIEW]
    table = both[["blind_id", "block", "modality"]].assign(
        left=both["image_id"],
        right=both["image_id_right"],
        generated=both["origin"].map({"generated": "left", "real": "right"}),
        matched=[LIKE.get(alike, "none") for alike in zip(*same)],
    )
    shared = [
        both[name].fillna(both[f"{name}_right"]).fillna(both["pair"])
        for name in ("prompt_id", "patient")
    ]
    return table.assign(cluster=[f"pairs {number}" for number in clusters.connected(*shared)])


def analyse(
    designed: protocol.Protocol, compared: pd.DataFrame, answers: pd.DataFrame
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Results under `pairs`, one per block with pairs, and their tables; empty if no pair was read.
    `compared`: of_key; `answers`: questions.scored.
    """
    chosen = answers[answers["question"] == protocol.WHICH]
    chosen = chosen.merge(compared[["blind_id", "generated"]], on="blind_id")
    chosen[CORRECT] = chosen["value"] == chosen["generated"]
    chosen[LEFT] = chosen["value"] == "left"
    if chosen.empty:
        return {}, {}
    shares, blocks = pd.DataFrame(list(_shares(designed, chosen, answers))), []
    for block in designed.scored():
        own, said = (table[table["block"] == block.block] for table in (compared, chosen))
        if not len(said):
            continue
        row = {
            "block": block.block,
            "title": block.title,
            "linked": block.linked,
            "pairs": len(own),
            "answers": len(said),
            "readers": said["reader"].nunique(),
            "generated_left": int((own["generated"] == "left").sum()),
            "matched": own["matched"].value_counts().to_dict(),
            "clusters": own["cluster"].nunique(),
            "shares": shares[shares["block"] == block.block].to_dict("records"),
        }
        blocks.append(row)
    votes = chosen.groupby("blind_id").agg(
        answers=(CORRECT, "size"), correct=(CORRECT, "sum"), called_left=(LEFT, "sum")
    )
    table = compared.merge(votes.astype("Int64"), left_on="blind_id", right_index=True, how="left")
    return {"pairs": blocks}, {
        "pairs": table.drop(columns=["blind_id", "cluster"]),
        "pair_shares": shares,
    }


def _shares(designed, chosen: pd.DataFrame, answers: pd.DataFrame) -> Iterator[dict]:
    """The shares of correct choices and of choices of the left image, for every reader, these
    readers, and readers in general. Also the shares of correct choices by confidence.
    """
    for (block, reader), own in chosen.groupby(["block", "reader"], sort=False):
        for measure in (CORRECT, LEFT):
            yield _row(block, reader, measure, accuracy.share(own[measure], own["cluster"]))
    for block, rows in chosen.groupby("block", sort=False):
        for measure in (CORRECT, LEFT):
            found = accuracy.share(rows[measure], rows["cluster"])
            yield _row(block, THESE, measure, found)
            general = difference(rows.assign(number=rows[measure] * 1.0), None, general=True)
            general |= {name: found[name] for name in ("count", "total")}
            yield _row(block, GENERAL, measure, general)
        sure = next((one for one in designed.questions_of(block) if one.id == "confidence"), None)
        given = answers[(answers["block"] == block) & (answers["question"] == "confidence")]
        steps = rows.merge(given[["blind_id", "reader", "number"]], on=["blind_id", "reader"])
        for step, own in steps.groupby("number_y"):
            measure = f"{CORRECT}, confidence {dict(sure.options)[f'{step:g}']}"
            yield _row(block, THESE, measure, accuracy.share(own[CORRECT], own["cluster"]))


def _row(block: str, reader: str, measure: str, found: dict) -> dict:
    row = {"block": block, "reader": reader, "measure": measure}
    return row | {name: found[name] for name in accuracy.SHARE_FIELDS}


def figure(blocks: list[dict], areas: list[dict]) -> Figure:
    """Shares of correct choices and of choices of the left image, with 95 % intervals, one row per
    reader; `areas`: rows of the table, the same readers' areas from single images.
    """
    single = {row["reader"]: row["estimate"] for row in areas if row["stratum"] == "all"}
    names = [row["reader"] for row in blocks[0]["shares"] if row["measure"] == CORRECT]
    drawn, every = plt.subplots(
        len(blocks), 2, figsize=(8.2, (1.1 + 0.3 * len(names)) * len(blocks)), squeeze=False
    )
    titles = {CORRECT: "picked the generated image", LEFT: "picked the left image"}
    for axes_of_block, block in zip(every, blocks):
        for axes, (measure, title) in zip(axes_of_block, titles.items()):
            rows = pd.DataFrame([row for row in block["shares"] if row["measure"] == measure])
            places = rows["reader"].map(names.index)
            figures.intervals(axes, places, rows, "black")
            if measure == CORRECT:
                alone, colour = (
                    rows["reader"].map(single).astype(float),
                    figures.COLOURS["generated"],
                )
                axes.plot(alone, places, "D", mfc="none", color=colour)
            axes.axvline(0.5, color="#999999", linestyle=":", linewidth=1)
            axes.set_yticks(range(len(names)), names if measure == CORRECT else [])
            figures.percent_axis(axes, xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), title=title)
    return drawn
