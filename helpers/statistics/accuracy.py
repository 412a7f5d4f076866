"""Accuracy of the readers: shares, d′ at both thresholds, ROC, and what to do with "uncertain".

Positive means generated; truth is 0 (real) or 1 (generated). There are three policies for
"uncertain": *own* category (three shares per truth), *wrong* (an error on both sides), *dropped*
(left out and counted). d′ does not depend on the policy: it is given at both thresholds of the
three-step answer. The analysis of many readers is in `helpers.statistics.multireader`.
"""

import numpy as np
import pandas as pd
from scipy import optimize, special, stats
from sklearn.metrics import roc_curve
from statsmodels.tools.numdiff import approx_hess

from helpers.statistics import clusters as cluster
from helpers.table_columns import LABELS, column_names

POLICIES = ("own", "wrong", "dropped")
COLUMNS = column_names("accuracy")[2:]  # those of one reader
ENOUGH = 30  # minimum answers per truth for the ordinal d′
SHARE_FIELDS = ("count", "total", "estimate", "low", "high", "reason")
KINDS = {1: "generated", 0: "real"}
EITHER = "prompt or patient"
UNCOMPARED = "no stratum has answers to both real and generated images"


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (nan, nan) for 0 of 0."""
    return cluster.wilson(count / total if total else np.nan, total)


def unit(truth) -> str:
    """What one cluster of images of this truth is: a prompt (generated), a patient (real)."""
    return {(1,): "prompt", (0,): "patient"}.get((*sorted(set(truth)),), EITHER)


def share(hits, clusters=None, strata=None, weights=None, of: str = EITHER) -> dict:
    """The share of `hits` (yes or no per answer) with Wilson's 95 % interval at the effective
    number of answers (Korn and Graubard 1998).

    `clusters` has one value per answer; answers of one cluster are not independent. `strata` has
    one value per answer; the estimate is then the mean over strata with `weights` (stratum ->
    weight). `of` names a cluster in the reason (see `unit`). Returns estimate, low, high, count,
    total, clusters, effective and reason.
    """
    hits = np.asarray(hits, dtype=float)
    found = {
        "estimate": np.nan,
        "low": np.nan,
        "high": np.nan,
        "count": int(hits.sum()),
        "total": len(hits),
        "clusters": 0,
        "effective": np.nan,
        "df": np.nan,
        "reason": "",
    }
    if not len(hits):
        return found
    layers, names = pd.factorize(np.zeros(len(hits)) if strata is None else np.asarray(strata))
    numbers = cluster.codes(clusters, len(hits))
    counts = np.zeros((2, len(names), numbers.max() + 1))
    np.add.at(counts, (slice(None), layers, numbers), np.stack([hits, np.ones(len(hits))]))
    sizes = 1.0 if strata is None else np.array([weights[name] for name in names])
    found |= cluster.share(*counts, sizes)
    if found.pop("equal") < cluster.FEWEST:
        few = found["clusters"]
        of = "image" if few == len(hits) else of
        all_of = of.replace(" or", "s or") + "s"
        said = f"only one {of}" if few == 1 else f"only {few} {all_of}"
        if few >= cluster.FEWEST:
            said = f"most answers are to images of few {all_of}"
        found |= {"low": np.nan, "high": np.nan, "reason": said}
    return found


def share_row(hits, clusters=None, of: str = EITHER) -> dict:
    """`share` in the form of the tables: count, total, estimate, low, high and reason."""
    found = share(hits, clusters, of=of)
    return {name: found[name] for name in SHARE_FIELDS}


def detection(
    labels: pd.Series,
    truth: pd.Series,
    policy: str = "wrong",
    clusters: pd.Series | None = None,
    strata: pd.Series | None = None,
) -> pd.DataFrame:
    """One reader's shares under one policy, columns COLUMNS, one row per measure.

    own: the share of every label among generated and among real images. wrong, dropped:
    sensitivity, specificity, accuracy (of the `strata` that have both kinds). `chance`: the same
    for a reader who gives these labels to random images. `clusters`, `strata`: as for `share`, by
    image.
    """
    shown, labels = truth.reindex(labels.index).astype(int), labels.dropna()
    counted = labels[labels != "uncertain"] if policy == "dropped" else labels
    kind, left = shown[counted.index], shown[labels.index.difference(counted.index)]
    lacking = {value: _lacking(value, shown, shown[labels.index], kind) for value in KINDS}
    both = kind.notna() if strata is None else kind.groupby(strata).transform("nunique") == 2
    measures = {
        "sensitivity": (counted == "fake", kind == 1, lacking[1]),
        "specificity": (counted == "real", kind == 0, lacking[0]),
        # With one kind of image only, accuracy would be the same as sensitivity or specificity,
        # and so it would in a stratum.
        "accuracy": (
            counted == kind.map({1: "fake", 0: "real"}),
            both,
            lacking[0] or lacking[1] or ("" if both.any() else UNCOMPARED),
        ),
    }
    if policy == "own":
        measures = {
            f"{label} of {name}": (counted == label, kind == value, lacking[value])
            for value, name in KINDS.items()
            for label in LABELS
        }
    weights, rows = None if strata is None else strata.value_counts(), []
    fake, real = ((counted[both] == label).mean() for label in ("fake", "real"))
    generated = kind[both].mean()
    for measure, (hits, inside, reason) in measures.items():
        chosen = inside.index[inside & (reason == "")]
        parts = (_at(clusters, chosen), _at(strata, chosen), weights)
        row = share(hits[chosen], *parts, of=unit(kind[chosen]))
        about = {"sensitivity": left == 1, "specificity": left == 0}.get(measure, left.notna())
        row |= {"measure": measure, "reason": reason or row["reason"], "left_out": int(about.sum())}
        # The result if the labels were shuffled among the images.
        chance = hits.mean() if kind.nunique() == 2 else np.nan
        if measure == "accuracy" and kind.nunique() == 2:
            chance = fake * generated + real * (1 - generated)
            if clusters is not None and (few := rows[1]["reason"] or rows[0]["reason"]):
                row |= {"low": np.nan, "high": np.nan, "reason": few}
        rows.append(row | {"chance": chance})
    return pd.DataFrame(rows).assign(policy=policy)[COLUMNS]


def _at(values: pd.Series | None, chosen: pd.Index) -> pd.Series | None:
    return None if values is None else values[chosen]


def _lacking(value: int, *truths: pd.Series) -> str:
    """Why there is no number for real (0) or generated (1) images; `truths` has the truths of the
    images shown, answered and counted.
    """
    name, left = KINDS[value], sum(bool((truth == value).any()) for truth in truths)
    return (
        f"no {name} images",
        f"no answers to {name} images",
        f"only uncertain answers to {name} images",
        "",
    )[left]


def policies(labels: pd.Series, truth: pd.Series, **options) -> pd.DataFrame:
    """`detection` under all three policies and `discrimination`, stacked."""
    parts = [detection(labels, truth, policy, **options) for policy in POLICIES]
    return pd.concat([*parts, discrimination(labels, truth, **options)], ignore_index=True)


def discrimination(
    labels: pd.Series,
    truth: pd.Series,
    clusters: pd.Series | None = None,
    strata: pd.Series | None = None,
) -> pd.DataFrame:
    """d′ and criterion at both thresholds of the three-step answer, and the ordinal d′; columns
    COLUMNS.

    *fake | rest*: hit is a generated image called fake, false alarm a real one; *real | rest*: hit
    is a generated image not called real. 0.5 is added to hits and false alarms and 1 to the images
    of each kind (Hautus 1995); interval by the delta method at the effective number of images,
    normal or, with clusters, t with Satterthwaite's degrees of freedom. With ENOUGH answers per
    truth also the equal-variance d′ by maximum likelihood. Over `strata` the mean weighted by their
    images.
    """
    shown, labels = truth.reindex(labels.index).astype(int), labels.dropna()
    kind, rows = shown[labels.index], []
    reason = next((r for v in (0, 1) if (r := _lacking(v, shown, kind, kind))), "")
    parts = [labels.index] if strata is None else list(labels.groupby(strata).groups.values())
    parts = [part for part in parts if kind[part].nunique() == 2]
    reason = reason or ("" if parts else UNCOMPARED)
    sizes = np.array([len(part) for part in parts], dtype=float)
    thresholds = {"fake | rest": labels == "fake", "real | rest": labels != "real"}
    for name, positive in thresholds.items():
        found = [_threshold(positive[part], kind[part], _at(clusters, part)) for part in parts]
        rows += _weighted(found, sizes, ("dprime", "criterion"), name, reason)
    found = [_ordinal(labels[part], kind[part], _at(clusters, part)) for part in parts]
    rows += _weighted(found, sizes, ("dprime",), "ordinal", reason)
    groups = len(np.unique(cluster.codes(_at(clusters, labels.index), len(labels))))
    table = pd.DataFrame(rows).assign(policy="none", count=pd.NA, total=len(labels), left_out=0)
    no_skill = np.where(table["measure"].str.startswith("dprime"), 0.0, np.nan)
    return table.assign(clusters=groups, chance=no_skill)[COLUMNS]


def _weighted(found, sizes, measures, name, reason) -> list[dict]:
    """The measures as means over strata. If a stratum has no value, its reason holds for
    the whole.
    """
    reason = reason or next((why for values, _, _, why in found if why and not len(values)), "")
    rows = []
    for position, measure in enumerate(measures):
        row = {
            "measure": f"{measure} {name}",
            "reason": reason,
            **dict.fromkeys(("estimate", "low", "high"), np.nan),
        }
        if not reason:
            weights = sizes / sizes.sum()
            estimate = weights @ [values[position] for values, _, _, _ in found]
            spread = weights**2 * [errors[position] ** 2 for _, errors, _, _ in found]
            df = cluster.satterthwaite(spread, [df for _, _, df, _ in found])
            half = special.stdtrit(df, cluster.UPPER) * np.sqrt(spread.sum())
            row |= {"estimate": estimate, "low": estimate - half, "high": estimate + half}
            row["reason"] = next((why for _, _, _, why in found if why), "")
        rows.append(row)
    return rows


def _threshold(positive: pd.Series, kind: pd.Series, clusters) -> tuple:
    """d′ and criterion at one threshold, their standard errors and degrees of freedom, and the
    reason if they are missing.
    """
    if positive.nunique() < 2:
        return (), (), np.inf, "every answer lies on one side of this threshold"
    parts = [kind.index[kind == value] for value in (0, 1)]
    found = [share(positive[p], _at(clusters, p), of=unit(kind[p])) for p in parts]
    counted = "count", "total", "effective", "df"
    dprime, criterion, se, df = log_linear(*(np.array([r[n] for r in found]) for n in counted))
    reason = next((row["reason"] for row in found if row["reason"]), "")
    if any(row["count"] in (0, row["total"]) for row in found):
        reason = "a rate is 0 or 100 %, so the correction sets the value and no interval is valid"
    se = np.nan if reason else se
    return (dprime, criterion), (se, se / 2), df, reason


def log_linear(count, total, effective, df) -> tuple:
    """d′, criterion, the standard error of d′ (that of the criterion is half of it) and its degrees
    of freedom, from the positive answers among all and the effective number of answers with their
    degrees of freedom, (…, 2) for real and generated.
    """
    rate = (count + 0.5) / (total + 1)
    z = special.ndtri(rate)
    variance = rate * (1 - rate) / (effective * stats.norm.pdf(z) ** 2)
    se, df = np.sqrt(variance.sum(axis=-1)), cluster.satterthwaite(variance, df)
    return z[..., 1] - z[..., 0], -z.sum(axis=-1) / 2, se, df


def _ordinal(labels: pd.Series, kind: pd.Series, clusters) -> tuple:
    """The d′ of two normal distributions of equal variance, cut by two thresholds."""
    if kind.value_counts().reindex([0, 1], fill_value=0).min() < ENOUGH:
        return (), (), np.inf, f"fewer than {ENOUGH} answers to real or to generated images"
    order = ["real", "uncertain", "fake"]
    counts = pd.crosstab(kind, labels).reindex(columns=order, fill_value=0).to_numpy(dtype=float)
    if (counts.sum(axis=0) == 0).any() or ((counts > 0).sum(axis=1) < 2).any():
        return (), (), np.inf, "too few different labels"

    def unlikely(at: np.ndarray) -> float:
        edges = np.array([-np.inf, at[0], at[0] + np.exp(at[1]), np.inf])
        chances = [np.diff(stats.norm.cdf(edges - shift)) for shift in (0, at[2])]
        return -(counts * np.log(np.clip(chances, 1e-12, 1))).sum()

    best = optimize.minimize(unlikely, [0.0, -1.0, 0.0], method="BFGS").x
    spread = np.linalg.inv(approx_hess(best, unlikely))[2, 2]
    parts = [kind.index[kind == value] for value in (1, 0)]
    found = [share(labels[part] == "fake", _at(clusters, part)) for part in parts]
    inflation = max(1.0, *(row["total"] / row["effective"] for row in found))
    return (best[2],), (np.sqrt(max(spread, 0) * inflation),), np.inf, ""


def scores(labels: pd.Series, confidence: pd.Series | None = None) -> pd.Series:
    """A score that runs from "real, sure" over "uncertain" (0) to "fake, sure"; without a
    confidence, every answer counts 1. Missing labels have no score.
    """
    sign = labels.map({"real": -1.0, "fake": 1.0, "uncertain": 0.0}).astype(float)
    size = 1.0 if confidence is None else pd.to_numeric(confidence).astype(float).fillna(1.0)
    return sign * size


def roc(truth: pd.Series, score: pd.Series) -> pd.DataFrame:
    """A reader's ROC curve, with every threshold: columns threshold, false_alarms, hits; empty when
    one kind is missing.
    """
    known = score.notna() & truth.notna()
    truth, score = truth[known].astype(int), score[known]
    if truth.nunique() < 2:
        return pd.DataFrame({"threshold": [], "false_alarms": [], "hits": []})
    false_alarms, hits, threshold = roc_curve(truth, score, drop_intermediate=False)
    return pd.DataFrame({"threshold": threshold, "false_alarms": false_alarms, "hits": hits})


def by_group(readings: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shares of the labels within groups of readings, for all these readers together.

    `readings` has one row per answer with image_id, reader, label, truth (0, 1), `column` and
    perhaps cluster (the image's prompt or patient); missing values form the group "not stated".
    Answers to one image, and to one cluster, are not independent (see `share`). Returns group,
    truth, measure (called fake, called real, uncertain), estimate, low, high, count, answers,
    images, clusters, readers and reason.
    """
    groups = readings[column].astype("string").fillna("not stated")
    by = "cluster" if "cluster" in readings else "image_id"
    rows = []
    for (group, truth), answers in readings.groupby([groups, readings["truth"].astype(int)]):
        counted = {
            "answers": len(answers),
            "images": answers["image_id"].nunique(),
            "readers": answers["reader"].nunique() if "reader" in answers else pd.NA,
        }
        for label in LABELS:
            found = share(answers["label"] == label, answers[by], of=unit([truth]))
            measure = f"called {label}" if label != "uncertain" else label
            rows.append(
                {"group": group, "truth": KINDS[truth], "measure": measure} | found | counted
            )
    return pd.DataFrame(rows, columns=column_names("subgroups")).drop(columns="by")
