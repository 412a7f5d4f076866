"""The answers joined with the truth: one row per answer, one row per image,
one column per reader.
"""

from pathlib import Path

import pandas as pd

from helpers.assemble_reading_set import blinding
from helpers.reading import export
from helpers.table_columns import LABELS


class AnalysisError(ValueError):
    """Readings that cannot be analysed; the message says why and what to do."""


def came_back(folder: Path, reading_set: Path, kind: str = "person") -> dict[str, pd.DataFrame]:
    """The tables of stage 07 in `folder`: events, readings, readers; checked against the set that
    was sent and against themselves.

    Raises BlindingError for answers that do not fit the set or the events, AnalysisError for a
    changed chain of events and for readers who are not of this kind.
    """
    found = blinding.import_readings(folder, reading_set)
    if broken := export.check_export(found["events"]):
        raise AnalysisError(
            f"{folder}/events.csv is not as the store wrote it ({broken[0]}): copy or export the"
            " read again."
        )
    kinds = found["readers"].get("kind", pd.Series(dtype="string")).fillna("person")
    if (kinds != kind).any():
        raise AnalysisError(
            f"{folder}/readers.csv has a {kinds[kinds != kind].iloc[0]} among its readers: the runs"
            " of models stand in `models`, that of people in `readings`."
        )
    return found


def staying(readers: pd.DataFrame) -> pd.DataFrame:
    """The readers who have not withdrawn."""
    return readers[readers["withdrawn_utc"].isna()] if "withdrawn_utc" in readers else readers


def answers(key: pd.DataFrame, readings: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Every answer that counts with its truth: one row per answer of a reader who has not
    withdrawn, training cases left out.

    Adds to the columns of readings those of the key, reader ("R1", "R2", … in order of reader_id),
    truth (0 real, 1 generated), presentation (1 for the first time this reader saw the image, 2 for
    its repeat) and the reader's years, specialty, prior_ai. Raises AnalysisError for answers to
    images that the key does not know, for a reader who is not in readers, for an image answered
    twice by a reader, and when nobody has answered anything.
    """
    for wrong, said in (
        (
            ~readings["reader_id"].isin(readers["reader_id"]),
            "answers of {reader_id}, who is not in readers.csv: export the read again.",
        ),
        (
            ~readings["blind_id"].isin(key["blind_id"]),
            "an answer to {blind_id}, which is not in this reading set but in another one.",
        ),
        (
            readings.duplicated(["reader_id", "blind_id"]),
            "two answers of {reader_id} to {blind_id} (answered twice): export the read again.",
        ),
    ):
        if wrong.any():
            raise AnalysisError("readings.csv has " + said.format(**readings[wrong].iloc[0]))
    if "finding" in readings:
        raise AnalysisError("readings.csv has a column 'finding', which belongs to the key.")
    people = staying(readers).drop(columns=["simulated", "withdrawn_utc"], errors="ignore")
    joined = readings.merge(key.rename(columns={"finding": "true_finding"}), on="blind_id")
    joined = joined.merge(people, on="reader_id")
    joined = joined[~joined["training"].fillna(False).astype(bool)]
    if joined.empty:
        raise AnalysisError(
            "No reader who has not withdrawn has answered any image: there is nothing to analyse."
        )
    names = reader_names(readers)
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
    known = sorted(staying(readers)["reader_id"])
    return {reader_id: f"R{number}" for number, reader_id in enumerate(known, 1)}


def images(key: pd.DataFrame) -> pd.DataFrame:
    """One row per image to be read (training and repeats left out), indexed by image_id, with truth
    (0, 1) and cluster: what images that are not independent share, the prompt of generated and the
    patient of real ones.
    """
    read = key[~key["training"].fillna(False).astype(bool) & key["repeat_of"].isna()]
    real = read["origin"] == "real"
    cluster = ("patient " + read["patient"]).where(real, "prompt " + read["prompt_id"])
    table = read.assign(truth=(~real).astype(int), cluster=cluster.fillna(read["image_id"]))
    return table.set_index("image_id").sort_index()


def wide(
    joined: pd.DataFrame,
    images: pd.Index,
    value: str = "label",
    presentation: int = 1,
    readers: list | None = None,
) -> pd.DataFrame:
    """One row per image, one column per reader (all of `readers`, also those without an answer)."""
    chosen = joined[joined["presentation"] == presentation]
    table = chosen.pivot(index="image_id", columns="reader", values=value)
    readers = readers or sorted(joined["reader"].unique(), key=lambda name: int(name[1:]))
    return table.reindex(index=images, columns=readers).rename_axis(columns=None)


def per_image(
    joined: pd.DataFrame, shown: pd.DataFrame, nearest: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per image of `images`: truth, votes, times, confidence, cues, descriptions, and the
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
    table.insert(0, "case", range(1, len(table) + 1))
    table.insert(1, "cluster", pd.factorize(shown["cluster"])[0] + 1)
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


def all_are(labels: pd.DataFrame, label: str) -> pd.Series:
    """Whether every reader gave `label`, by image that every reader labelled."""
    return (labels.dropna() == label).all(axis=1)


def at_least_two(labels: pd.DataFrame, label: str) -> pd.Series:
    """Whether at least two readers gave `label`, by image that at least two labelled."""
    rated = labels[labels.notna().sum(axis=1) >= 2]
    return (rated == label).sum(axis=1) >= 2
