"""Accuracy of the readers: sensitivity, specificity, d', ROC, and what to do with "uncertain".

Positive means generated; truth is 0 (real) or 1 (generated). The policies for "uncertain" stand
side by side: *own* category (three shares per truth), *wrong* (an error on both sides), *dropped*
(left out and counted). The analysis of many readers is in `helpers.statistics.multireader`.
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_curve
from statsmodels.stats.proportion import proportion_confint

from helpers.table_columns import LABELS

POLICIES = ("own", "wrong", "dropped")
COLUMNS = ["policy", "measure", "estimate", "low", "high", "count", "total", "left_out", "reason"]


def wilson(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share; (nan, nan) for none of none."""
    if total == 0:
        return np.nan, np.nan
    low, high = proportion_confint(count, total, alpha=1 - confidence, method="wilson")
    # At 0 and at all of them rounding leaves a trace.
    return (0.0 if count == 0 else float(low)), (1.0 if count == total else float(high))


def detection(
    labels: pd.Series, truth: pd.Series, policy: str = "wrong", confidence: float = 0.95
) -> pd.DataFrame:
    """One reader's accuracy under one policy, columns COLUMNS, one row a measure.

    own: the share of every label among generated and among real images. wrong, dropped:
    sensitivity, specificity, accuracy (Wilson), d' and criterion (log-linear, Hautus 1995; normal
    interval, delta method). Raises ValueError for an unknown policy or label.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}; one of: {', '.join(POLICIES)}")
    labels, truth = pd.Series(labels), pd.Series(truth)
    shown = truth.reindex(labels.index).astype(int)
    labels = labels.dropna()
    truth = shown[labels.index]
    if wrong := sorted(set(labels) - set(LABELS)):
        raise ValueError(f"label {wrong[0]!r} is none of {', '.join(LABELS)}")
    if policy == "own":
        return _own_category(labels, truth, _lacking(truth, truth, shown), confidence)
    answered = truth
    undecided = truth[labels == "uncertain"] if policy == "dropped" else truth.iloc[:0]
    truth, labels = truth.drop(undecided.index), labels.drop(undecided.index)
    hits, generated = int(((labels == "fake") & (truth == 1)).sum()), int((truth == 1).sum())
    rejections, real = int(((labels == "real") & (truth == 0)).sum()), int((truth == 0).sum())
    lacking = _lacking(truth, answered, shown)
    reason = lacking[0] or lacking[1]
    rows = [
        _share("sensitivity", hits, generated, lacking[1], confidence),
        _share("specificity", rejections, real, lacking[0], confidence),
        # Of one kind only, accuracy would be another name for sensitivity or specificity.
        _share(
            "accuracy", hits + rejections, 0 if reason else generated + real, reason, confidence
        ),
        *_signal_detection(hits, generated, real - rejections, real, reason, confidence),
    ]
    left_out = {
        "sensitivity": int((undecided == 1).sum()),
        "specificity": int((undecided == 0).sum()),
    }
    table = pd.DataFrame(rows).assign(policy=policy)
    return table.assign(
        left_out=[left_out.get(measure, len(undecided)) for measure in table["measure"]]
    )[COLUMNS]


def policies(labels: pd.Series, truth: pd.Series, confidence: float = 0.95) -> pd.DataFrame:
    """`detection` under all three policies, stacked."""
    return pd.concat(
        [detection(labels, truth, policy, confidence) for policy in POLICIES], ignore_index=True
    )


def _own_category(
    labels: pd.Series, truth: pd.Series, lacking: dict[int, str], confidence: float
) -> pd.DataFrame:
    rows = []
    for value, name in ((1, "generated"), (0, "real")):
        of_kind = labels[truth == value]
        for label in LABELS:
            measure = f"{label} of {name}"
            rows.append(
                _share(
                    measure, int((of_kind == label).sum()), len(of_kind), lacking[value], confidence
                )
            )
    return pd.DataFrame(rows).assign(policy="own", left_out=0)[COLUMNS]


def _share(measure: str, count: int, total: int, reason: str, confidence: float) -> dict:
    low, high = wilson(count, total, confidence)
    estimate = count / total if total else np.nan
    return {
        "measure": measure,
        "estimate": estimate,
        "low": low,
        "high": high,
        "count": count,
        "total": total,
        "reason": "" if total else reason,
    }


def _signal_detection(
    hits: int, generated: int, alarms: int, real: int, reason: str, confidence: float
) -> list[dict]:
    """d' and criterion with 0.5 added to hits and false alarms and 1 to the images of each kind
    (Hautus 1995).
    """
    measures = {"dprime": np.nan, "criterion": np.nan}
    se = dict(measures)
    if not reason:
        hit, alarm = (hits + 0.5) / (generated + 1), (alarms + 0.5) / (real + 1)
        z_hit, z_alarm = stats.norm.ppf(hit), stats.norm.ppf(alarm)
        variance = hit * (1 - hit) / (generated * stats.norm.pdf(z_hit) ** 2) + alarm * (
            1 - alarm
        ) / (real * stats.norm.pdf(z_alarm) ** 2)
        measures = {"dprime": z_hit - z_alarm, "criterion": -(z_hit + z_alarm) / 2}
        se = {"dprime": np.sqrt(variance), "criterion": np.sqrt(variance) / 2}
    half = stats.norm.ppf((1 + confidence) / 2)
    return [
        {
            "measure": m,
            "estimate": v,
            "low": v - half * se[m],
            "high": v + half * se[m],
            "count": pd.NA,
            "total": generated + real,
            "reason": reason,
        }
        for m, v in measures.items()
    ]


def _lacking(counted: pd.Series, answered: pd.Series, shown: pd.Series) -> dict[int, str]:
    """Why nothing is said of real (0) and of generated images (1); empty where something is.

    All three are truths by image.
    """
    reasons = {}
    for kind, name in ((0, "real"), (1, "generated")):
        left = [bool((truth == kind).any()) for truth in (shown, answered, counted)]
        told = (
            f"no {name} images",
            f"no answers to {name} images",
            f"only uncertain answers to {name} images",
            "",
        )
        reasons[kind] = told[sum(left)]
    return reasons


def scores(labels: pd.Series, confidence: pd.Series | None = None) -> pd.Series:
    """A score that runs from "real, sure" over "uncertain" (0) to "fake, sure"; without a
    confidence every answer counts 1.

    Missing labels have no score. Raises ValueError for a label that is none of real, fake,
    uncertain.
    """
    sign = labels.map({"real": -1.0, "fake": 1.0, "uncertain": 0.0}).astype(float)
    if (labels.notna() & sign.isna()).any():
        raise ValueError(
            f"label {labels[labels.notna() & sign.isna()].iloc[0]!r} is none of {', '.join(LABELS)}"
        )
    size = 1.0 if confidence is None else pd.to_numeric(confidence).astype(float).fillna(1.0)
    return sign * size


def roc(truth: pd.Series, score: pd.Series) -> pd.DataFrame:
    """A reader's ROC curve, every threshold: columns threshold, false_alarms, hits; empty when one
    kind is missing.
    """
    known = score.notna() & truth.notna()
    truth, score = truth[known].astype(int), score[known]
    if truth.nunique() < 2:
        return pd.DataFrame({"threshold": [], "false_alarms": [], "hits": []})
    false_alarms, hits, threshold = roc_curve(truth, score, drop_intermediate=False)
    return pd.DataFrame({"threshold": threshold, "false_alarms": false_alarms, "hits": hits})


def by_group(readings: pd.DataFrame, column: str, confidence: float = 0.95) -> pd.DataFrame:
    """Shares of the labels within groups of readings, all readers together, over these readers.

    `readings` has one row an answer with image_id, label, truth (0, 1) and `column`; missing values
    form the group "not stated". Answers to the same image are not independent: the interval is
    Wilson's at the effective number of answers (design effect of the image as cluster; Korn and
    Graubard 1998). Returns group, measure (called fake, called real, uncertain), truth, estimate,
    low, high, count, answers, images.
    """
    rows = []
    groups = readings[column].astype("string").fillna("not stated")
    for (group, truth), answers in readings.groupby([groups, readings["truth"].astype(int)]):
        for label in LABELS:
            said = (answers["label"] == label).astype(float)
            low, high = _clustered(said, answers["image_id"], confidence)
            row = {
                "group": group,
                "truth": "generated" if truth else "real",
                "measure": f"called {label}" if label != "uncertain" else label,
            }
            row |= {"estimate": said.mean(), "low": low, "high": high, "count": int(said.sum())}
            rows.append(row | {"answers": len(said), "images": answers["image_id"].nunique()})
    columns = ["group", "truth", "measure", "estimate", "low", "high", "count", "answers", "images"]
    return pd.DataFrame(rows, columns=columns)


def _clustered(said: pd.Series, image: pd.Series, confidence: float) -> tuple[float, float]:
    answers, share = len(said), said.mean()
    sums = (said - share).groupby(image.to_numpy()).sum()
    images = len(sums)
    between = images / (images - 1) * (sums**2).sum() / answers**2 if images > 1 else 0.0
    # Without variation nothing tells how alike the answers to one image are: then every image
    # counts once. With one answer an image the design effect is 1: the same interval as for a
    # single reader.
    effective = share * (1 - share) / (answers - 1) / between * answers if between > 0 else images
    effective = min(max(effective, 1.0), answers)
    low, high = proportion_confint(
        share * effective, effective, alpha=1 - confidence, method="wilson"
    )
    return float(max(low, 0.0)), float(min(high, 1.0))
