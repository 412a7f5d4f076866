"""Measures what gives a source away besides the anatomy: file, shape, size, depth, border, grey
levels, histogram, spectrum, compression.
"""

import numpy as np
import pandas as pd
from scipy import optimize, stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedGroupKFold

from helpers.audit import fidelity, signs
from helpers.table_columns import MODALITY_NAMES, column_names

WARN_ABOVE = 0.6
FOLDS = 5
FEWEST_GROUPS = 3  # minimum patients or prompts per side for cross-validation


def measure(pool: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """The table leakage.csv: every generated source of `pool` (audit.gather, candidates only)
    against real ones of its modality.

    Before: the images as their runs hold them. After: as framing.for_reading shows them to readers,
    at the common depth of the images. `settings` has reading_size, framing, margin, seed and
    permutations. A source too small for the reading size has no rows `after`; one with too few
    patients or prompts has no rows at all.
    """
    tables = []
    for modality, some in pool.groupby("modality", sort=True):
        facts = {"before": signs.facts_before(some), "after": signs.facts_after(some, settings)}
        for source in sorted(some.loc[some["origin"] == "generated", "source"].unique()):
            chosen = some["source"].isin(["real", source]).to_numpy()
            for stage, known in facts.items():
                usable = chosen & known.notna().all(axis=1).to_numpy()
                truth = (some["source"] == source).to_numpy()[usable]
                if truth.any():
                    groups = some["group"].to_numpy(dtype=object)[usable]
                    table = separability(
                        known[usable], truth, groups, settings["seed"], settings["permutations"]
                    )
                    tables.append(table.assign(source=source, modality=modality, stage=stage))
    columns = column_names("leakage")
    return pd.concat([pd.DataFrame(columns=columns), *tables], ignore_index=True)[columns]


def separability(
    facts: pd.DataFrame,
    generated: np.ndarray,
    groups: np.ndarray,
    seed: int,
    permutations: int = 500,
) -> pd.DataFrame:
    """How well each feature, and all of them (`joint`), distinguish generated from real: columns
    feature, auc, low, high, p.

    Grouped, stratified cross-validation of a ridge discriminant on normal scores and their squares;
    interval clustered by group (Obuchowski 1997); two-sided permutation p with whole groups
    permuted and the discriminant refitted. Empty with fewer than 3 groups per side.
    """
    side = pd.Series(generated).groupby(groups).first()
    if min(side.sum(), (~side).sum()) < FEWEST_GROUPS:
        return pd.DataFrame(columns=["feature", "auc", "low", "high", "p"])
    codes = side.index.get_indexer(groups)
    random = np.random.default_rng(seed)
    permuted = np.stack(
        [random.permutation(side.to_numpy())[codes] for _ in range(permutations)], axis=1
    )
    targets = np.column_stack([generated, permuted]).astype(float)
    count = int(min(FOLDS, side.sum(), (~side).sum()))
    folds = list(
        StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(
            targets, generated, codes
        )
    )
    varying = [name for name in facts.columns if facts[name].nunique() > 1]
    rows = []
    for feature in ["joint", *facts.columns]:
        used = varying if feature == "joint" else [name for name in varying if name == feature]
        if not used:
            rows.append({"feature": feature, "auc": 0.5, "low": 0.5, "high": 0.5, "p": 1.0})
            continue
        scores = _out_of_fold(facts[used].to_numpy(dtype=float), targets, folds)
        auc, low, high = clustered_auc(scores[:, 0], generated, codes)
        null = _auc(scores[:, 1:], permuted)
        p = (1 + (np.abs(null - 0.5) >= abs(auc - 0.5) - 1e-12).sum()) / (permutations + 1)
        rows.append({"feature": feature, "auc": auc, "low": low, "high": high, "p": p})
    return pd.DataFrame(rows)


def _out_of_fold(values: np.ndarray, targets: np.ndarray, folds: list) -> np.ndarray:
    """Scores of every image for the true and all permuted labels by models that saw none of its
    group, shape of `targets`.
    """
    scores = np.zeros_like(targets)
    for train, test in folds:
        ordered = np.sort(values[train], axis=0)
        terms = [_normal_scores(values[rows], ordered) for rows in (train, test)]
        # Ridge regression solves all permutations at once; the squares find sources with more or
        # less spread.
        model = Ridge(alpha=0.03 * len(train)).fit(
            np.hstack([terms[0], terms[0] ** 2]), targets[train]
        )
        scores[test] = model.predict(np.hstack([terms[1], terms[1] ** 2])).reshape(len(test), -1)
    return scores


def _normal_scores(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    ranks = [
        (np.searchsorted(column, value, "left") + np.searchsorted(column, value, "right")) / 2
        for column, value in zip(ordered.T, values.T)
    ]
    return stats.norm.ppf((np.stack(ranks, axis=1) + 0.5) / (len(ordered) + 1))


def _auc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the curve of every column."""
    ranks, count = stats.rankdata(scores, axis=0), positive.sum(axis=0)
    above = (ranks * positive).sum(axis=0) - count * (count + 1) / 2
    return above / (count * (len(scores) - count))


def clustered_auc(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray
) -> tuple[float, float, float]:
    """(auc, low, high): area under the curve with a 95 % interval that accounts for patients and
    prompts.

    Score interval with Hanley and McNeil's variance (Newcombe 2006, method 5), which is also valid
    at 0 and 1, widened by the design effect of the clusters (Obuchowski 1997).
    """
    auc, ranks = float(_auc(scores, positive)), stats.rankdata(scores)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    above = (ranks[positive] - stats.rankdata(scores[positive])) / zeros
    below = 1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / ones
    clustered, independent = 0.0, 0.0
    for values, members in ((above, groups[positive]), (below, groups[~positive])):
        sums = np.bincount(np.unique(members, return_inverse=True)[1], values - auc)
        clustered += (sums**2).sum() * len(sums) / (len(sums) - 1) / len(values) ** 2
        independent += values.var(ddof=1) / len(values)
    effect = max(1.0, clustered / independent) if independent > 0 else 1.0
    if independent == 0:
        # The sources are separated perfectly: only the number of patients and prompts gives the
        # uncertainty.
        ones, zeros = len(np.unique(groups[positive])), len(np.unique(groups[~positive]))

    def beyond(area: float, sign: int) -> float:
        error = np.sqrt(effect * max(_hanley(area, ones, zeros), 1e-12))
        return (area - auc) * sign - 1.96 * error

    low, high = (
        far
        if beyond(far, sign) <= 0
        else optimize.brentq(beyond, auc, far, args=(sign,))
        if beyond(auc, sign) < 0
        else auc
        for sign, far in ((-1, 0.0), (1, 1.0))
    )
    return auc, float(low), float(high)


def _hanley(auc: float, ones: int, zeros: int) -> float:
    """Variance of an area under the curve (Hanley & McNeil 1982, with Newcombe's mean of the two
    counts).
    """
    mean = (ones + zeros) / 2 - 1
    return (
        auc
        * (1 - auc)
        * (1 + mean * (1 - auc) / (2 - auc) + mean * auc / (1 + auc))
        / (ones * zeros)
    )


def warnings(leakage: pd.DataFrame) -> list[str]:
    """One sentence per source that differs from real images after standardisation (lower bound
    above 0.6).
    """
    joint = leakage[(leakage["feature"] == "joint") & (leakage["stage"] == "after")]
    return [
        f"{MODALITY_NAMES[row.modality]} images of {row.source.replace(': ', ' by ', 1)} can be"
        " distinguished from real ones without the anatomy: area under"
        f" the ROC curve {_area(row)}, mostly by {_most(leakage, row)}."
        " Readers may succeed because of this alone."
        for row in joint[joint["low"] > WARN_ABOVE].itertuples()
    ]


def leading(leakage: pd.DataFrame) -> list[str]:
    """One sentence per source and stage: the signs that give it away most."""
    return [
        f"{MODALITY_NAMES[row.modality]} of {row.source}, {row.stage} the standardisation: area"
        f" under the ROC curve {_area(row)} by all signs together, mostly by {_most(leakage, row)}."
        for row in leakage[leakage["feature"] == "joint"].itertuples()
    ]


def _area(row) -> str:
    """0.71 (95 % interval 0.62 to 0.80)."""
    return f"{row.auc:.2f} (95 % interval {row.low:.2f} to {row.high:.2f})"


def _most(leakage: pd.DataFrame, row) -> str:
    """The three signs with the largest areas for a row's source and stage, with these areas."""
    single = leakage.query(
        "feature != 'joint' and source == @row.source and modality == @row.modality"
        " and stage == @row.stage"
    )
    worst = single.sort_values("auc", ascending=False).head(3)
    return ", ".join(f"{sign} ({auc:.2f})" for sign, auc in zip(worst["feature"], worst["auc"]))


def not_judged(pool: pd.DataFrame, leakage: pd.DataFrame) -> list[str]:
    """One sentence per source that could not be judged, before or after the standardisation, with
    the reason.
    """
    sentences = []
    for modality, source, _ in fidelity.generated(pool):
        own = leakage[(leakage["source"] == source) & (leakage["modality"] == modality)]
        if own.empty:
            sentences.append(
                f"{MODALITY_NAMES[modality]} of {source}: not judged, fewer than {FEWEST_GROUPS}"
                " patients or prompts on one side."
            )
        elif "after" not in set(own["stage"]):
            sentences.append(
                f"{MODALITY_NAMES[modality]} of {source}: smaller than the reading size, so 06"
                " leaves it out."
            )
    return sentences
