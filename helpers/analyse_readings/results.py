"""Every number of the report, computed once: a dictionary for results.json and tables for
tables/.
"""

import json
import math

import numpy as np
import pandas as pd

from helpers.analyse_readings import descriptions, joined
from helpers.statistics import accuracy, agreement, multireader
from helpers.table_columns import LABELS

OVERALL = "all"


def analyse(
    key: pd.DataFrame,
    readings: pd.DataFrame,
    readers: pd.DataFrame,
    nearest: pd.DataFrame | None = None,
    *,
    margin: float = 0.1,
    covariance: str = "delong",
    policy: str = "wrong",
    replicates: int = 2000,
    coverage_studies: int = 200,
    power_studies: int = 200,
    seed: int = 8,
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """All results of a study, and the tables they rest on (name without .csv -> frame).

    `margin`: equivalence to chance is an area within 0.5 ± margin; `policy`: the one for
    "uncertain" that the sentences use; `replicates`, `coverage_studies`, `power_studies`: sizes of
    bootstrap and simulations. Raises joined.AnalysisError for readings that cannot be analysed.
    """
    answers = joined.answers(key, readings, readers)
    shown = joined.pictures(key)
    names = joined.reader_names(readers)
    people = list(names.values())
    labels = joined.wide(answers, shown.index, readers=people)
    truth = shown["truth"]
    confidence = joined.wide(answers, shown.index, "confidence", readers=people)
    scores = labels.apply(lambda column: accuracy.scores(column, confidence[column.name]))
    tables = make_tables(answers, shown, readers, labels, scores, nearest, coverage_studies, seed)
    results = {
        "design": design(key, shown, readers, names, labels, scores, confidence),
        "flow": flow(key, readings, readers, answers, shown),
        "headline": headline(labels, shown, tables["findings_counted"]),
        "multireader": many_readers(scores, truth, margin, covariance, replicates, seed),
        "power": study_power(scores, truth, power_studies, seed),
        "fooled": fooled(tables["per_image"]),
        "settings": {
            "margin": margin,
            "covariance": covariance,
            "policy": policy,
            "replicates": replicates,
            "seed": seed,
        },
    }
    kept = (
        "agreement",
        "agreement_pairs",
        "agreement_weighted",
        "intra_reader",
        "accuracy",
        "areas",
        "roc",
        "subgroups",
        "coverage",
        "findings_agreement",
        "descriptions",
    )
    results |= {name: records(tables[name]) for name in kept}
    results |= {
        "readers": records(tables["reader_summary"]),
        "findings": records(tables["findings_counted"]),
    }
    return plain(results), tables


def make_tables(
    answers, shown, readers, labels, scores, nearest, coverage_studies: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Every table of tables/, by name; columns as in table_columns.TABLES."""
    names, people, truth = joined.reader_names(readers), list(labels.columns), shown["truth"]
    found = descriptions.seen(answers)
    return {
        "per_image": joined.per_image(answers, shown, nearest),
        "answers": answer_table(answers),
        "reader_summary": reader_table(answers, readers, names, len(shown)),
        "agreement": agreement_table(labels, shown),
        "agreement_pairs": agreement.pairs(labels, LABELS),
        "agreement_weighted": weighted_table(labels),
        "intra_reader": intra_reader(answers, people),
        "accuracy": per_reader(labels, truth, accuracy.policies),
        "areas": areas_table(scores, truth),
        "roc": per_reader(scores, truth, lambda score, kind: accuracy.roc(kind, score)),
        "subgroups": subgroups(answers),
        "findings_counted": descriptions.counted(found, answers),
        "findings_agreement": descriptions.agreement_on(found, answers),
        "descriptions": descriptions.examples(answers),
        "coverage": coverage_table(labels, coverage_studies, seed),
    }


def answer_table(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers that count in the clear, columns as in table_columns.TABLES["answers"]."""
    names = (
        "image_id",
        "reader",
        "presentation",
        "position",
        "origin",
        "modality",
        "label",
        "confidence",
    )
    more = ("description", "findings", "side", "cues", "seconds", "changes")
    scored = answers.assign(score=accuracy.scores(answers["label"], answers["confidence"]))
    return scored[[*names, "score", *more]]


def per_reader(values: pd.DataFrame, truth: pd.Series, measure) -> pd.DataFrame:
    """`measure(column, truth)` of every reader, stacked with a column reader."""
    frames = [measure(values[reader], truth).assign(reader=reader) for reader in values]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def groups(shown: pd.DataFrame) -> dict[str, pd.Series]:
    """Sets of images that are reported apart: all, by modality, by origin, by both (those that
    exist).
    """
    chosen = {OVERALL: pd.Series(True, index=shown.index)}
    modalities, origins = (
        sorted(shown["modality"].unique(), reverse=True),
        sorted(shown["origin"].unique()),
    )
    for modality in modalities:
        chosen[modality] = shown["modality"] == modality
    for origin in origins if len(origins) > 1 else []:
        chosen[origin] = shown["origin"] == origin
        for modality in modalities if len(modalities) > 1 else []:
            both = (shown["modality"] == modality) & (shown["origin"] == origin)
            if both.any():
                chosen[f"{modality} {origin}"] = both
    return chosen


def agreement_table(labels: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Coefficients for every group of images: columns group, coefficient and those of
    agreement.coefficients.
    """
    frames = [
        agreement.coefficients(labels[inside], LABELS)
        .rename_axis("coefficient")
        .reset_index()
        .assign(group=group)
        for group, inside in groups(shown).items()
    ]
    return pd.concat(frames, ignore_index=True)[["group", "coefficient", *agreement.COLUMNS]]


def weighted_table(labels: pd.DataFrame) -> pd.DataFrame:
    """All images with the labels as an order real, uncertain, fake: linear and quadratic weights,
    ordinal alpha.
    """
    ordered = ["real", "uncertain", "fake"]
    frames = [
        agreement.coefficients(labels, ordered, weights=weights, metric="ordinal")
        .rename_axis("coefficient")
        .reset_index()
        .assign(weights=weights)
        for weights in ("linear", "quadratic")
    ]
    return pd.concat(frames, ignore_index=True)[["weights", "coefficient", *agreement.COLUMNS]]


def intra_reader(answers: pd.DataFrame, people: list[str]) -> pd.DataFrame:
    """Each reader's agreement with himself or herself on the repeats; empty when nothing was read
    twice.
    """
    again = answers[answers["presentation"] == 2]
    images = pd.Index(sorted(again["image_id"].unique()))
    second = joined.wide(answers, images, presentation=2, readers=people)
    return (
        agreement.repeats(joined.wide(answers, images, readers=people), second, LABELS)
        if len(again)
        else agreement.repeats(second, second[[]], LABELS)
    )


def areas_table(scores: pd.DataFrame, truth: pd.Series) -> pd.DataFrame:
    """DeLong's area of every reader, one row a reader."""
    rows = []
    for reader in scores:
        own = scores[reader].dropna()
        rows.append(multireader.reader_auc(truth[own.index], own).to_dict() | {"reader": reader})
    return pd.DataFrame(rows)


def reader_table(
    answers: pd.DataFrame, readers: pd.DataFrame, names: dict, images: int
) -> pd.DataFrame:
    """One row a reader who has not withdrawn: experience, how much was read, median time, how the
    labels fell.
    """
    first = answers[answers["presentation"] == 1]
    rows = []
    for person in (
        readers[readers["reader_id"].isin(names)].sort_values("reader_id").to_dict("records")
    ):
        own = first[first["reader_id"] == person["reader_id"]]
        row = {
            "reader": names[person["reader_id"]],
            **{c: person[c] for c in ("years", "specialty", "prior_ai", "simulated")},
        }
        row |= {
            "answered": len(own),
            "missing": images - len(own),
            "median_seconds": own["seconds"].median(),
        }
        row |= {f"labelled_{label}": int((own["label"] == label).sum()) for label in LABELS}
        rows.append(row | {"locked": bool(pd.notna(person["locked_utc"]))})
    return pd.DataFrame(rows)


def subgroups(answers: pd.DataFrame) -> pd.DataFrame:
    """Shares of the labels per modality, generator, finding, reader's experience and prior
    knowledge of AI.
    """
    first = answers[answers["presentation"] == 1].copy()
    first["experience"] = pd.cut(
        first["years"].astype(float),
        [-1, 5, 10, 20, 100],
        labels=["up to 5 years", "6 to 10 years", "11 to 20 years", "over 20 years"],
    )
    first["prior knowledge of AI"] = first["prior_ai"].map({True: "yes", False: "no"})
    first["finding"] = first["true_finding"]
    first["source"] = first["generator"].fillna("real images")
    by = {
        "modality": "modality",
        "source": "source",
        "finding": "finding",
        "experience": "experience",
        "prior knowledge of AI": "prior knowledge of AI",
        "reader": "reader",
    }
    frames = [accuracy.by_group(first, column).assign(by=name) for name, column in by.items()]
    return pd.concat(frames, ignore_index=True)


def headline(labels: pd.DataFrame, shown: pd.DataFrame, found: pd.DataFrame) -> list[dict]:
    """What the published poster tells, per modality and origin: labelled alike by every reader,
    fake by at least two, conditions.
    """
    rows = []
    for origin in ("generated", "real"):
        for modality in sorted(shown["modality"].unique()):
            inside = (shown["modality"] == modality) & (shown["origin"] == origin)
            if not inside.any():
                continue
            chosen = labels[inside]
            row = {
                "modality": modality,
                "origin": origin,
                "images": int(inside.sum()),
                "readers": chosen.shape[1],
            }
            for label in LABELS:
                row[f"all_{label}"] = _share(*joined.both_are(chosen, label))
            row["two_fake"] = _share(*joined.at_least_two(chosen, "fake"))
            said = found[(found["modality"] == modality) & (found["origin"] == origin)]
            row["conditions"] = [
                {k: item[k] for k in ("finding", "name", "answers", "images", "of_answers")}
                for item in said.head(6).to_dict("records")
            ]
            rows.append(row)
    return rows


def _share(count: int, total: int) -> dict:
    low, high = accuracy.wilson(count, total)
    return {
        "count": count,
        "total": total,
        "share": count / total if total else np.nan,
        "low": low,
        "high": high,
    }


def many_readers(
    scores: pd.DataFrame,
    truth: pd.Series,
    margin: float,
    covariance: str,
    replicates: int,
    seed: int,
) -> dict:
    """Mean area over random readers and images, both covariances, equivalence to chance,
    bootstrap.
    """
    chosen = multireader.multireader(scores, truth, covariance=covariance)
    other = "jackknife" if covariance == "delong" else "delong"
    return {
        covariance: chosen.to_dict(),
        other: multireader.multireader(scores, truth, covariance=other).to_dict(),
        "equivalence": multireader.equivalence(chosen, margin).to_dict(),
        "bootstrap": multireader.bootstrap(scores, truth, replicates, seed).to_dict(),
    }


def study_power(scores: pd.DataFrame, truth: pd.Series, studies: int, seed: int) -> list[dict]:
    """How often a study with these readers and images would tell true areas of 0.6, 0.7 and 0.8
    from 0.5.
    """
    complete = truth.reindex(scores.dropna().index)
    real, generated, readers = (
        int((complete == 0).sum()),
        int((complete == 1).sum()),
        scores.shape[1],
    )
    if min(real, generated) < 2 or readers < 2 or studies == 0:
        return []
    size = {"readers": readers, "real": real, "generated": generated}
    return [
        size | {"auc": auc, **multireader.power(auc, **size, studies=studies, seed=seed).to_dict()}
        for auc in (0.6, 0.7, 0.8)
    ]


def coverage_table(labels: pd.DataFrame, studies: int, seed: int) -> pd.DataFrame:
    """Measured coverage of the 95 % intervals at the study's own size, the observed table of the
    first pair taken as the truth.
    """
    pair = labels.dropna(axis=1, how="all").iloc[:, :2].dropna()
    columns = ["coefficient", "truth", "coverage", "undefined", "images", "studies"]
    if pair.shape[1] < 2 or len(pair) < 2 or studies == 0:
        return pd.DataFrame(columns=columns)
    table = (
        pd.crosstab(pair.iloc[:, 0], pair.iloc[:, 1])
        .reindex(index=LABELS, columns=LABELS, fill_value=0)
        .to_numpy()
    )
    # Half an image is added to every cell: a cell that stayed empty in a small study is not
    # impossible.
    found = agreement.coverage(table + 0.5, len(pair), studies, seed)
    return (
        found.rename_axis("coefficient")
        .reset_index()
        .assign(images=len(pair), studies=studies)[columns]
    )


def design(key, shown, readers, names, labels, scores, confidence) -> dict:
    """What was read by whom."""
    training = key["training"].fillna(False).astype(bool)
    return {
        "images": len(shown),
        "real": int((shown["truth"] == 0).sum()),
        "generated": int((shown["truth"] == 1).sum()),
        "by_source": records(
            shown.assign(generator=shown["generator"].fillna(""))
            .groupby(["modality", "origin", "generator"])
            .size()
            .rename("images")
            .reset_index()
        ),
        "repeats": int((key["repeat_of"].notna() & ~training).sum()),
        "training": int(training.sum()),
        "readers": len(names),
        "complete_images": int(labels.notna().all(axis=1).sum()),
        "scored_images": int(scores.notna().all(axis=1).sum()),
        "confidence_asked": bool(confidence.notna().any().any()),
        "simulated_readers": int(
            readers[readers["reader_id"].isin(names)]["simulated"].fillna(False).sum()
        ),
        "prior_ai": int(readers[readers["reader_id"].isin(names)]["prior_ai"].fillna(False).sum()),
        "categories": LABELS,
    }


def flow(key, readings, readers, answers, shown) -> dict:
    """Counts of the flow diagram, from presentations to answers that count."""
    training = key["training"].fillna(False).astype(bool)
    withdrawn = int(readers["withdrawn_utc"].notna().sum()) if "withdrawn_utc" in readers else 0
    first = answers[answers["presentation"] == 1]
    expected = len(shown) * (len(readers) - withdrawn)
    return {
        "presentations": len(key),
        "training": int(training.sum()),
        "repeats": int((key["repeat_of"].notna() & ~training).sum()),
        "images": len(shown),
        "registered": len(readers),
        "withdrawn": withdrawn,
        "readers": len(readers) - withdrawn,
        "expected_answers": expected,
        "answers": len(first),
        "missing_answers": expected - len(first),
        "uncertain_answers": int((first["label"] == "uncertain").sum()),
        "repeat_answers": int((answers["presentation"] > 1).sum()),
    }


def fooled(images: pd.DataFrame) -> dict:
    """Generated images that more readers called real than fake, and how many of them are near
    copies of a training case.
    """
    generated = images[images["origin"] == "generated"]
    deceiving = generated[generated["fooled"]]
    known = "distance" in images and images["distance"].notna().any()
    found = {"generated": len(generated), "fooled": len(deceiving), "distance_known": bool(known)}
    if known:
        measured = generated[generated["distance"].notna()]
        found["measured"] = len(measured)
        found["median_distance_fooled"] = measured.loc[measured["fooled"], "distance"].median()
        found["median_distance_other"] = measured.loc[~measured["fooled"], "distance"].median()
        found["fooled_measured"] = int(measured["fooled"].sum())
        found["fooled_copies"] = int(
            (measured["fooled"] & measured["copy"].fillna(False).astype(bool)).sum()
        )
    return found


def records(frame: pd.DataFrame) -> list[dict]:
    """The rows of a table as plain values."""
    return plain(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def plain(value):
    """Numbers, text, lists and dictionaries that JSON knows; what is not a finite number becomes
    None or "inf".
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return (
            "inf"
            if math.isinf(value) and value > 0
            else None
            if not math.isfinite(value)
            else float(value)
        )
    return str(value)


def as_json(results: dict) -> bytes:
    """results.json."""
    return (json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
