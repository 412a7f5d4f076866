"""Agreement between readers: chance-corrected coefficients with standard errors and intervals.

Any number of readers, missing ratings, declared categories. Sources: Gwet, Handbook of Inter-Rater
Reliability (4th ed., 2014), chapters 2 to 5, for percent, Scott, Conger, Fleiss, AC1/AC2 and
Brennan-Prediger with their linearised variances for raw ratings; Krippendorff, Content Analysis
(2004), for alpha; statsmodels for Cohen's kappa. Planning and bounds are in
`helpers.statistics.design`.
"""

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

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
WEIGHTS = ("identity", "linear", "quadratic", "ordinal")
METRICS = ("nominal", "ordinal", "interval", "ratio")
COLUMNS = ["estimate", "se", "low", "high", "images", "readers", "reason"]
ONE_CATEGORY = "all ratings are in one category"


def coefficients(
    ratings: pd.DataFrame,
    categories: list,
    weights: str = "identity",
    metric: str = "nominal",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Agreement coefficients of a table of ratings, one row an image, one column a reader, missing
    allowed.

    Returns a DataFrame indexed by NAMES with columns estimate, se, low, high, images (that enter),
    readers and reason (why a number is missing, else ""). `weights` (identity, linear, quadratic,
    ordinal) acts on all but krippendorff, `metric` (nominal, ordinal, interval, ratio) on
    krippendorff only; both take categories that are numbers by their value, all others as steps in
    the declared order. Standard errors divide by n(n-1) over images, intervals are t with n-1
    degrees of freedom, cut to [-1, 1]; cohen has statsmodels' asymptotic standard error and a
    normal interval. cohen and scott use complete pairs. Raises ValueError for a label outside
    `categories`, repeated categories, unknown weights or metric, and a confidence that is not
    between 0 and 1.
    """
    _known(weights, WEIGHTS, "weights")
    _known(metric, METRICS, "metric")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; it must lie between 0 and 1, such as 0.95")
    categories = _in_order(categories)
    codes = _codes(ratings, categories)
    codes = codes[:, (codes >= 0).any(axis=0)]
    codes = codes[(codes >= 0).any(axis=1)]
    values, matrix = _values(categories), _weight_matrix(weights, categories)
    counts = _counts(codes, len(categories))
    readers, rows = codes.shape[1], {}
    complete = codes[(codes >= 0).all(axis=1)] if readers == 2 else np.empty((0, 2), dtype=int)
    rows["percent"] = _linearised(counts, matrix, "percent")
    if readers == 2:
        rows["cohen"] = _cohen(complete, matrix, weights)
        rows["scott"] = _linearised(_counts(complete, len(categories)), matrix, "fleiss")
    else:
        rows["cohen"] = rows["scott"] = _missing(
            0,
            f"defined for two readers only, here {'there is' if readers == 1 else 'there are'}"
            f" {readers}",
        )
    rows["conger"] = _linearised(counts, matrix, "conger", codes)
    for name in ("fleiss", "gwet", "brennan_prediger"):
        rows[name] = _linearised(counts, matrix, name)
    rows["krippendorff"] = _krippendorff(counts, metric, values)
    return pd.DataFrame(
        [_with_interval(name, *rows[name], readers, confidence) for name in NAMES],
        index=NAMES,
        columns=COLUMNS,
    )


def from_table(table, categories: list) -> pd.DataFrame:
    """The ratings behind a two-reader cross table (rows: reader_1, columns: reader_2), one row an
    image.

    Raises ValueError when the table is not categories × categories of whole numbers.
    """
    counts = np.asarray(table, dtype=float)
    if (
        counts.shape != (len(categories), len(categories))
        or (counts < 0).any()
        or (counts % 1 != 0).any()
    ):
        raise ValueError(
            f"the table must be {len(categories)} × {len(categories)} counts, one row and one"
            " column a category"
        )
    first, second = np.divmod(
        np.repeat(np.arange(counts.size), counts.astype(int).ravel()), len(categories)
    )
    labels = np.array(list(categories), dtype=object)
    return pd.DataFrame({"reader_1": labels[first], "reader_2": labels[second]})


def pairs(ratings: pd.DataFrame, categories: list, **options) -> pd.DataFrame:
    """`coefficients` of every pair of readers, stacked: columns reader_a, reader_b, coefficient and
    those of `coefficients`.
    """
    frames = []
    for i, a in enumerate(ratings.columns):
        for b in ratings.columns[i + 1 :]:
            found = (
                coefficients(ratings[[a, b]], categories, **options)
                .rename_axis("coefficient")
                .reset_index()
            )
            frames.append(found.assign(reader_a=a, reader_b=b))
    columns = ["reader_a", "reader_b", "coefficient", *COLUMNS]
    return (
        pd.concat(frames)[columns].reset_index(drop=True)
        if frames
        else pd.DataFrame(columns=columns)
    )


def repeats(first: pd.DataFrame, second: pd.DataFrame, categories: list, **options) -> pd.DataFrame:
    """Intra-reader agreement: each reader's first answers against the same reader's answers to the
    hidden repeats.

    `first` and `second` have one row an image (same index) and one column a reader. Returns one row
    a reader and coefficient, columns reader, coefficient and those of `coefficients`.
    """
    frames = []
    for reader in second.columns:
        both = pd.DataFrame(
            {"first": first[reader].reindex(second.index), "second": second[reader]}
        ).dropna()
        found = coefficients(both, categories, **options).rename_axis("coefficient").reset_index()
        frames.append(found.assign(reader=reader))
    columns = ["reader", "coefficient", *COLUMNS]
    return (
        pd.concat(frames)[columns].reset_index(drop=True)
        if frames
        else pd.DataFrame(columns=columns)
    )


def coverage(
    table: np.ndarray, images: int, studies: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """How often the intervals hold the true coefficient, for two readers whose true joint
    distribution is `table`.

    `studies` studies of `images` images are drawn; returns by coefficient: truth, coverage,
    undefined (share of studies without an interval, which count in neither direction).
    """
    joint = np.asarray(table, dtype=float) / np.sum(table)
    categories = list(range(len(joint)))
    truth = _population(joint)
    draws = (
        np.random.default_rng(seed)
        .multinomial(images, joint.ravel(), size=studies)
        .reshape(-1, *joint.shape)
    )
    held = {name: [] for name in NAMES}
    # Small studies repeat the same table: each different one is computed once.
    different, times = np.unique(draws, axis=0, return_counts=True)
    for counts, count in zip(different, times):
        found = coefficients(from_table(counts, categories), categories, confidence=confidence)
        inside = found.low.le(truth) & found.high.ge(truth)
        for name in NAMES:
            held[name] += [inside[name] if np.isfinite(found.low[name]) else np.nan] * count
    rows = {
        name: (truth[name], np.nanmean(v) if not np.isnan(v).all() else np.nan, np.isnan(v).mean())
        for name, v in held.items()
    }
    return pd.DataFrame.from_dict(
        {k: (float(a), float(b), float(c)) for k, (a, b, c) in rows.items()},
        orient="index",
        columns=["truth", "coverage", "undefined"],
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


def _known(value: str, allowed: tuple, what: str) -> None:
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; one of: {', '.join(allowed)}")


def _in_order(categories: list) -> list:
    """Numbers by value, words as declared: an ordinal weight must not depend on how numbers are
    listed.
    """
    return sorted(categories) if _numeric(categories) else list(categories)


def _codes(ratings: pd.DataFrame, categories: list) -> np.ndarray:
    """Category numbers, (images, readers), -1 where missing."""
    if len(set(categories)) != len(categories) or not categories:
        raise ValueError("categories must be a non-empty list without repetition")
    codes = np.empty(ratings.shape, dtype=np.int64)
    for j in range(ratings.shape[1]):
        column = ratings.iloc[:, j]
        values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
        codes[:, j] = pd.Index(categories).get_indexer(pd.Index(values))
        codes[column.isna().to_numpy(dtype=bool), j] = -1
        wrong = (codes[:, j] < 0) & column.notna().to_numpy(dtype=bool)
        if wrong.any():
            label, reader = (
                v.item() if isinstance(v, np.generic) else v
                for v in (column[wrong].iloc[0], ratings.columns[j])
            )
            raise ValueError(
                f"reader {reader!r} gave {label!r}, which is not among the declared categories"
                f" {categories}"
            )
    return codes


def _values(categories: list) -> np.ndarray:
    """Numbers for distances: the categories where they are numbers, else 1, 2, … in their declared
    order.
    """
    return np.array(
        categories if _numeric(categories) else range(1, len(categories) + 1), dtype=float
    )


def _numeric(categories: list) -> bool:
    return all(
        isinstance(c, (int, float, np.number)) and not isinstance(c, bool) for c in categories
    )


def _weight_matrix(weights: str, categories: list) -> np.ndarray:
    values, positions = _values(categories), np.arange(len(categories))
    if weights == "identity" or len(categories) == 1:
        return np.eye(len(categories))
    if weights == "ordinal":
        steps = np.abs(positions[:, None] - positions) + 1.0
        distance = steps * (steps - 1) / 2
    else:
        distance = np.abs(values[:, None] - values) ** (1 if weights == "linear" else 2)
    return 1 - distance / distance.max()


def _counts(codes: np.ndarray, categories: int) -> np.ndarray:
    """How many readers put an image into a category, (images, categories)."""
    flat = (np.arange(len(codes))[:, None] * (categories + 1) + codes + 1).ravel()
    return (
        np.bincount(flat, minlength=len(codes) * (categories + 1))
        .reshape(len(codes), categories + 1)[:, 1:]
        .astype(float)
    )


def _missing(images: int, reason: str) -> tuple:
    return np.nan, np.nan, images, reason


def _linearised(
    counts: np.ndarray, weights: np.ndarray, name: str, codes: np.ndarray | None = None
) -> tuple:
    """Estimate, standard error, images and reason of a Gwet-type coefficient (Gwet 2014, sections
    2.6 and 5.5).
    """
    images, categories = counts.shape
    ratings = counts.sum(axis=1)
    several = ratings >= 2
    if not several.any():
        return _missing(images, "no image has two ratings")
    # An image rated once says nothing about agreement, yet counts for the chance term.
    agreement = (counts * (counts @ weights.T - 1)).sum(axis=1) / np.where(
        several, ratings * (ratings - 1), -1
    )
    observed = agreement[several].mean()
    shares = counts / ratings[:, None]
    chance, per_image = _chance(name, shares, weights, codes)
    if np.isclose(chance, 1, atol=1e-12):
        return _missing(images, ONE_CATEGORY if categories > 1 else "only one category is declared")
    estimate = (observed - chance) / (1 - chance)
    if images < 2:
        return estimate, np.nan, images, "one image: no standard error"
    linear = images / several.sum() * (agreement - chance * several) / (1 - chance) - 2 * (
        1 - estimate
    ) * (per_image - chance) / (1 - chance)
    return estimate, np.sqrt(((linear - estimate) ** 2).sum() / (images * (images - 1))), images, ""


def _chance(name: str, shares: np.ndarray, weights: np.ndarray, codes: np.ndarray | None) -> tuple:
    """Chance agreement and each image's part in it; `shares` is (images, categories), rows summing
    to 1.
    """
    categories, mean = len(weights), shares.mean(axis=0)
    if name == "fleiss":
        return mean @ weights @ mean, shares @ ((weights + weights.T) / 2 @ mean)
    if name == "gwet":
        scale = weights.sum() / (categories * (categories - 1)) if categories > 1 else np.nan
        return (
            (scale * (mean @ (1 - mean)), scale * (shares @ (1 - mean)))
            if categories > 1
            else (1.0, 0.0)
        )
    if name == "conger":
        return _chance_conger(codes, weights)
    constant = weights.sum() / categories**2 if name == "brennan_prediger" else 0.0
    return constant, constant


def _chance_conger(codes: np.ndarray, weights: np.ndarray) -> tuple:
    """Conger's chance agreement: over all pairs of different readers, each with their own
    distribution.
    """
    images, readers = codes.shape
    if readers < 2:
        return 0.0, 0.0
    categories = len(weights)
    by_reader = np.stack(
        [np.bincount(codes[codes[:, g] >= 0, g], minlength=categories) for g in range(readers)]
    ).astype(float)
    rated = by_reader.sum(axis=1)
    own = by_reader / rated[:, None]
    total = own.sum(axis=0)
    pairs_of_readers = readers * (readers - 1)
    chance = (
        total @ weights @ total - np.einsum("gk,kl,gl->", own, weights, own)
    ) / pairs_of_readers
    # What one rating of reader g in category l adds: its weight against the other readers'
    # distributions.
    gain = (total - own) @ weights * (images / rated)[:, None]
    expected = (gain * own).sum(axis=1)
    per_image = np.zeros(images)
    for g in range(readers):
        seen = codes[:, g] >= 0
        per_image += (
            np.where(seen, gain[g][codes[:, g]], 0) - (seen - rated[g] / images) * expected[g]
        )
    return chance, per_image / pairs_of_readers


def _cohen(codes: np.ndarray, matrix: np.ndarray, weights: str) -> tuple:
    images, categories = len(codes), len(matrix)
    if images == 0:
        return _missing(0, "no image has two ratings")
    table = np.bincount(codes[:, 0] * categories + codes[:, 1], minlength=categories**2).reshape(
        categories, categories
    )
    if (table.sum(axis=1) > 0).sum() == 1 and np.array_equal(
        table.sum(axis=1) > 0, table.sum(axis=0) > 0
    ):
        return _missing(images, ONE_CATEGORY)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (
            cohens_kappa(table)
            if weights == "identity"
            else cohens_kappa(table, weights=1 - matrix)
        )
    # At perfect agreement the variance is zero up to rounding, which may fall below it.
    return float(found.kappa), float(np.sqrt(max(found.var_kappa, 0))), images, ""


def _krippendorff(counts: np.ndarray, metric: str, values: np.ndarray) -> tuple:
    """Krippendorff's alpha over images rated at least twice; standard error as Gwet (2014, section
    5.5) linearises it.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    images, ratings = len(counts), counts.sum(axis=1)
    if images == 0:
        return _missing(0, "no image has two ratings")
    distance = _distance(metric, values, counts.sum(axis=0))
    mean = ratings.mean()
    shares = counts.sum(axis=0) / ratings.sum()
    expected = shares @ distance @ shares
    if np.isclose(expected, 0, atol=1e-15):
        return _missing(images, ONE_CATEGORY)
    similarity = 1 - distance
    observed = (counts * (counts @ similarity - 1)).sum(axis=1) / (mean * (ratings - 1))
    chance = 1 - expected
    total, small = ratings.sum(), observed.mean()
    uncorrected = (small - chance) / (1 - chance)
    corrected = (1 - 1 / total) * small + 1 / total
    estimate = (corrected - chance) / (1 - chance)
    if images < 2:
        return estimate, np.nan, images, "one image: no standard error"
    surplus = (ratings - mean) / mean
    linear = (observed - corrected * surplus - chance) / (1 - chance)
    per_image = counts @ similarity @ shares / mean - chance * surplus
    linear = linear - 2 * (1 - uncorrected) * (per_image - chance) / (1 - chance)
    return (
        estimate,
        np.sqrt(((linear - uncorrected) ** 2).sum() / (images * (images - 1))),
        images,
        "",
    )


def _distance(metric: str, values: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Krippendorff's squared difference between categories, scaled to at most 1 (alpha does not
    depend on the scale).
    """
    if metric == "nominal":
        return 1 - np.eye(len(values))
    if metric == "ordinal":
        cumulative = np.cumsum(totals) - totals / 2
        squared = (cumulative[:, None] - cumulative) ** 2
    else:
        squared = (values[:, None] - values) ** 2
    if metric == "ratio":
        with np.errstate(invalid="ignore", divide="ignore"):
            squared = np.nan_to_num(squared / (values[:, None] + values) ** 2)
    return squared / squared.max() if squared.max() > 0 else squared


def _with_interval(name, estimate, se, images, reason, readers, confidence) -> tuple:
    if not np.isfinite(se):
        return estimate, se, np.nan, np.nan, images, readers, reason
    quantile = (
        stats.norm.ppf((1 + confidence) / 2)
        if name == "cohen"
        else stats.t.ppf((1 + confidence) / 2, images - 1)
    )
    low, high = estimate - quantile * se, estimate + quantile * se
    if name != "cohen":
        low, high = np.clip([low, high], 0.0 if name == "percent" else -1.0, 1.0)
    return estimate, se, low, high, images, readers, reason
