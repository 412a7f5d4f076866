"""Every number of the report, computed once: a dictionary for results.json and tables for
tables/.
"""

import json
import math

import numpy as np
import pandas as pd

from helpers.analyse_readings import (
    counts,
    descriptions,
    effects,
    image_sets,
    joined,
    primary_measure,
    reader_areas,
)
from helpers.statistics import accuracy, agreement
from helpers.table_columns import LABELS, column_names

FEW_IMAGES = 10  # with fewer images, counts say more than an interval of a coefficient
GROUPS = ("modality", "source", "finding", "experience", "prior knowledge of AI", "reader")
BANDS = ["up to 5 years", "6 to 10 years", "11 to 20 years", "over 20 years"]
# Tables that have a different name in results.json.
RENAMED = {"reader_summary": "readers", "findings_counted": "findings"}


def analyse(
    settings,
    key: pd.DataFrame,
    readings: pd.DataFrame,
    readers: pd.DataFrame,
    nearest: pd.DataFrame | None = None,
    fields: pd.DataFrame | None = None,
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """All results of a study, and their tables (name without .csv -> frame).

    `settings`: the parameters of 08; `fields`: what divides readers (joined.fields). Raises
    joined.AnalysisError if the readings cannot be analysed.
    """
    answers, shown = joined.answers(key, readings, readers), joined.images(key)
    people = list(joined.reader_names(readers).values())
    labels = joined.wide(answers, shown.index, readers=people)
    confidence = joined.wide(answers, shown.index, "confidence", readers=people)
    scores = labels.apply(lambda column: accuracy.scores(column, confidence[column.name]))
    tables = make_tables(settings, answers, shown, readers, labels, scores, nearest)
    tables["subgroups"] = subgroups(answers, shown, fields)
    saw = descriptions.expected(descriptions.seen(answers), answers, shown)
    tables["findings_asked"] = descriptions.expected_table(saw)
    first = effects.first_answers(answers, shown, settings.uncertain)
    tables["model_effects"], model = effects.model(first)
    tables |= effects.changes(first)
    design = counts.describe(key, shown, readers, labels, confidence)
    judged = shown.index[(shown["truth"] == 1) & labels.notna().any(axis=1)]
    results = {
        "design": design,
        "flow": counts.flow(design, key, readers, answers),
        "headline": counts.headline(labels, shown, tables["findings_counted"]),
        "multireader": (areas := reader_areas.many_readers(settings, scores, shown)),
        "primary": primary_measure.measure(
            settings, {"multireader": areas, **tables}, labels, shown, image_sets.clusters(shown)
        ),
        "asked_for": descriptions.expected_summary(saw, answers),
        "model": model,
        "power": reader_areas.study_power(settings, scores, shown["truth"]),
        "fooled": counts.fooled(tables["per_image"])
        | {"chance": counts.by_chance(labels, judged, "fooled")},
        "settings": {
            name: settings[name]
            for name in ("margin", "covariance", "uncertain", "replicates", "seed")
        },
    }
    kept = {name: t for name, t in tables.items() if name not in ("per_image", "answers")}
    return plain(results | {RENAMED.get(n, n): records(t) for n, t in kept.items()}), tables


def make_tables(
    settings, answers, shown, readers, labels, scores, nearest
) -> dict[str, pd.DataFrame]:
    """Every table of tables/, by name; columns as in table_columns.TABLES."""
    found, groups = descriptions.seen(answers), image_sets.clusters(shown)
    return {
        "per_image": joined.per_image(answers, shown, nearest),
        "answers": answer_table(answers),
        "reader_summary": reader_table(answers, readers, len(shown)),
        "agreement": agreement_table(labels, shown),
        "agreement_pairs": agreement.pairs(labels, LABELS, scale="atanh", clusters=groups),
        "agreement_weighted": weighted_table(labels, groups),
        "intra_reader": intra_reader(answers, shown.index, list(labels)),
        "accuracy": image_sets.by_stratum(labels, shown, accuracy.policies),
        "areas": image_sets.by_stratum(scores, shown, reader_areas.area),
        "roc": image_sets.by_source(scores, shown, reader_areas.curves),
        "source_areas": image_sets.by_source(scores, shown, reader_areas.mean_area),
        "comparisons": reader_areas.compared(scores, shown, readers),
        "findings_counted": descriptions.finding_counts(found, answers),
        "findings_agreement": descriptions.agreement_on(found, answers, shown),
        "descriptions": descriptions.examples(answers),
        "coverage": coverage_table(settings, labels),
    }


def answer_table(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers that count, with the truth; columns as in table_columns.TABLES["answers"]."""
    scored = answers.assign(score=accuracy.scores(answers["label"], answers["confidence"]))
    return scored[column_names("answers")]


def agreement_table(labels: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Coefficients for every group of images: columns group, coefficient and those of
    agreement.coefficients.
    """
    groups, frames = image_sets.clusters(shown), {}
    for name, inside in image_sets.image_groups(shown).items():
        own = None if groups is None else groups[inside]
        frames[name] = agreement.coefficients(labels[inside], LABELS, clusters=own, scale="atanh")
    return without_few(pd.concat(frames, names=["group", "coefficient"]).reset_index())


def without_few(table: pd.DataFrame) -> pd.DataFrame:
    """The table without intervals from fewer than FEW_IMAGES images; percent keeps its Wilson
    interval.
    """
    few = table["low"].notna() & (table["images"] < FEW_IMAGES)
    few &= table["coefficient"] != "percent"
    return without_interval(table, few, f"fewer than {FEW_IMAGES} images")


def without_interval(table: pd.DataFrame, where: pd.Series, reason: str) -> pd.DataFrame:
    """The table with the reason in place of the interval in some rows."""
    hidden = table[["low", "high"]].mask(where)
    return table.assign(**hidden, reason=table["reason"].mask(where, reason))


def weighted_table(labels: pd.DataFrame, groups) -> pd.DataFrame:
    """All images with the labels as an order real, uncertain, fake: linear and quadratic weights,
    ordinal alpha.
    """
    frames = {
        weights: agreement.coefficients(
            labels,
            ["real", "uncertain", "fake"],
            weights=weights,
            metric="ordinal",
            clusters=groups,
            scale="atanh",
        )
        for weights in ("linear", "quadratic")
    }
    return without_few(pd.concat(frames, names=["weights", "coefficient"]).reset_index())


def intra_reader(answers: pd.DataFrame, images: pd.Index, people: list[str]) -> pd.DataFrame:
    """Each reader's agreement on the repeats with his or her own first answers; empty if nothing
    was read twice.
    """
    again = images[images.isin(answers.loc[answers["presentation"] == 2, "image_id"])]
    first, second = (joined.wide(answers, again, presentation=n, readers=people) for n in (1, 2))
    twice = second if len(again) else second[[]]
    found = agreement.repeats(first, twice, LABELS, scale="atanh")
    return without_few(found.drop(columns="readers"))


def reader_table(answers: pd.DataFrame, readers: pd.DataFrame, images: int) -> pd.DataFrame:
    """One row per reader who has not withdrawn: experience, number of images read, median time, and
    counts of the labels.
    """
    first, rows = answers[answers["presentation"] == 1], []
    people = readers.set_index("reader_id")
    for identity, name in joined.reader_names(readers).items():
        own, person = first[first["reader"] == name], people.loc[identity]
        rows.append(
            {
                "reader": name,
                **person[["years", "specialty", "prior_ai", "simulated"]],
                "answered": len(own),
                "missing": images - len(own),
                "median_seconds": own["seconds"].median(),
                **{
                    name: person.get(name)
                    for name in ("display_steps_seen", "room_light", "device")
                },
                "poor_quality": int(own.get("poor_quality", own["seconds"]).eq(True).sum()),
                **{f"labelled_{label}": int((own["label"] == label).sum()) for label in LABELS},
                "locked": bool(pd.notna(person["locked_utc"])),
            }
        )
    return pd.DataFrame(rows)


def subgroups(
    answers: pd.DataFrame, shown: pd.DataFrame, fields: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Shares of the labels per modality, generator, finding, reader's experience, prior knowledge
    of AI and own `fields`. A group of one person has no interval, but the reason for it.
    """
    first = answers[answers["presentation"] == 1]
    years = pd.cut(first["years"].astype(float), [-1, 5, 10, 20, 100], labels=BANDS)
    fields = pd.DataFrame() if fields is None else fields
    personal = {
        "experience": years,
        "prior knowledge of AI": first["prior_ai"].map({True: "yes", False: "no"}),
        **{name: first["reader"].map(fields[name]) for name in fields},
    }
    groups = {
        "modality": first["modality"],
        "source": first["generator"].fillna("real images"),
        "finding": first["true_finding"],
        **personal,
        "reader": first["reader"],
    }
    first = first.assign(cluster=first["image_id"].map(shown["cluster"]))
    table = pd.concat(
        [
            accuracy.by_group(first.assign(group=group), "group").assign(by=name)
            for name, group in groups.items()
        ],
        ignore_index=True,
    )
    person = table["by"].isin(list(personal)) & (table["readers"] < 2)
    return without_interval(table, person, "one reader: no conclusion about such readers")


def coverage_table(settings, labels: pd.DataFrame) -> pd.DataFrame:
    """Measured coverage of the 95 % intervals at the study's own size, with the observed table of
    the first pair of readers as the truth.
    """
    pair = labels.dropna(axis=1, how="all").iloc[:, :2].dropna()
    if pair.shape[1] < 2 or len(pair) < 2 or settings.coverage_studies == 0:
        return pd.DataFrame(columns=column_names("coverage"))
    table = pd.crosstab(pair.iloc[:, 0], pair.iloc[:, 1])
    table = table.reindex(index=LABELS, columns=LABELS, fill_value=0).to_numpy()
    # Half an image is added to every cell, because a cell that is empty in a small study is not
    # impossible.
    size = {"images": len(pair), "studies": settings.coverage_studies}
    found = agreement.coverage(table + 0.5, **size, seed=settings.seed, scale="atanh")
    return found.rename_axis("coefficient").reset_index().assign(**size)[column_names("coverage")]


def records(frame: pd.DataFrame) -> list[dict]:
    """The rows of a table as plain values."""
    return plain(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def plain(value):
    """Numbers, text, lists and dictionaries for JSON; a number that is not finite becomes None or
    "inf".
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value > 0 else None
    return value if isinstance(value, (bool, int, float)) else str(value)


def as_json(results: dict) -> bytes:
    """results.json."""
    return (json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
