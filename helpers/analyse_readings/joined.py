"""The answers joined with the truth: one row an answer, one row an image, one column a reader."""

from pathlib import Path

import pandas as pd

from helpers.assemble_reading_set import blinding
from helpers.reading import export
from helpers.table_columns import LABELS


class AnalysisError(ValueError):
    """Readings that cannot be analysed; the message says why and what to do."""


def came_back(folder: Path, reading_set: Path) -> dict[str, pd.DataFrame]:
    """The tables of stage 07 in `folder`: events, readings, readers; checked against the set that
    was sent and against themselves.

    Raises BlindingError for answers that do not fit the set or the events, AnalysisError for a
    changed chain of events.
    """
    found = blinding.import_readings(folder, reading_set)
    if broken := export.check_export(found["events"]):
        raise AnalysisError(
            f"{folder}/events.csv is not as the store wrote it ({broken[0]}): copy or export the"
            " read again."
        )
    return found


def answers(key: pd.DataFrame, readings: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Every answer that counts with its truth: one row an answer of a reader who has not withdrawn,
    training cases left out.

    Adds to the columns of readings those of the key, reader ("R1", "R2", … in order of reader_id),
    truth (0 real, 1 generated), presentation (1 for the first time this reader saw the image, 2 for
    its repeat) and the reader's years, specialty, prior_ai. Raises AnalysisError for answers to
    images that the key does not know, for a reader who is not in readers, for an image answered
    twice by a reader, and when nobody has answered anything.
    """
    stays = readers[readers["withdrawn_utc"].isna()] if "withdrawn_utc" in readers else readers
    strangers = readings[~readings["reader_id"].isin(readers["reader_id"])]
    if len(strangers):
        raise AnalysisError(
            f"readings.csv has answers of {strangers['reader_id'].iloc[0]}, who is not in"
            " readers.csv: export the read again."
        )
    unknown = readings[~readings["blind_id"].isin(key["blind_id"])]
    if len(unknown):
        raise AnalysisError(
            f"readings.csv has an answer to {unknown['blind_id'].iloc[0]}, which this reading set"
            " does not have: it is another set's."
        )
    twice = readings[readings.duplicated(["reader_id", "blind_id"])]
    if len(twice):
        raise AnalysisError(
            f"{twice['reader_id'].iloc[0]} has answered {twice['blind_id'].iloc[0]} twice in"
            " readings.csv: export the read again."
        )
    truths = key.rename(columns={"finding": "true_finding"})
    if "finding" in readings:
        raise AnalysisError("readings.csv has a column 'finding', which belongs to the key.")
    joined = readings.merge(truths, on="blind_id").merge(
        stays.drop(columns=["simulated", "withdrawn_utc"], errors="ignore"), on="reader_id"
    )
    joined = joined[~joined["training"].fillna(False).astype(bool)]
    if joined.empty:
        raise AnalysisError(
            "No reader who has not withdrawn has answered any image: there is nothing to analyse."
        )
    names = reader_names(stays)
    joined = joined.assign(
        reader=joined["reader_id"].map(names), truth=(joined["origin"] == "generated").astype(int)
    )
    joined = joined.sort_values(
        ["reader", "position"], key=lambda c: c.str[1:].astype(int) if c.name == "reader" else c
    )
    return joined.assign(
        presentation=joined.groupby(["reader_id", "image_id"]).cumcount() + 1
    ).reset_index(drop=True)


def reader_names(readers: pd.DataFrame) -> dict[str, str]:
    """ "R1", "R2", … by reader_id, readers who withdrew left out."""
    stays = readers[readers["withdrawn_utc"].isna()] if "withdrawn_utc" in readers else readers
    return {
        reader_id: f"R{number}" for number, reader_id in enumerate(sorted(stays["reader_id"]), 1)
    }


def pictures(key: pd.DataFrame) -> pd.DataFrame:
    """One row an image to be read (training and repeats left out), indexed by image_id, with truth
    (0, 1).
    """
    read = key[~key["training"].fillna(False).astype(bool) & key["repeat_of"].isna()]
    return (
        read.assign(truth=(read["origin"] == "generated").astype(int))
        .set_index("image_id")
        .sort_index()
    )


def wide(
    joined: pd.DataFrame,
    images: pd.Index,
    value: str = "label",
    presentation: int = 1,
    readers: list | None = None,
) -> pd.DataFrame:
    """One row an image, one column a reader (all of `readers`, also those without an answer)."""
    chosen = joined[joined["presentation"] == presentation]
    table = chosen.pivot(index="image_id", columns="reader", values=value)
    readers = readers or sorted(joined["reader"].unique(), key=lambda name: int(name[1:]))
    return table.reindex(index=images, columns=readers).rename_axis(columns=None)


def per_image(
    joined: pd.DataFrame, shown: pd.DataFrame, nearest: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row an image of `pictures`: truth, votes, times, confidence, cues, descriptions, and the
    nearest training case.

    Columns as in table_columns.TABLES["per_image"]. `fooled`: generated, and more readers called it
    real than fake.
    """
    first = joined[joined["presentation"] == 1]
    groups = first.groupby("image_id")
    votes = first.pivot_table(
        index="image_id", columns="label", values="blind_id", aggfunc="count"
    ).reindex(index=shown.index, columns=LABELS)
    table = shown[
        [
            "blind_id",
            "run",
            "modality",
            "view",
            "origin",
            "generator",
            "finding",
            "prompt_id",
            "simulated",
        ]
    ].copy()
    for label in LABELS:
        table[f"votes_{label}"] = votes[label].fillna(0).astype(int)
    table["readers"] = table[[f"votes_{label}" for label in LABELS]].sum(axis=1)
    table["labels"] = groups.apply(
        lambda g: "|".join(f"{r}:{label}" for r, label in zip(g["reader"], g["label"]))
    ).reindex(shown.index)
    table["median_seconds"] = groups["seconds"].median().reindex(shown.index)
    table["mean_confidence"] = groups["confidence"].mean().reindex(shown.index)
    table["cues"] = groups["cues"].agg(_tally).reindex(shown.index)
    table["descriptions"] = groups.apply(_described).reindex(shown.index)
    table["fooled"] = (table["origin"] == "generated") & (table["votes_real"] > table["votes_fake"])
    if nearest is not None:
        trained_here = nearest[nearest["trained_here"].fillna(True)]  # elsewhere: a comparison
        known = trained_here.drop_duplicates("image_id").set_index("image_id")
        for column in ("nearest_image_id", "distance", "copy"):
            table[column] = known[column].reindex(shown.index)
    return table.reset_index()


def _tally(cues: pd.Series) -> str:
    counts = cues.dropna().str.split("|").explode().value_counts()
    return (
        "|".join(
            f"{cue}:{count}"
            for cue, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )
        or pd.NA
    )


def _described(group: pd.DataFrame) -> str:
    said = [
        f"{reader}: {text}"
        for reader, text in zip(group["reader"], group["description"])
        if pd.notna(text)
    ]
    return " / ".join(said) or pd.NA


def both_are(labels: pd.DataFrame, label: str) -> tuple[int, int]:
    """How many images every reader gave `label`, of how many that every reader labelled."""
    complete = labels.dropna()
    return int((complete == label).all(axis=1).sum()) if labels.shape[1] else 0, len(complete)


def at_least_two(labels: pd.DataFrame, label: str) -> tuple[int, int]:
    """How many images at least two readers gave `label`, of how many that at least two labelled."""
    rated = labels[labels.notna().sum(axis=1) >= 2]
    return int(((rated == label).sum(axis=1) >= 2).sum()), len(rated)
