"""The answers joined with the truth: one row per answer, one row per image,
one column per reader.
"""

from pathlib import Path

import pandas as pd

from helpers import protocol, protocol_tables
from helpers.assemble_reading_set import blinding
from helpers.reading import export
from helpers.table_columns import LABELS


class AnalysisError(ValueError):
    """The readings cannot be analysed; the message says why and what to do."""


def read_answers(folder: Path, reading_set: Path, kind: str = "person") -> dict[str, pd.DataFrame]:
    """The tables of stage 07 in `folder`: events, answers, readings, readers, checked against the
    set that was sent and against themselves; and `fields`.

    Raises BlindingError for answers that do not fit the set or the events, AnalysisError for a
    changed chain of events and for readers of the wrong kind.
    """
    found = blinding.import_readings(folder, reading_set)
    if broken := export.check_export(found["events"]):
        raise AnalysisError(
            f"{folder}/events.csv differs from what the store wrote ({broken[0]}): copy or export"
            " the read again."
        )
    kinds = found["readers"].get("kind", pd.Series(dtype="string")).fillna("person")
    if (kinds != kind).any():
        raise AnalysisError(
            f"{folder}/readers.csv has a {kinds[kinds != kind].iloc[0]} among its readers: name the"
            " runs of models in `models`, and the run of people in `readings`."
        )
    found["fields"] = fields(
        protocol_tables.load(reading_set), once(found["answers"], found["readers"])
    )
    return found


def once(given: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Every answer that was asked once, of readers who have not withdrawn: columns reader, block,
    question, value.
    """
    names = reader_names(readers)
    rows = given[given["reader_id"].isin(names) & given["blind_id"].isna()]
    return rows.assign(reader=rows["reader_id"].map(names))[
        ["reader", "block", "question", "value"]
    ]


def fields(designed: protocol.Protocol, said: pd.DataFrame) -> pd.DataFrame:
    """What divides readers into groups, such as the level of training: one row per reader, one
    column per choice asked of the reader, named by its text, with the text of the option.
    """
    own = said[said["block"] == protocol.READER]
    found = {}
    for question in designed.questions_of(protocol.READER):
        if question.kind == "choice":
            given = own[own["question"] == question.id].set_index("reader")["value"]
            order = pd.CategoricalDtype([text for _, text in question.options], ordered=True)
            found[question.text] = given.map(dict(question.options)).astype(order)
    return pd.DataFrame(found)


def not_withdrawn(readers: pd.DataFrame) -> pd.DataFrame:
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
            "an answer to {blind_id}, which is not in this reading set: check reading_set and"
            " readings of 08.",
        ),
        (
            readings.duplicated(["reader_id", "blind_id"]),
            "two answers of {reader_id} to {blind_id} (answered twice): export the read again.",
        ),
    ):
        if wrong.any():
            raise AnalysisError("readings.csv has " + said.format(**readings[wrong].iloc[0]))
    if "finding" in readings:
        raise AnalysisError(
            "readings.csv has a column 'finding', which belongs to the key: export the read again."
        )
    people = not_withdrawn(readers).drop(columns=["simulated", "withdrawn_utc"], errors="ignore")
    joined = readings.merge(key.rename(columns={"finding": "true_finding"}), on="blind_id")
    joined = joined.merge(people, on="reader_id")
    joined = joined[~joined["training"].fillna(False).astype(bool)]
    if joined.empty:
        raise AnalysisError(
            "No reader who has not withdrawn has answered any image: there is nothing to analyse."
        )
    joined = joined.assign(
        reader=joined["reader_id"].map(reader_names(readers)),
        truth=(joined["origin"] == "generated").astype(int),
    )
    joined = joined.sort_values(["reader_id", "position"])  # in the order of the readers' names
    return joined.assign(
        presentation=joined.groupby(["reader_id", "image_id"]).cumcount() + 1
    ).reset_index(drop=True)


def reader_names(readers: pd.DataFrame) -> dict[str, str]:
    """ "R1", "R2", … by reader_id, readers who withdrew left out."""
    known = sorted(not_withdrawn(readers)["reader_id"])
    return {reader_id: f"R{number}" for number, reader_id in enumerate(known, 1)}


def images(key: pd.DataFrame) -> pd.DataFrame:
    """One row per image to be read (training and repeats left out), indexed by image_id, with truth
    (0, 1) and cluster: what images that are not independent share, the prompt of generated and the
    patient of real ones.
    """
    read = key[~key["training"].fillna(False).astype(bool) & key["repeat_of"].isna()]
    real = read["origin"] == "real"
    cluster = ("patient " + read["patient"]).where(real, "prompt " + read["prompt_id"])
    read = read.assign(truth=(~real).astype(int), cluster=cluster.fillna(read["image_id"]))
    return read.set_index("image_id").sort_index()


def wide(
    joined: pd.DataFrame,
    images: pd.Index,
    value: str = "label",
    *,
    readers: list[str],
    presentation: int = 1,
) -> pd.DataFrame:
    """One row per image, one column per reader (all of `readers`, also those without an answer)."""
    chosen = joined[joined["presentation"] == presentation]
    table = chosen.pivot(index="image_id", columns="reader", values=value)
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
    kept = [
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
    votes = pd.crosstab(first["image_id"], first["label"])
    votes = votes.reindex(index=shown.index, columns=LABELS, fill_value=0).add_prefix("votes_")
    of_image = {
        "labels": groups.apply(lambda g: "|".join(map("{}:{}".format, g["reader"], g["label"]))),
        "median_seconds": groups["seconds"].median(),
        "mean_confidence": groups["confidence"].mean(),
        "cues": groups["cues"].agg(_tally),
        "descriptions": groups.apply(_described),
    }
    table = (
        shown[kept]
        .join(votes)
        .assign(
            readers=votes.sum(axis=1),
            **{name: values.reindex(shown.index) for name, values in of_image.items()},
            fooled=(shown["origin"] == "generated") & (votes["votes_real"] > votes["votes_fake"]),
        )
    )
    table.insert(0, "case", range(1, len(table) + 1))
    table.insert(1, "cluster", pd.factorize(shown["cluster"])[0] + 1)
    if nearest is not None:
        known = nearest[nearest["trained_here"].fillna(True)]  # elsewhere: a comparison
        known = known.drop_duplicates("image_id").set_index("image_id")
        table = table.join(known[["nearest_image_id", "distance", "copy"]])
    return table.reset_index()


def _tally(cues: pd.Series) -> str:
    counts = cues.dropna().str.split("|").explode().value_counts().sort_index()
    counts = counts.sort_values(ascending=False, kind="stable")
    return "|".join(f"{cue}:{count}" for cue, count in counts.items()) or pd.NA


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
