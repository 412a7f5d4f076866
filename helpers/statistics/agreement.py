"""Agreement between readers: chance-corrected coefficients with standard errors and intervals.

Any number of readers, missing ratings, declared categories. Sources: Gwet, Handbook of Inter-Rater
Reliability (4th ed., 2014), chapters 2 to 5, for percent, Scott, Conger, Fleiss, AC1/AC2 and
Brennan-Prediger with their linearised variances for raw ratings; Krippendorff, Content Analysis
(2004), for alpha; statsmodels for Cohen's kappa. Planning and bounds are in
`helpers.statistics.design`.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

from helpers.statistics import chance_corrected
from helpers.statistics import clusters as cluster

NAMES = [
    "percent",
    "cohen",
    "scott",
    "conger",
    "fleiss",
    "gwet",
    "brennan_prediger",
    "krippendorff",
]
COLUMNS = ["estimate", "se", "low", "high", "images", "readers", "reason"]


def coefficients(
    ratings: pd.DataFrame,
    categories: list,
    weights: str = "identity",
    metric: str = "nominal",
    clusters=None,
    scale: str = "identity",
) -> pd.DataFrame:
    """Agreement coefficients of a table of ratings: one row per image, one column per reader,
    missing allowed.

    Returns a DataFrame indexed by NAMES with columns estimate, se, low, high, images (that enter),
    readers and reason (why a number is missing, else ""). `weights` (identity, linear, quadratic)
    is for all but krippendorff, `metric` (nominal, ordinal) only for krippendorff. Both use
    categories that are numbers by their value, and all others as steps in the declared order.
    Standard errors divide by n(n-1) over images; 95 % intervals are t with n-1 degrees of freedom,
    cut to what is possible. `clusters` (one value per image: its prompt or
    patient) makes both cluster-robust, n the effective number of clusters. cohen has statsmodels'
    asymptotic standard error and a normal interval (with clusters: as conger). cohen and scott use
    complete pairs. `scale` "atanh" computes t intervals on that scale, which keep their coverage in
    small studies too (percent: Wilson's at the effective number of images); an interval without
    width is then left out. Raises ValueError for a label outside `categories`.
    """
    # An ordinal weight must not depend on the order in which numbers are listed; words have the
    # declared order.
    categories = sorted(categories) if _numeric(categories) else list(categories)
    codes = _codes(ratings, categories)
    codes = codes[:, (codes >= 0).any(axis=0)]
    rated = (codes >= 0).any(axis=1)
    codes, numbers = codes[rated], cluster.codes(clusters, len(ratings))[rated]
    # How many readers put an image into a category, (images, categories).
    counts = (codes[:, :, None] == np.arange(len(categories))).sum(axis=1).astype(float)
    matrix = _weight_matrix(weights, categories)
    readers, asymptotic = codes.shape[1], clusters is None and scale == "identity"
    found = {
        name: chance_corrected.linearised(counts, matrix, name, numbers, codes)
        for name in ("percent", "conger", "fleiss", "gwet", "brennan_prediger")
    }
    found["krippendorff"] = chance_corrected.krippendorff(counts, metric, numbers)
    if readers == 2:
        both = (codes >= 0).all(axis=1)
        complete, tallies = codes[both], counts[both]
        found["scott"] = chance_corrected.linearised(tallies, matrix, "fleiss", numbers[both])
        found["cohen"] = (
            chance_corrected.cohen(complete, matrix, weights)
            if clusters is None
            else chance_corrected.linearised(tallies, matrix, "conger", numbers[both], complete)
        )
    else:
        are = "there is" if readers == 1 else "there are"
        reason = f"defined for two readers only, here {are} {readers}"
        found["cohen"] = found["scott"] = chance_corrected.missing(0, reason)
    rows = [_row(n, found[n], readers, n == "cohen" and asymptotic, scale) for n in NAMES]
    return pd.DataFrame(rows, index=NAMES, columns=COLUMNS)


def from_table(table, categories: list) -> pd.DataFrame:
    """The ratings of a two-reader cross table of counts (rows: reader_1, columns: reader_2), one
    row per image.
    """
    one, other = np.indices(np.shape(table)).reshape(2, -1).repeat(np.ravel(table), axis=1)
    labels = np.array(list(categories), dtype=object)
    return pd.DataFrame({"reader_1": labels[one], "reader_2": labels[other]})


def pairs(ratings: pd.DataFrame, categories: list, **options) -> pd.DataFrame:
    """`coefficients` of every pair of readers, stacked: columns reader_a, reader_b, coefficient and
    those of `coefficients`.
    """
    found = {
        (a, b): coefficients(ratings[[a, b]], categories, **options)
        for a, b in combinations(ratings.columns, 2)
    }
    return _stacked(found, ["reader_a", "reader_b"])


def repeats(first: pd.DataFrame, second: pd.DataFrame, categories: list, **options) -> pd.DataFrame:
    """Intra-reader agreement: each reader's first answers against the same reader's answers to the
    hidden repeats.

    `first` and `second` have one row per image (same index) and one column per reader. Returns one
    row per reader and coefficient, columns reader, coefficient and those of `coefficients`.
    """
    found = {}
    for reader in second.columns:
        both = {"first": first[reader].reindex(second.index), "second": second[reader]}
        found[(reader,)] = coefficients(pd.DataFrame(both).dropna(), categories, **options)
    return _stacked(found, ["reader"])


def _stacked(found: dict[tuple, pd.DataFrame], names: list[str]) -> pd.DataFrame:
    columns = [*names, "coefficient", *COLUMNS]
    if not found:
        return pd.DataFrame(columns=columns)
    return pd.concat(found, names=[*names, "coefficient"]).reset_index()[columns]


def coverage(
    table: np.ndarray, images: int, studies: int = 2000, seed: int = 0, **options
) -> pd.DataFrame:
    """How often the intervals contain the true coefficient, for two readers whose true joint
    distribution is `table`; `options` as for `coefficients`.

    `studies` studies of `images` images are drawn; returns by coefficient: truth, coverage,
    undefined (share of studies without an interval, which are not counted).
    """
    joint = np.asarray(table, dtype=float) / np.sum(table)
    categories = list(range(len(joint)))
    truth = _population(joint)
    draws = (
        np.random.default_rng(seed)
        .multinomial(images, joint.ravel(), size=studies)
        .reshape(-1, *joint.shape)
    )
    held = []
    # Small studies often have the same table, so each different table is computed only once.
    for counts, times in zip(*np.unique(draws, axis=0, return_counts=True)):
        found = coefficients(from_table(counts, categories), categories, **options)
        inside = (found.low.le(truth) & found.high.ge(truth)).astype(float)
        held += [inside.where(np.isfinite(found.low))] * times
    held = pd.DataFrame(held)
    return pd.DataFrame(
        {"truth": truth, "coverage": held.mean(), "undefined": held.isna().mean()}, index=NAMES
    )


def _population(joint: np.ndarray) -> pd.Series:
    observed, rows, columns = np.trace(joint), joint.sum(axis=1), joint.sum(axis=0)
    mean = (rows + columns) / 2
    chance = {
        "percent": 0.0,
        "cohen": rows @ columns,
        "conger": rows @ columns,
        "scott": mean @ mean,
        "fleiss": mean @ mean,
        "krippendorff": mean @ mean,
        "gwet": (mean @ (1 - mean)) / (len(joint) - 1),
        "brennan_prediger": 1 / len(joint),
    }
    return pd.Series({name: (observed - chance[name]) / (1 - chance[name]) for name in NAMES})


def _codes(ratings: pd.DataFrame, categories: list) -> np.ndarray:
    """Category numbers, (images, readers), -1 where missing."""
    values = ratings.to_numpy(dtype=object)
    missing = pd.isna(values)
    codes = pd.Index(categories).get_indexer(values.ravel()).reshape(values.shape)
    codes[missing] = -1
    if (wrong := np.argwhere((codes < 0) & ~missing)).size:
        row, column = wrong[0]
        label, reader = values[row, column], ratings.columns[column]
        raise ValueError(
            f"reader {reader!r} gave {label!r}, which is not among the declared categories"
            f" {categories}"
        )
    return codes


def _numeric(categories: list) -> bool:
    return all(
        isinstance(c, (int, float, np.number)) and not isinstance(c, bool) for c in categories
    )


def _weight_matrix(weights: str, categories: list) -> np.ndarray:
    if weights == "identity":
        return np.eye(len(categories))
    values = np.array(categories if _numeric(categories) else range(len(categories)), dtype=float)
    distance = np.abs(values[:, None] - values) ** {"linear": 1, "quadratic": 2}[weights]
    return 1 - distance / distance.max()


def _row(name: str, found: tuple, readers: int, normal: bool, scale: str) -> tuple:
    estimate, se, images, groups, lowest, reason = found
    low = high = np.nan
    if np.isfinite(se):
        upper = cluster.UPPER
        quantile = special.ndtri(upper) if normal else special.stdtrit(groups - 1, upper)
        low, high = estimate - quantile * se, estimate + quantile * se
        if not normal:
            # Weighted coefficients can be below -1: the interval then ends at their lowest possible
            # value.
            floor = 0.0 if name == "percent" else -1.0 if estimate >= -1 else lowest
            low, high = np.clip([low, high], floor, 1.0)
        if scale == "atanh" and name == "percent":
            few, spread = (special.ndtri(upper) / quantile) ** 2, estimate * (1 - estimate)
            # At most the number of pairs of answers, all taken as independent.
            most = images * readers * (readers - 1) / 2
            effective = min(spread / se**2 * few, most) if se > 1e-9 else groups
            low, high = cluster.wilson(round(estimate, 12), effective)
        elif scale == "atanh" and (se < 1e-9 or abs(estimate) == 1):
            low = high = np.nan
            reason = "every image shows the same agreement, so its variation cannot be estimated"
        elif scale == "atanh" and abs(estimate) < 1:
            half = quantile * se / (1 - estimate**2)
            low, high = np.tanh(np.arctanh(estimate) + np.array([-half, half]))
    return estimate, se, low, high, images, readers, reason
