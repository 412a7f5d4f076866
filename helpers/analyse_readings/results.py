"""Every number of the report, computed once: a dictionary for results.json and tables for
tables/.
"""

import json
import math
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from helpers.analyse_readings import descriptions, joined
from helpers.statistics import accuracy, agreement, comparisons, design, multireader
from helpers.statistics.clusters import FEWEST
from helpers.table_columns import LABELS

OVERALL, STRATIFIED = "all", "stratified"
FEW_IMAGES = 10  # below this the counts say more than an interval of a coefficient
FEW_READERS = 5  # below this nothing is said about readers in general
BANDS = ["up to 5 years", "6 to 10 years", "11 to 20 years", "over 20 years"]
COMPARED = "by a b area_a area_b estimate low high general_low general_high statistic df p p_holm"
COMPARED = [*COMPARED.split(), "readers", "images", "reason"]
PERSONAL = ("experience", "prior knowledge of AI")
# Names in results.json of the tables that have another one there.
RENAMED = {"reader_summary": "readers", "findings_counted": "findings"}


def analyse(
    asked,
    key: pd.DataFrame,
    readings: pd.DataFrame,
    readers: pd.DataFrame,
    nearest: pd.DataFrame | None = None,
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """All results of a study, and the tables they rest on (name without .csv -> frame).

    `asked`: the parameters of 08. Raises joined.AnalysisError for readings that cannot be analysed.
    """
    answers, shown = joined.answers(key, readings, readers), joined.images(key)
    people = list(joined.reader_names(readers).values())
    labels = joined.wide(answers, shown.index, readers=people)
    confidence = joined.wide(answers, shown.index, "confidence", readers=people)
    scores = labels.apply(lambda column: accuracy.scores(column, confidence[column.name]))
    tables = make_tables(asked, answers, shown, readers, labels, scores, nearest)
    results = {
        "design": describe(key, shown, readers, labels, confidence),
        "flow": flow(key, readers, answers, shown),
        "headline": headline(labels, shown, tables["findings_counted"]),
        "multireader": many_readers(asked, scores, shown),
        "power": study_power(asked, scores, shown["truth"]),
        "fooled": fooled(tables["per_image"])
        | {"chance": by_chance(labels, shown.index[shown["truth"] == 1], "fooled")},
        "settings": {
            name: asked[name]
            for name in ("margin", "covariance", "uncertain", "replicates", "seed")
        },
    }
    kept = {name: t for name, t in tables.items() if name not in ("per_image", "answers")}
    return plain(results | {RENAMED.get(n, n): records(t) for n, t in kept.items()}), tables


def make_tables(asked, answers, shown, readers, labels, scores, nearest) -> dict[str, pd.DataFrame]:
    """Every table of tables/, by name; columns as in table_columns.TABLES."""
    found, groups = descriptions.seen(answers), clusters(shown)
    return {
        "per_image": joined.per_image(answers, shown, nearest),
        "answers": answer_table(answers),
        "reader_summary": reader_table(answers, readers, len(shown)),
        "agreement": agreement_table(labels, shown),
        "agreement_pairs": agreement.pairs(labels, LABELS, scale="atanh", clusters=groups),
        "agreement_weighted": weighted_table(labels, groups),
        "intra_reader": intra_reader(answers, shown.index, list(labels)),
        "accuracy": by_stratum(labels, shown, accuracy.policies),
        "areas": by_stratum(scores, shown, area),
        "roc": per_reader(scores, shown["truth"], lambda score, kind: accuracy.roc(kind, score)),
        "subgroups": subgroups(answers, shown),
        "comparisons": compared(scores, shown, readers),
        "findings_counted": descriptions.counted(found, answers),
        "findings_agreement": descriptions.agreement_on(found, answers, shown),
        "descriptions": descriptions.examples(answers),
        "coverage": coverage_table(asked, labels),
    }


def clusters(shown: pd.DataFrame) -> pd.Series | None:
    """The prompt or patient of every image, None where every image has its own."""
    return shown["cluster"] if shown["cluster"].duplicated().any() else None


def answer_table(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers that count in the clear, columns as in table_columns.TABLES["answers"]."""
    names = "image_id reader presentation position origin modality label confidence score"
    more = "description findings side cues seconds changes"
    scored = answers.assign(score=accuracy.scores(answers["label"], answers["confidence"]))
    return scored[[*names.split(), *more.split()]]


def per_reader(values: pd.DataFrame, truth: pd.Series, measure, **options) -> pd.DataFrame:
    """`measure(column, truth)` of every reader, stacked with a column reader."""
    frames = [measure(values[r], truth, **options).assign(reader=r) for r in values]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def by_stratum(values: pd.DataFrame, shown: pd.DataFrame, measure) -> pd.DataFrame:
    """`per_reader` over all images, over each modality, and stratified over modality."""
    groups, modality = clusters(shown), shown["modality"]
    frames = []
    for name, inside in strata(shown).items():
        options = {"clusters": None if groups is None else groups[inside]}
        if name == STRATIFIED:
            options["strata"] = modality
        found = per_reader(values[inside], shown["truth"][inside], measure, **options)
        frames.append(found.assign(stratum=name))
    return pd.concat(frames, ignore_index=True)


def strata(shown: pd.DataFrame) -> dict[str, pd.Series]:
    """All images; with several modalities each of them, and all again to be stratified."""
    everything = pd.Series(True, index=shown.index)
    names = sorted(shown["modality"].unique(), reverse=True)
    if len(names) == 1:
        return {OVERALL: everything}
    each = {name: shown["modality"] == name for name in names}
    return {OVERALL: everything, **each, STRATIFIED: everything}


def area(score: pd.Series, truth: pd.Series, clusters=None, strata=None) -> pd.DataFrame:
    """A reader's area with an interval that stays between 0 and 1, one row."""
    found = multireader.these_readers(score.to_frame(), truth, clusters=clusters, strata=strata)
    row = told(found)
    row |= {"low": row["shown"][0], "high": row["shown"][1], "dropped": int(score.isna().sum())}
    return pd.DataFrame([row]).drop(columns=["readers", "incomplete", "answers", "shown", "fewest"])


def image_groups(shown: pd.DataFrame) -> dict[str, pd.Series]:
    """Sets of images whose agreement is reported apart: all, by modality, by origin, by both (those
    that exist).
    """
    chosen = {OVERALL: pd.Series(True, index=shown.index)}
    modalities = sorted(shown["modality"].unique(), reverse=True)
    origins = sorted(shown["origin"].unique())
    for modality in modalities:
        chosen[modality] = shown["modality"] == modality
    for origin in origins if len(origins) > 1 else []:
        chosen[origin] = shown["origin"] == origin
        for modality in modalities if len(modalities) > 1 else []:
            chosen[f"{modality} {origin}"] = chosen[modality] & chosen[origin]
    return {name: inside for name, inside in chosen.items() if inside.any()}


def agreement_table(labels: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Coefficients for every group of images: columns group, coefficient and those of
    agreement.coefficients.
    """
    groups, frames = clusters(shown), {}
    for name, inside in image_groups(shown).items():
        own = None if groups is None else groups[inside]
        frames[name] = agreement.coefficients(labels[inside], LABELS, clusters=own, scale="atanh")
    return without_few(pd.concat(frames, names=["group", "coefficient"]).reset_index())


def without_few(table: pd.DataFrame) -> pd.DataFrame:
    """Without intervals that rest on fewer than FEW_IMAGES images; percent keeps its (Wilson)."""
    few = (
        table["low"].notna() & (table["images"] < FEW_IMAGES) & (table["coefficient"] != "percent")
    )
    reason = f"fewer than {FEW_IMAGES} images: no interval"
    return table.assign(
        low=table["low"].mask(few),
        high=table["high"].mask(few),
        reason=table["reason"].mask(few, reason),
    )


def weighted_table(labels: pd.DataFrame, groups) -> pd.DataFrame:
    """All images with the labels as an order real, uncertain, fake: linear and quadratic weights,
    ordinal alpha.
    """
    options = {"categories": ["real", "uncertain", "fake"], "metric": "ordinal", "clusters": groups}
    frames = {
        weights: agreement.coefficients(labels, weights=weights, scale="atanh", **options)
        for weights in ("linear", "quadratic")
    }
    return without_few(pd.concat(frames, names=["weights", "coefficient"]).reset_index())


def intra_reader(answers: pd.DataFrame, images: pd.Index, people: list[str]) -> pd.DataFrame:
    """Each reader's agreement with his or her own first answers on the repeats; empty when nothing
    was read twice.
    """
    again = images[images.isin(answers.loc[answers["presentation"] == 2, "image_id"])]
    first, second = (joined.wide(answers, again, presentation=n, readers=people) for n in (1, 2))
    twice = second if len(again) else second[[]]
    return without_few(agreement.repeats(first, twice, LABELS, scale="atanh"))


def reader_table(answers: pd.DataFrame, readers: pd.DataFrame, images: int) -> pd.DataFrame:
    """One row per reader who has not withdrawn: experience, how much was read, median time, how the
    labels fell.
    """
    first, rows = answers[answers["presentation"] == 1], []
    people = readers.set_index("reader_id")
    for identity, name in joined.reader_names(readers).items():
        own, person = first[first["reader"] == name], people.loc[identity]
        row = {"reader": name, **person[["years", "specialty", "prior_ai", "simulated"]]}
        row |= {"answered": len(own), "missing": images - len(own)}
        row |= {"median_seconds": own["seconds"].median()}
        row |= {name: person.get(name) for name in ("display_steps_seen", "room_light", "device")}
        row |= {"poor_quality": int(own.get("poor_quality", own["seconds"]).eq(True).sum())}
        row |= {f"labelled_{label}": int((own["label"] == label).sum()) for label in LABELS}
        rows.append(row | {"locked": bool(pd.notna(person["locked_utc"]))})
    return pd.DataFrame(rows)


def subgroups(answers: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Shares of the labels per modality, generator, finding, reader's experience and prior
    knowledge of AI. What rests on one person has no interval but the reason.
    """
    first = answers[answers["presentation"] == 1]
    years = pd.cut(first["years"].astype(float), [-1, 5, 10, 20, 100], labels=BANDS)
    first = first.assign(
        source=first["generator"].fillna("real images"),
        finding=first["true_finding"],
        experience=years,
        cluster=first["image_id"].map(shown["cluster"]),
        **{"prior knowledge of AI": first["prior_ai"].map({True: "yes", False: "no"})},
    )
    by = ("modality", "source", "finding", *PERSONAL, "reader")
    table = pd.concat(
        [accuracy.by_group(first, name).assign(by=name) for name in by], ignore_index=True
    )
    person = table["by"].isin(PERSONAL) & (table["readers"] < 2)
    reason = "one reader: no conclusion about such readers"
    return table.assign(
        low=table["low"].mask(person),
        high=table["high"].mask(person),
        reason=table["reason"].mask(person, reason),
    )


def compared(scores: pd.DataFrame, shown: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """What is harder to spot: pairs of generators beside the same real images, the two modalities,
    and readers with and without prior knowledge of AI. Columns as table_columns comparisons; a
    positive difference means that `a` is easier to spot (or that the readers `a` do better).
    """
    rows, groups, truth = [], clusters(shown), shown["truth"]
    pairs = [
        ("modality", a, b, None) for a, b in combinations(sorted(shown["modality"].unique()), 2)
    ]
    names = sorted(shown["generator"].dropna().unique())
    pairs += [("generator", a, b, truth == 0) for a, b in combinations(names, 2)]
    for by, a, b, shared in pairs:
        sets = [shown[by].eq(name).fillna(False).astype(bool) for name in (a, b)]
        if shared is not None:
            sets = [own | shared & shown["modality"].isin(shown["modality"][own]) for own in sets]
        found = comparisons.of_images(scores, truth, *sets, groups)
        if shared is not None and (sets[0] & shared).ne(sets[1] & shared).any():
            found = found.drop(["low", "high", "general_low", "general_high", "p"], errors="ignore")
            found["reason"] = "they made images of different modalities"
        rows.append({"by": by, "a": a, "b": b} | found.to_dict())
    people = joined.staying(readers).sort_values("reader_id")
    names = np.array(list(joined.reader_names(readers).values()))
    knew = [people["prior_ai"].eq(yes).fillna(False).to_numpy(bool) for yes in (True, False)]
    sides = [[n for n in names[those] if scores[n].notna().any()] for those in knew]
    if all(sides):
        found = comparisons.of_readers(scores, truth, *sides, groups)
        by = {"by": "prior knowledge of AI", "a": "yes", "b": "no"}
        rows.append(by | found.to_dict())
    table = pd.DataFrame(rows).reindex(columns=COMPARED)
    if (table["readers"] < FEW_READERS).any():
        few = table["readers"] < FEW_READERS
        table.loc[few, ["general_low", "general_high", "statistic", "df", "p"]] = np.nan
    known = table["p"].notna()
    if known.any():
        table.loc[known, "p_holm"] = multipletests(table["p"][known], method="holm")[1]
    return table


def headline(labels: pd.DataFrame, shown: pd.DataFrame, found: pd.DataFrame) -> list[dict]:
    """What the published poster tells, per modality and origin: labelled alike by every reader,
    fake by at least two, conditions.
    """
    rows, groups = [], clusters(shown)
    for (origin, modality), images in shown.groupby(["origin", "modality"]).groups.items():
        chosen = labels.loc[images]
        row = {"modality": modality, "origin": origin, "images": len(chosen)}
        row["readers"] = chosen.shape[1]
        counted = {f"all_{label}": joined.all_are(chosen, label) for label in LABELS}
        for name, yes in (counted | {"two_fake": joined.at_least_two(chosen, "fake")}).items():
            row[name] = accuracy.share(yes, None if groups is None else groups[yes.index])
            row[name]["chance"] = by_chance(labels, yes.index, name)
        said = found[(found["modality"] == modality) & (found["origin"] == origin)].head(6)
        columns = ["finding", "name", "answers", "images", "of_answers"]
        rows.append(row | {"conditions": said[columns].to_dict("records")})
    return rows


def by_chance(labels: pd.DataFrame, images: pd.Index, name: str) -> float:
    """The share of `images` that would be counted if every reader gave the labels as often as now,
    but to any image, whatever its truth; None without images. What was not answered stays so.
    """
    rates = {label: ((labels == label).sum() / labels.notna().sum()).fillna(0) for label in LABELS}
    given = labels.loc[images].notna()
    patterns, times = np.unique(given, axis=0, return_counts=True)
    found = [_counted(name, *(rates[label][pattern] for label in LABELS)) for pattern in patterns]
    return float(np.average(found, weights=times)) if len(images) else None


def _counted(name: str, real: pd.Series, fake: pd.Series, uncertain: pd.Series) -> float:
    if name.startswith("all_"):
        return float({"real": real, "fake": fake, "uncertain": uncertain}[name[4:]].prod())
    votes = np.array([1.0])
    for for_it, against in zip(*((fake, 0 * fake) if name == "two_fake" else (real, fake))):
        votes = np.convolve(votes, [against, 1 - for_it - against, for_it])
    return float(votes[len(fake) + (2 if name == "two_fake" else 1) :].sum())


def many_readers(asked, scores: pd.DataFrame, shown: pd.DataFrame) -> dict:
    """The mean area: of readers in general (both covariances, equivalence to chance, bootstrap), of
    these readers, and per modality and stratified.
    """
    truth, groups = shown["truth"], clusters(shown)
    found = {
        name: multireader.multireader(scores, truth, covariance=name, clusters=groups)
        for name in multireader.COVARIANCES
    }
    chosen = found[asked.covariance]
    found["equivalence"] = multireader.equivalence(chosen, asked.margin)
    found["bootstrap"] = multireader.bootstrap(
        scores, truth, asked.replicates, asked.seed, clusters=groups
    )
    for name, inside in strata(shown).items():
        options = {"clusters": None if groups is None else groups[inside]}
        if name == STRATIFIED:
            options["strata"] = shown["modality"]
        part = scores[inside], truth[inside]
        found[f"these {name}"] = multireader.these_readers(*part, **options)
        found[f"general {name}"] = multireader.multireader(
            *part, covariance=asked.covariance, **options
        )
    return {name: told(row) for name, row in found.items()}


def told(row: pd.Series) -> dict:
    """A row with `shown`, the interval that the report prints: within 0 and 1."""
    if "df" not in row or "margin" in row:
        return row.to_dict()
    shown, reason = multireader.possible(row), row["reason"]
    if not reason and math.isnan(shown[0]):
        reason = f"fewer than {FEWEST} real or generated images, or patients or prompts of them"
    return row.to_dict() | {"shown": shown, "reason": reason}


def study_power(asked, scores: pd.DataFrame, truth: pd.Series) -> list[dict]:
    """How often a study with these readers and images would find that true areas of 0.6, 0.7 and
    0.8 differ from 0.5.
    """
    real, generated = int((truth == 0).sum()), int((truth == 1).sum())
    readers = int(scores.notna().any().sum())
    if min(real, generated) < 2 or readers < FEW_READERS or asked.power_studies == 0:
        return []
    size = {"readers": readers, "real": real, "generated": generated}
    options = {"studies": asked.power_studies, "seed": asked.seed}
    return [
        size | {"auc": auc, **multireader.power(auc, **size, **options).to_dict()}
        for auc in (0.6, 0.7, 0.8)
    ]


def coverage_table(asked, labels: pd.DataFrame) -> pd.DataFrame:
    """Measured coverage of the 95 % intervals at the study's own size, the observed table of the
    first pair taken as the truth.
    """
    pair = labels.dropna(axis=1, how="all").iloc[:, :2].dropna()
    columns = ["coefficient", "truth", "coverage", "undefined", "images", "studies"]
    if pair.shape[1] < 2 or len(pair) < 2 or asked.coverage_studies == 0:
        return pd.DataFrame(columns=columns)
    table = pd.crosstab(pair.iloc[:, 0], pair.iloc[:, 1])
    table = table.reindex(index=LABELS, columns=LABELS, fill_value=0).to_numpy()
    # Half an image is added to every cell: a cell that stayed empty in a small study is not
    # impossible.
    size = {"images": len(pair), "studies": asked.coverage_studies}
    found = agreement.coverage(table + 0.5, **size, seed=asked.seed, scale="atanh")
    return found.rename_axis("coefficient").reset_index().assign(**size)[columns]


def describe(key, shown, readers, labels, confidence) -> dict:
    """What was read by whom, what hangs together, and what goes with the truth."""
    training = key["training"].fillna(False).astype(bool)
    people = joined.staying(readers)
    sources = shown.assign(generator=shown["generator"].fillna(""))
    of_source = sources.groupby(["modality", "origin", "generator"]).size()
    real = shown["truth"] == 0
    beside = {by: shown[by] for by in ("modality", "finding", "view")}
    return {
        "images": len(shown),
        "real": int(real.sum()),
        "generated": int((~real).sum()),
        "patients": int(shown["cluster"][real].nunique()),
        "prompts": int(shown["cluster"][~real].nunique()),
        "clustered": clusters(shown) is not None,
        "imbalance": {by: design.imbalance(shown["truth"], v) for by, v in beside.items()},
        "by_source": records(of_source.rename("images").reset_index()),
        "repeats": int((key["repeat_of"].notna() & ~training).sum()),
        "training": int(training.sum()),
        "readers": len(people),
        "complete_images": int(labels.notna().all(axis=1).sum()),
        "confidence_asked": bool(confidence.notna().any().any()),
        "simulated_readers": int(people["simulated"].fillna(False).sum()),
        "prior_ai": int(people["prior_ai"].fillna(False).sum()),
        "categories": LABELS,
    }


def flow(key, readers, answers, shown) -> dict:
    """Counts of the flow diagram, from presentations to answers that count."""
    training = key["training"].fillna(False).astype(bool)
    people, first = len(joined.staying(readers)), answers[answers["presentation"] == 1]
    expected = len(shown) * people
    return {
        "presentations": len(key),
        "training": int(training.sum()),
        "repeats": int((key["repeat_of"].notna() & ~training).sum()),
        "images": len(shown),
        "registered": len(readers),
        "withdrawn": len(readers) - people,
        "readers": people,
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
    found = {"generated": len(generated), "fooled": int(generated["fooled"].sum())}
    known = "distance" in images and images["distance"].notna().any()
    found["distance_known"] = bool(known)
    if known:
        measured = generated[generated["distance"].notna()]
        deceived = measured["fooled"]
        found["measured"] = len(measured)
        found["median_distance_fooled"] = measured.loc[deceived, "distance"].median()
        found["median_distance_other"] = measured.loc[~deceived, "distance"].median()
        found["fooled_measured"] = int(deceived.sum())
        copies = measured["copy"].fillna(False).astype(bool)
        found["fooled_copies"] = int((deceived & copies).sum())
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
        value = float(value)
        return value if math.isfinite(value) else "inf" if value > 0 else None
    return str(value)


def as_json(results: dict) -> bytes:
    """results.json."""
    return (json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
