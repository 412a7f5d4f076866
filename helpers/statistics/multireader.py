"""Areas under the ROC curve of one reader and of many:

DeLong, Obuchowski-Rockette, bootstrap, power.

Truth is 0 (real) or 1 (generated), a higher score means more surely generated. Sources: DeLong et
al., Biometrics 44 (1988); Obuchowski and Rockette, Commun. Stat. Simul. 24 (1995); Hillis, Stat.
Med. 26 (2007) and Hillis, Berbaum and Metz, Acad. Radiol. 15 (2008) for the degrees of freedom; Roe
and Metz, Acad. Radiol. 4 (1997) for simulated studies.
"""

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

COVARIANCES = ("delong", "jackknife")
FIELDS = ["estimate", "se", "df", "statistic", "low", "high", "p"]


def reader_auc(truth, score) -> pd.Series:
    """The area under one reader's ROC curve with DeLong's standard error.

    Returns estimate, se, df (inf: normal), statistic and p (two-sided, against 0.5), low, high (95
    %, cut to [0, 1]), images, dropped (score missing) and reason. Raises ValueError for truth other
    than 0 and 1.
    """
    scores, truth, dropped = _complete(_column(score, truth), truth)
    counts = {"images": len(truth), "dropped": dropped}
    if reason := _too_few(truth):
        return _nothing(reason, **counts)
    areas, covariance = _areas(scores, truth, "delong")
    found = _result(areas[0], np.sqrt(covariance[0, 0]), np.inf, 0.5, **counts)
    found["low"], found["high"] = np.clip([found["low"], found["high"]], 0, 1)
    return found


def compare_auc(truth, score_a, score_b) -> pd.Series:
    """The difference of two areas (a minus b) on the same images, with DeLong's covariance; fields
    as `reader_auc`, against 0.
    """
    both = pd.concat([_column(score_a, truth), _column(score_b, truth)], axis=1)
    scores, truth, dropped = _complete(both, truth)
    counts = {"images": len(truth), "dropped": dropped}
    if reason := _too_few(truth):
        return _nothing(reason, **counts)
    areas, covariance = _areas(scores, truth, "delong")
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return _result(
        areas[0] - areas[1],
        np.sqrt(max(variance, 0)),
        np.inf,
        0,
        auc_a=areas[0],
        auc_b=areas[1],
        **counts,
    )


def multireader(
    scores: pd.DataFrame, truth, against: float = 0.5, covariance: str = "delong"
) -> pd.Series:
    """The mean area of random readers on random images, against a value (Obuchowski-Rockette,
    Hillis' degrees of freedom).

    `scores`: one row an image, one column a reader; `truth`: 0 or 1 on the same index. Variance is
    (MS_R + r max(Cov2, 0)) / r, df (MS_R + r max(Cov2, 0))² / (MS_R² / (r - 1)); t, two-sided, 95
    %, not cut to [0, 1]. Images with a missing score are dropped and counted. Returns estimate, se,
    df, statistic, low, high, p, readers, images, dropped, ms_reader, cov2 and reason. Raises
    ValueError for an unknown covariance.
    """
    values, truth, dropped = _complete(scores, truth)
    readers = values.shape[1]
    counts = {"readers": readers, "images": len(truth), "dropped": dropped}
    if reason := _too_few(truth, covariance) or (
        "" if readers > 1 else "one reader: readers cannot be taken as random"
    ):
        return _nothing(reason, **counts)
    areas, matrix = _areas(values, truth, covariance)
    ms_reader, cov2 = _variance(areas), matrix[~np.eye(readers, dtype=bool)].mean()
    total = ms_reader + readers * max(cov2, 0)
    df = _ratio(total**2, ms_reader**2 / (readers - 1))
    return _result(
        areas.mean(),
        np.sqrt(total / readers),
        df,
        against,
        **counts,
        ms_reader=ms_reader,
        cov2=cov2,
    )


def multireader_compare(
    scores_a: pd.DataFrame, scores_b: pd.DataFrame, truth, covariance: str = "delong"
) -> pd.Series:
    """The difference (a minus b) of mean areas of two conditions read by the same readers, readers
    and images random.

    Hillis' F test as t = sqrt(F) with the sign of the difference; standard error sqrt(2 / r (MS_TR
    + r max(Cov2 - Cov3, 0))). Fields as `multireader`, with auc_a, auc_b, ms_treatment_reader,
    cov1, cov2, cov3 besides. Raises ValueError when the two have different readers.
    """
    if set(scores_a.columns) != set(scores_b.columns):
        raise ValueError("both conditions must have the same readers as columns")
    both = pd.concat([scores_a, scores_b[scores_a.columns]], axis=1)
    values, truth, dropped = _complete(both, truth)
    readers = values.shape[1] // 2
    counts = {"readers": readers, "images": len(truth), "dropped": dropped}
    if reason := _too_few(truth, covariance) or (
        "" if readers > 1 else "one reader: readers cannot be taken as random"
    ):
        return _nothing(reason, **counts)
    areas, matrix = _areas(values, truth, covariance)
    a, b = areas[:readers], areas[readers:]
    other = ~np.eye(readers, dtype=bool)
    within, between = (
        (matrix[:readers, :readers] + matrix[readers:, readers:]) / 2,
        matrix[:readers, readers:],
    )
    cov1, cov2, cov3 = np.diag(between).mean(), within[other].mean(), between[other].mean()
    ms = _variance(a - b) / 2
    total = ms + readers * max(cov2 - cov3, 0)
    df = _ratio(total**2, ms**2 / (readers - 1))
    extra = {
        "auc_a": a.mean(),
        "auc_b": b.mean(),
        "ms_treatment_reader": ms,
        "cov1": cov1,
        "cov2": cov2,
        "cov3": cov3,
    }
    return _result(a.mean() - b.mean(), np.sqrt(2 / readers * total), df, 0, **counts, **extra)


def equivalence(
    found: pd.Series, margin: float, against: float = 0.5, alpha: float = 0.05
) -> pd.Series:
    """Two one-sided t tests with the degrees of freedom of `found`: does the estimate lie within
    `against` ± `margin`?

    Returns p (the larger of the two), equivalent (yes or no at `alpha`), low and high (1 - 2 alpha
    interval), margin, df and reason.
    """
    if margin <= 0:
        raise ValueError("the margin of equivalence must be above 0")
    if not np.isfinite(found["se"]) or found["se"] == 0:
        reason = found["reason"] or "the standard error is zero"
        return pd.Series(
            {
                "p": np.nan,
                "equivalent": None,
                "low": np.nan,
                "high": np.nan,
                "margin": margin,
                "df": found["df"],
                "reason": reason,
            }
        )
    away, df = found["estimate"] - against, found["df"]
    p = max(
        stats.t.sf((away + margin) / found["se"], df),
        stats.t.cdf((away - margin) / found["se"], df),
    )
    half = stats.t.ppf(1 - alpha, df) * found["se"]
    low, high = found["estimate"] - half, found["estimate"] + half
    return pd.Series(
        {
            "p": p,
            "equivalent": bool(p < alpha),
            "low": low,
            "high": high,
            "margin": margin,
            "df": df,
            "reason": "",
        }
    )


def bootstrap(
    scores: pd.DataFrame, truth, replicates: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.Series:
    """The mean area with a percentile interval over `replicates` draws of readers and, within each
    truth, of images.

    Returns estimate, se, low, high, replicates, readers, images, dropped, reason.
    """
    values, truth, dropped = _complete(scores, truth)
    counts = {
        "replicates": replicates,
        "readers": values.shape[1],
        "images": len(truth),
        "dropped": dropped,
    }
    if reason := _too_few(truth):
        return pd.Series(
            {
                "estimate": np.nan,
                "se": np.nan,
                "low": np.nan,
                "high": np.nan,
                **counts,
                "reason": reason,
            }
        )
    areas = bootstrap_areas(values, truth, replicates, seed)
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    estimate = _areas(values, truth, "delong")[0].mean()
    return pd.Series(
        {
            "estimate": estimate,
            "se": areas.std(ddof=1),
            "low": low,
            "high": high,
            **counts,
            "reason": "",
        }
    )


def bootstrap_areas(
    values: np.ndarray, truth: np.ndarray, replicates: int, seed: int
) -> np.ndarray:
    """Mean areas of resampled readers and images, (replicates,).

    `values` is (images, readers), `truth` (images,).
    """
    random = np.random.default_rng(seed)
    positive, negative = values[truth == 1], values[truth == 0]
    times_positive = random.multinomial(
        len(positive), np.full(len(positive), 1 / len(positive)), replicates
    ).astype(np.float32)
    times_negative = random.multinomial(
        len(negative), np.full(len(negative), 1 / len(negative)), replicates
    ).astype(np.float32)
    readers = values.shape[1]
    times_reader = random.multinomial(readers, np.full(readers, 1 / readers), replicates)
    areas = np.empty((replicates, readers))
    for j in range(readers):
        # How often an image was drawn is a weight: the area is a weighted count of ordered pairs,
        # read off the sorted scores.
        order = np.argsort(np.concatenate([negative[:, j], positive[:, j]]), kind="stable")
        ordered = np.concatenate([negative[:, j], positive[:, j]])[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        below = np.concatenate([times_negative, np.zeros_like(times_positive)], axis=1)[:, order]
        above = np.concatenate([np.zeros_like(times_negative), times_positive], axis=1)[:, order]
        below, above = (
            np.add.reduceat(below, starts, axis=1),
            np.add.reduceat(above, starts, axis=1),
        )
        areas[:, j] = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1, dtype=float)
    return (areas * times_reader).sum(axis=1) / readers / (len(positive) * len(negative))


def power(
    auc: float,
    readers: int,
    real: int,
    generated: int,
    reader_sd: float = 0.05,
    correlation: float = 0.4,
    against: float = 0.5,
    studies: int = 500,
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.Series:
    """How often a study of this size would find that `auc` differs from `against`, by simulation
    (Roe and Metz 1997).

    `reader_sd`: standard deviation of the readers' true areas; `correlation` of two readers' scores
    of the same image. Returns power, low, high (Wilson, of the simulation), mean half width of the
    interval, studies.
    """
    random = np.random.default_rng(seed)
    distance = stats.norm.ppf(auc) * np.sqrt(2)
    spread = reader_sd / (stats.norm.pdf(distance / np.sqrt(2)) / np.sqrt(2))
    truth = np.repeat([0, 1], [real, generated])
    found = []
    for _ in range(studies):
        shift = distance + spread * random.standard_normal(readers)
        shared = np.sqrt(correlation) * random.standard_normal((len(truth), 1))
        own = np.sqrt(1 - correlation) * random.standard_normal((len(truth), readers))
        result = multireader(pd.DataFrame(truth[:, None] * shift + shared + own), truth, against)
        found.append((result["p"] < alpha, (result["high"] - result["low"]) / 2))
    rejected, half_width = np.array(found).T
    low, high = proportion_confint(rejected.sum(), studies, method="wilson")
    return pd.Series(
        {
            "power": rejected.mean(),
            "low": low,
            "high": high,
            "half_width": half_width.mean(),
            "studies": studies,
        }
    )


def _column(score, truth) -> pd.DataFrame:
    index = truth.index if isinstance(truth, pd.Series) else None
    return (
        score if isinstance(score, pd.Series) else pd.Series(np.asarray(score), index=index)
    ).to_frame()


def _complete(scores: pd.DataFrame, truth) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and truth as arrays in one order without images that lack a score, and how many those
    were.
    """
    if isinstance(truth, pd.Series):
        if (
            not scores.index.is_unique
            or not truth.index.is_unique
            or len(truth) != len(scores)
            or not scores.index.isin(truth.index).all()
        ):
            raise ValueError(
                "truth must have one value for every image of the scores, on the same index"
            )
        truth = truth.reindex(scores.index)
    truth = np.asarray(truth, dtype=float)
    if len(truth) != len(scores):
        raise ValueError("truth must have one value for every image of the scores")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("truth must be 0 (real) or 1 (generated) for every image")
    values = scores.to_numpy(dtype=float, na_value=np.nan)
    kept = ~np.isnan(values).any(axis=1)
    return values[kept], truth[kept].astype(int), int((~kept).sum())


def _too_few(truth: np.ndarray, covariance: str = "delong") -> str:
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance is {covariance!r}; one of: {', '.join(COVARIANCES)}")
    for value, name in ((0, "real"), (1, "generated")):
        if (truth == value).sum() < 2:
            return f"fewer than two {name} images with every score"
    return ""


def _areas(values: np.ndarray, truth: np.ndarray, covariance: str) -> tuple[np.ndarray, np.ndarray]:
    """Areas (columns,) and their covariance (columns, columns) over images."""
    positive, negative = values[truth == 1], values[truth == 0]
    m, n = len(positive), len(negative)
    # Placement values from mid-ranks: the share of the other kind that an image is ordered rightly
    # against.
    ranks = stats.rankdata(np.concatenate([positive, negative]), axis=0)
    of_positive = (ranks[:m] - stats.rankdata(positive, axis=0)) / n
    of_negative = 1 - (ranks[m:] - stats.rankdata(negative, axis=0)) / m
    areas = of_positive.mean(axis=0)
    if covariance == "delong":
        matrix = (
            np.cov(of_positive, rowvar=False, ddof=1) / m
            + np.cov(of_negative, rowvar=False, ddof=1) / n
        )
        return areas, np.atleast_2d(matrix)
    without = np.concatenate(
        [(m * areas - of_positive) / (m - 1), (n * areas - of_negative) / (n - 1)]
    )
    deviation = without - without.mean(axis=0)
    return areas, (m + n - 1) / (m + n) * deviation.T @ deviation


def _variance(areas: np.ndarray) -> float:
    # Areas of m and n images differ by 1 / (2 m n) or not at all: what is smaller is rounding,
    # which changes with their order.
    variance = areas.var(ddof=1)
    return float(variance) if variance > 1e-24 else 0.0


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else np.inf


def _result(estimate: float, se: float, df: float, against: float, **more) -> pd.Series:
    if se < 1e-12:
        reason = "the standard error is zero: the readers order every pair of images alike"
        return pd.Series(
            {
                **dict.fromkeys(FIELDS, np.nan),
                "estimate": estimate,
                "se": 0.0,
                "df": df,
                **more,
                "reason": reason,
            }
        )
    statistic, half = (estimate - against) / se, stats.t.ppf(0.975, df) * se
    values = (
        estimate,
        se,
        df,
        statistic,
        estimate - half,
        estimate + half,
        2 * stats.t.sf(abs(statistic), df),
    )
    return pd.Series({**dict(zip(FIELDS, values)), **more, "reason": ""})


def _nothing(reason: str, **more) -> pd.Series:
    return pd.Series({**dict.fromkeys(FIELDS, np.nan), **more, "reason": reason})
