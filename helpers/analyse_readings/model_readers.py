"""Models beside the readers: their own rows, figures and sentences. No result of the readers is
computed here, and no result from here enters theirs.
"""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures
from helpers.analyse_readings import (
    image_sets,
    joined,
    publishing,
    questions,
    reader_areas,
    results,
    texts,
)
from helpers.assemble_reading_set import seal
from helpers.runner import runs
from helpers.statistics import accuracy, agreement, comparisons
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import LABELS, column_names

COLOUR, INK = "#6A3D9A", "#1b1b1b"  # the models' colour is not used for readers, labels or truths
SHOWN = ("percent", "cohen", "gwet")
MAJORITY = "majority"


def analyse(
    run: runs.Run, set_run: runs.Run, key: pd.DataFrame, found: dict, tables: dict, main: str
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Results under `models` and their tables; both are empty if the run names no models.

    `found` and `tables` are those of the readers and are not changed.
    """
    if not run.parameters.models:
        return {}, {}
    own_key = questions.of_block(key, main)
    shown = joined.images(own_key)
    about, answers = _answers(run, set_run, own_key, main)
    people = [row["reader"] for row in found["readers"]]
    labels, scores = _wide(tables["answers"], shown.index, people)
    model_labels, model_scores = _wide(answers, shown.index, list(about["reader"]))
    groups = image_sets.clusters(shown)
    policy = run.parameters.uncertain.replace("own", "wrong")
    right, model_right = (_right(part, shown["truth"], policy) for part in (labels, model_labels))
    frames = {
        "model_readings": about,
        "model_answers": answers,
        "model_accuracy": image_sets.by_stratum(model_labels, shown, accuracy.policies),
        "model_areas": image_sets.by_stratum(model_scores, shown, reader_areas.area),
        "model_agreement": _agreement(model_labels, labels, groups),
        "model_differences": _differences(
            (model_right, right), (model_scores, scores), shown["truth"], groups
        ),
        "model_consistency": _consistency(about, model_labels, answers, shown, groups),
    }
    frames["model_readings"] = about.reindex(columns=[*column_names("model_readings"), "simulated"])
    kept = {name.removeprefix("model_"): results.records(frame) for name, frame in frames.items()}
    del kept["answers"]
    kept |= {"no_majority": int(majority(labels).isna().sum()), "policy": policy}
    return {"models": results.plain(kept)}, frames


def _answers(run, set_run, key, main) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per reading of a model, and all their answers; a reading has its model's name."""
    about, given = [], []
    for name in run.parameters.models:
        model_run = run.reads(name)
        back = joined.read_answers(model_run.folder, set_run.folder / "reading_set", kind="model")
        _refuse_late(name, back["readers"], set_run)
        rows = model_run.read("models.csv").sort_values("reader_id").reset_index(drop=True)
        several = len(rows) > 1
        rows["reader"] = [
            f"{label}, reading {number}" if several else label
            for number, label in enumerate(rows["label"], 1)
        ]
        reasons = model_run.read("missing_answers.csv")
        reasons = reasons[reasons["block"] == main].assign(
            reason=lambda t: t["reason"].str.split(":").str[0]
        )
        rows["reasons"] = [
            "; ".join(f"{why} ({n})" for why, n in own["reason"].value_counts().items()) or pd.NA
            for own in (reasons[reasons["reader_id"] == one] for one in rows["reader_id"])
        ]
        sent = model_run.parameters
        rows = rows.assign(run=name, memory=sent.memory, approval=sent.approval or pd.NA)
        own = joined.answers(key, questions.of_block(back["readings"], main), back["readers"])
        own["reader"] = own["reader_id"].map(rows.set_index("reader_id")["reader"])
        about.append(rows)
        given.append(results.answer_table(own))
    about = pd.concat(about, ignore_index=True)
    if twice := about["reader"][about["reader"].duplicated()].tolist():
        raise joined.AnalysisError(
            f"Two models are called '{twice[0]}': give one of them another label."
        )
    return about, pd.concat(given, ignore_index=True)


def _refuse_late(name: str, readers: pd.DataFrame, set_run: runs.Run) -> None:
    """Raises AnalysisError for a model that had not locked when the key was opened."""
    opened = [
        entry["utc"]
        for entry in seal.openings(set_run.folder / "sealed")
        if entry["how"] != "simulated readers"
    ]
    if (readers["locked_utc"].fillna("9") > min(opened, default="8")).any():
        raise joined.AnalysisError(
            f"{name} had not locked when the key was opened: its answers are not blinded."
            " Take it out of `models`."
        )


def _wide(answers: pd.DataFrame, images: pd.Index, readers: list) -> tuple:
    """Labels and scores, one row per image and one column per reader."""
    return tuple(
        joined.wide(answers, images, value, readers=readers) for value in ("label", "score")
    )


def _right(labels: pd.DataFrame, truth: pd.Series, policy: str) -> pd.DataFrame:
    """1 for a right label, 0 for a wrong one, missing without (dropped: for "uncertain" too)."""
    counted = labels.mask(labels == "uncertain") if policy == "dropped" else labels
    right = counted.eq(truth.map({1: "fake", 0: "real"}), axis=0)
    return right.astype(float).mask(counted.isna())


def majority(labels: pd.DataFrame) -> pd.Series:
    """The label that more readers gave than any other, by image; missing if two labels are equally
    frequent.
    """
    votes = pd.DataFrame({label: (labels == label).sum(axis=1) for label in LABELS})
    most = votes.eq(votes.max(axis=1), axis=0)
    return votes.idxmax(axis=1).mask(most.sum(axis=1) > 1)


def _agreement(models: pd.DataFrame, readers: pd.DataFrame, groups) -> pd.DataFrame:
    """Each model with each reader and with their majority, over the images that both labelled."""
    others = readers.assign(**{MAJORITY: majority(readers)} if readers.shape[1] > 1 else {})
    parts = {}
    for model, other in product(models, others):
        both = pd.DataFrame({"a": models[model], "b": others[other]}).dropna()
        own = None if groups is None else groups[both.index]
        found = agreement.coefficients(both, LABELS, clusters=own, scale="atanh")
        parts[model, other] = found.loc[list(SHOWN)]
    table = pd.concat(parts, names=["reader", "other", "coefficient"]).reset_index()
    return results.without_few(table.drop(columns="readers"))


def _differences(rights: tuple, scores: tuple, truth: pd.Series, groups) -> pd.DataFrame:
    """Each model minus the readers' mean: accuracy, and the area where both kinds were read."""
    rows = []
    for model in rights[0]:
        found = {"accuracy": comparisons.model_accuracy(rights[1], rights[0][model], groups)}
        if truth.nunique() == 2:
            found["area"] = comparisons.model_area(scores[1], truth, scores[0][model], groups)
        rows += [{"reader": model, "measure": name, **row} for name, row in found.items()]
    table = pd.DataFrame(rows).reindex(columns=column_names("model_differences"))
    table.loc[table["readers"] < FEW_READERS, ["general_low", "general_high"]] = np.nan
    return table


def _consistency(about, labels, answers, shown, groups) -> pd.DataFrame:
    """Each model with itself: over its readings of the whole set, and on the hidden repeats."""
    parts = {}
    for label, rows in about.groupby("label", sort=False):
        if len(rows) > 1:
            parts[label, "readings of the set"] = agreement.coefficients(
                labels[rows["reader"]], LABELS, clusters=groups, scale="atanh"
            ).loc[["percent", "fleiss", "gwet"]]
    frames = (
        [
            results.without_few(
                pd.concat(parts, names=["reader", "over", "coefficient"]).reset_index()
            )
        ]
        if parts
        else []
    )
    again = results.intra_reader(answers, shown.index, list(labels))
    again = again[again["coefficient"].isin(SHOWN)].assign(over="hidden repeats", readers=2)
    return pd.concat([*frames, again], ignore_index=True)[column_names("model_consistency")]


def overall(rows: list[dict], **wanted) -> list[dict]:
    """The rows over all images that have these values."""
    wanted["stratum"] = image_sets.OVERALL
    return [row for row in rows if wanted.items() <= row.items()]


def draw(run: runs.Run, found: dict) -> dict[str, Figure]:
    """Accuracy and area of every reader and, below a line in their own colour, every model."""
    if "models" not in found:
        return {}
    models, chosen = found["models"], {"measure": "accuracy", "policy": found["models"]["policy"]}
    panels = {
        "accuracy": [overall(part["accuracy"], **chosen) for part in (found, models)],
        "area under the ROC curve": [overall(part["areas"]) for part in (found, models)],
    }
    people, own = ([row["reader"] for row in part] for part in panels["accuracy"])
    names, height = [*people, *own], 1.2 + 0.34 * len([*people, *own])
    figure, axes = plt.subplots(1, 2, figsize=(10, height), sharey=True, layout="constrained")
    for axis, (title, parts) in zip(axes, panels.items()):
        for rows, colour, marker in zip(parts, (INK, COLOUR), ("o", "D")):
            places = [names.index(row["reader"]) for row in rows]
            figures.intervals(axis, places, pd.DataFrame(rows), colour, marker, markersize=7)
        axis.axvline(0.5, color="#999999", linestyle=":", linewidth=1)
        axis.axhline(len(people) - 0.5, color=INK, linewidth=0.8)
        axis.set(xlim=(0, 1), xlabel=title, yticks=range(len(names)), yticklabels=names)
    for tick, name in zip(axes[0].get_yticklabels(), names):
        tick.set_color(COLOUR if name in own else INK)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return publishing.finish(run, {"models": figure}, texts.captions(found, {}))
