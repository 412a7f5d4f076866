"""Figures of the study's own questions: by truth, by block, and noticed while unaware."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures, protocol
from helpers.analyse_readings import marks, pairs, publishing, questions_once, texts
from helpers.analyse_readings.questions import TRUTH
from helpers.runner import runs


def draw(run: runs.Run, found: dict, tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures of these results, marked if something is simulated."""
    results = found["own_questions"]
    means = [
        row for row in results["means"] if row["question"] != "label" and row["origin"] != "pair"
    ]
    changes = pd.DataFrame([row for row in results["contrasts"] if row["contrast"] != TRUTH])
    if len(changes):
        each = changes.groupby(["question", "contrast"], sort=False)
        changes = each.filter(lambda rows: np.ptp(rows[["before", "after"]].to_numpy()) > 0)
    once = [
        row
        for row in results["once"]
        if row["group"] == questions_once.ALL and row["count"] is not None and row["kind"] != "text"
    ]
    drawn = {}
    if means:
        drawn["questions_by_truth"] = by_truth(pd.DataFrame(means), results)
    if len(changes):
        drawn["block_changes"] = from_block_to_block(changes, results)
    if once:
        drawn["questions_once"] = answered_once(pd.DataFrame(once), results)
    if "difference" in results["noticed"]:
        drawn["noticed"] = while_unaware(results["noticed"])
    if "pairs" in found:
        drawn["pairs"] = pairs.figure(found["pairs"], found["areas"])
    for one in found.get("marks", []):
        own = tables["marks"].query("block == @one['block'] and question == @one['question']")
        if len(own):
            name = f"marks_{one['block']}_{one['question']}"
            drawn[f"{name}_images"] = on_images(own, one, run)
            drawn[f"{name}_sources"] = marks.by_source(own, one["answers_by_source"])
    return publishing.finish(run, drawn, texts.captions(found, {}))


def on_images(drawn: pd.DataFrame, one: dict, run: runs.Run) -> Figure:
    """The images on which most readers marked the same place, as the readers saw them, with all
    their marks.
    """
    chosen = marks.most_alike(drawn, run.parameters.gallery_images)
    set_run = runs.load(run.study, run.parameters.reading_set)
    shown = drawn.drop_duplicates("image_id").set_index("image_id").loc[chosen, "blind_id"]
    pictures = dict(zip(chosen, publishing.pictures(shown, set_run)))
    return marks.on_images(drawn, pictures, one["readers"])


def _named(results: dict, block: str, question: str) -> str:
    """A question with the ends of its scale, and its part where there are several."""
    one = results["asked"][block][question]
    lines = textwrap.wrap(one["text"], 44, max_lines=2, placeholder=" …")
    lines += [one["ends"]] * bool(one["ends"])
    return "\n".join(lines + [f"“{results['titles'][block]}”"] * (len(results["blocks"]) > 1))


def by_truth(means: pd.DataFrame, results: dict) -> Figure:
    """The mean answer to real and to generated images, with 95 % intervals: one row per question
    and block, one panel per scale (number of steps, yes/no, number). `results`: own_questions.
    """
    about = [results["asked"][row.block][row.question] for row in means.itertuples()]
    scales = [one["steps"] if one["kind"] == "scale" else one["kind"] for one in about]
    kinds = dict([*means.groupby(pd.Series(scales, means.index, dtype=object), sort=False)])
    counts = [len(rows[["block", "question"]].drop_duplicates()) for rows in kinds.values()]
    size = (8.2, 0.9 * len(kinds) + 0.3 + 0.65 * sum(counts))
    figure, panels = plt.subplots(len(kinds), 1, figsize=size, height_ratios=counts, squeeze=False)
    for axes, (scale, part) in zip(panels[:, 0], kinds.items()):
        rows = part[["block", "question"]].drop_duplicates().to_records(index=False).tolist()
        for shift, origin in ((-0.12, "real"), (0.12, "generated")):
            own = part[part["origin"] == origin].set_index(["block", "question"])
            places, label = np.arange(len(rows)) + shift, f"{origin} images"
            figures.intervals(axes, places, own.reindex(rows), figures.COLOURS[origin], label=label)
        names = [_named(results, *row) for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8.5)
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        if scale == protocol.YES_NO:
            figures.percent_axis(axes, xlabel="share of answers “yes”")
        elif scale == "number":
            axes.set(xlabel="mean number")
        else:
            axes.set(xlim=(0.9, scale + 0.1), xlabel=f"mean step, 1 to {scale}")
    figures.legend_above(panels[0][0])
    return figure


def from_block_to_block(changes: pd.DataFrame, results: dict) -> Figure:
    """Each reader's mean in the earlier and the later block, one panel per question; all readers
    together are the thick line. `results`: own_questions.
    """
    kinds = changes.groupby(["question", "contrast"], sort=False)
    figure, every = figures.panels(len(kinds), min(3, len(kinds)), (3.4, 3.4), more=(1.2, 0))
    for axes, ((question, contrast), rows) in zip(every.flat, kinds):
        later, _, earlier = contrast.partition(" minus ")
        for row in rows.to_dict("records"):
            if row["reader"].startswith("R"):
                values = [row["before"], row["after"]]
                axes.plot([0, 1], values, color="#999999", marker="o", markersize=3, linewidth=1)
        whole = rows[rows["reader"] == pairs.THESE].iloc[0]
        axes.plot([0, 1], [whole["before"], whole["after"]], color="black", marker="o", linewidth=3)
        one = results["asked"][earlier][question]
        title = "share of right labels" if question == "label" else one["text"]
        title = "\n".join([textwrap.fill(title, 34), *([one["ends"]] * bool(one["ends"]))])
        names = [textwrap.fill(results["titles"][block], 18) for block in (earlier, later)]
        axes.set(xticks=[0, 1], xlim=(-0.35, 1.35))
        axes.set_xticklabels(names, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.15)
    return figure


def answered_once(once: pd.DataFrame, results: dict) -> Figure:
    """How many readers gave each answer to what was asked once: one panel per question, with 95 %
    intervals. `results`: own_questions.
    """
    kinds = dict([*once.groupby(["block", "question"], sort=False)])
    counts = [len(rows) for rows in kinds.values()]
    size = (8.2, 0.9 + 0.5 * len(kinds) + 0.27 * sum(counts))
    figure, panels = plt.subplots(
        len(kinds), 1, figsize=size, height_ratios=counts, squeeze=False, sharex=True
    )
    for axes, ((block, question), rows) in zip(panels[:, 0], kinds.items()):
        places, ends = range(len(rows)), rows[["estimate", "low", "high"]].astype(float)
        axes.barh(places, ends["estimate"], color="#9db4c0", height=0.7)
        axes.hlines(places, ends["low"], ends["high"], color="black")
        names = [textwrap.shorten(text, 40, placeholder=" …") for text in rows["text"]]
        numbers = zip(names, rows["count"].astype(int), rows["total"])
        axes.set_yticks(places, [f"{name}: {n} of {of}" for name, n, of in numbers], fontsize=8.5)
        axes.set(ylim=(len(rows) - 0.4, -0.6))
        asked = texts.quoted(results["asked"][block][question])
        title = textwrap.shorten(asked, 70, placeholder=" …")
        axes.set_title(f"{title}\n“{results['titles'][block]}”", fontsize=8.5, loc="left")
        axes.grid(False, axis="y")
        figures.percent_axis(axes, xlim=(0, 1))
    panels[-1][0].set_xlabel("share of the readers who answered")
    return figure


def while_unaware(noticed: dict) -> Figure:
    """The shares of images called unusual before readers knew, with 95 % intervals."""
    counts, (figure, axes) = [], plt.subplots(figsize=(6.4, 2.0))
    for place, origin in enumerate(("real", "generated")):
        share = noticed[origin]
        axes.barh(place, share["estimate"], color=figures.COLOURS[origin], height=0.6)
        if share["low"] is not None:
            axes.plot([share["low"], share["high"]], [place, place], color="black", linewidth=2)
        counts.append(f"{origin}\n{share['count']} of {share['total']}")
    axes.set_yticks([0, 1], counts)
    figures.percent_axis(axes, xlim=(0, 1), xlabel="answers that call the image unusual")
    return figure
