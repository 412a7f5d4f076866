"""Areas under the ROC curves of many readers: DeLong, Obuchowski-Rockette, bootstrap, power.

Truth is 0 (real) or 1 (generated), a higher score means more surely generated. Sources: DeLong et
al., Biometrics 44 (1988); Obuchowski and Rockette, Commun. Stat. Simul. 24 (1995); Hillis, Stat.
Med. 26 (2007) and Hillis, Berbaum and Metz, Acad. Radiol. 15 (2008) for the degrees of freedom; Roe
and Metz, Acad. Radiol. 4 (1997) for simulated studies.
"""

import numpy as np
import pandas as pd
from scipy import special, stats

from helpers.statistics import clusters as cluster
from helpers.statistics import roc_areas

COVARIANCES = ("delong", "jackknife")
FIELDS = ["estimate", "se", "df", "statistic", "low", "high", "p"]
# Reasons why a standard error is zero, so that an interval would have no width.
SEPARATED = "every generated image was scored above every real one"
REVERSED = "every real image was scored above every generated one"
WITHOUT_WIDTH = "nothing varies from image to image or from reader to reader"


def multireader(
    scores: pd.DataFrame,
    truth,
    covariance: str = "delong",
    clusters=None,
    strata=None,
) -> pd.Series:
    """The mean area of random readers on random images, against 0.5 (Obuchowski-Rockette, Hillis'
    degrees of freedom).

    `scores`: one row per image, one column per reader; `truth`: 0 or 1 on the same index. The
    variance is (MS_R + r max(Cov2, 0)) / r, df (MS_R + r max(Cov2, 0))² / (MS_R² / (r - 1)); t,
    two-sided, 95 %, not cut to [0, 1]. Every score counts: a reader's area rests on the images that
    reader scored, the covariance of two readers on each one's influence values (DeLong's
    placements), which are 0 where a score is missing. `clusters` (one value per image: its prompt
    or patient) adds these within clusters (Obuchowski 1997) and uses the number of clusters for the
    degrees of freedom; `strata` compares images only within a stratum. Readers without two scores
    of each kind are left out. Returns estimate, se, df, statistic, low, high, p, readers, images,
    dropped (images without any score), incomplete (lacking some), answers, fewest (images or
    clusters of the rarer kind), ms_reader, cov2 and reason. Raises ValueError for an unknown
    covariance.
    """
    table = _Table(scores, truth, clusters, strata)
    if reason := table.lacking(covariance, readers=2):
        return _without_result(reason, **table.counts)
    areas, matrix, groups = table.areas(covariance)
    found = random_readers(areas, matrix, np.inf if clusters is None else groups)
    counts = table.counts | {name: found[name] for name in ("ms_reader", "cov2")}
    return _result(*(found[name] for name in ("estimate", "se", "df")), **counts)


def random_readers(areas: np.ndarray, matrix: np.ndarray, groups=np.inf) -> dict:
    """The mean area of random readers from their areas (…, readers), the covariance over images
    (…, readers, readers) and the degrees of freedom that the images leave. Returns estimate, se,
    df, ms_reader and cov2, each (…).
    """
    readers = areas.shape[-1]
    # Areas of m and n images differ by at least 1 / (2 m n) or not at all. A smaller difference is
    # rounding, which depends on the order.
    variance = areas.var(axis=-1, ddof=1)
    ms_reader = np.where(variance > 1e-24, variance, 0.0)[()]
    own = np.trace(matrix, axis1=-2, axis2=-1)
    cov2 = (matrix.sum(axis=(-2, -1)) - own) / (readers * (readers - 1))
    shared = readers * np.maximum(cov2, 0)
    parts = np.stack(np.broadcast_arrays(readers - 1.0, groups), axis=-1)
    df = cluster.satterthwaite(np.stack([ms_reader, shared], axis=-1), parts)
    return {
        "estimate": areas.mean(axis=-1),
        "se": np.sqrt((ms_reader + shared) / readers),
        "df": df,
        "ms_reader": ms_reader,
        "cov2": cov2,
    }


def these_readers(scores: pd.DataFrame, truth, clusters=None, strata=None) -> pd.Series:
    """The mean area of these readers on random images, against 0.5. It says nothing about other
    readers. The t test has the degrees of freedom that the images (or clusters) leave; fields as
    `multireader`.
    """
    table = _Table(scores, truth, clusters, strata)
    if reason := table.lacking(readers=1):
        return _without_result(reason, **table.counts)
    areas, matrix, groups = table.areas("delong")
    return _result(areas.mean(), np.sqrt(max(matrix.mean(), 0)), groups, **table.counts)


def possible(found: pd.Series) -> tuple[float, float]:
    """A 95 % interval for an area that stays within 0 and 1 and is reliable near them: t on the
    logit scale (Pepe 2003). It is (nan, nan) if the standard error is zero, if the area is 0 or 1,
    or with fewer than FEWEST real or generated images (prompts, patients), see `clusters.equal`.
    """
    area, se = (np.asarray(found[name], dtype=float) for name in ("estimate", "se"))
    known = (area > 0) & (area < 1) & (se > 0) & (found.get("fewest", np.inf) >= cluster.FEWEST)
    area = np.where(known, area, np.nan)
    half = special.stdtrit(found["df"], cluster.UPPER) * se / (area * (1 - area))
    low, high = (special.expit(special.logit(area) + side * half)[()] for side in (-1, 1))
    return low, high


def equivalence(found: pd.Series, margin: float) -> pd.Series:
    """Two one-sided t tests with the degrees of freedom of `found`: is the estimate within 0.5 ±
    `margin`?

    Returns p (the larger of the two), equivalent (yes or no at 5 %), low and high (90 % interval),
    margin, df and reason.
    """
    if margin <= 0:
        raise ValueError("the margin of equivalence must be above 0")
    tested = {
        "p": np.nan,
        "equivalent": None,
        "low": np.nan,
        "high": np.nan,
        "margin": margin,
        "df": found["df"],
        "reason": found["reason"] or WITHOUT_WIDTH,
    }
    if np.isfinite(found["se"]) and found["se"] > 0:
        away, se, spread = found["estimate"] - 0.5, found["se"], stats.t(found["df"])
        p = max(spread.sf((away + margin) / se), spread.cdf((away - margin) / se))
        half = spread.ppf(0.95) * se
        tested |= {
            "p": p,
            "equivalent": bool(p < 0.05),
            "low": found["estimate"] - half,
            "high": found["estimate"] + half,
            "reason": "",
        }
    return pd.Series(tested)


def bootstrap(
    scores: pd.DataFrame,
    truth,
    replicates: int = 2000,
    seed: int = 0,
    clusters=None,
) -> pd.Series:
    """The mean area with a 95 % percentile interval over `replicates` draws of readers and, within
    each truth, of images (with `clusters`: of prompts and patients).

    Every score counts. Returns estimate, se, low, high, replicates, readers, images, dropped,
    incomplete, answers, reason.
    """
    table = _Table(scores, truth, clusters)
    found = {
        "estimate": np.nan,
        "se": np.nan,
        "low": np.nan,
        "high": np.nan,
        "replicates": replicates,
        **table.counts,
        "reason": table.lacking(readers=1),
    }
    if not found["reason"]:
        areas = bootstrap_areas(table.values, table.truth, table.numbers, replicates, seed)
        low, high = np.nanquantile(areas, [1 - cluster.UPPER, cluster.UPPER])
        estimate, se = table.areas("delong")[0].mean(), np.nanstd(areas, ddof=1)
        found |= {"estimate": estimate, "se": se, "low": low, "high": high}
    return pd.Series(found)


def bootstrap_areas(
    values: np.ndarray, truth: np.ndarray, numbers: np.ndarray, replicates: int, seed: int
) -> np.ndarray:
    """Mean areas of resampled readers and images, (replicates,).

    `values` is (images, readers), nan where missing, `truth` and cluster `numbers` (images,).
    """
    random = np.random.default_rng(seed)
    times = np.empty((replicates, len(truth)), dtype=np.float32)
    for kind in (1, 0):
        inside = np.flatnonzero(truth == kind)
        names, codes = np.unique(numbers[inside], return_inverse=True)
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
        times[:, inside] = drawn[:, codes]
    readers = values.shape[1]
    times_reader = random.multinomial(readers, np.full(readers, 1 / readers), replicates)
    areas = np.empty((replicates, readers))
    for j in range(readers):
        # The number of times that an image was drawn is its weight: the area is a weighted count of
        # ordered pairs, computed from the sorted scores.
        rated = np.flatnonzero(~np.isnan(values[:, j]))
        order = rated[np.argsort(values[rated, j], kind="stable")]
        ordered, drawn = values[order, j], times[:, order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        above = np.add.reduceat(drawn * (truth[order] == 1), starts, axis=1)
        below = np.add.reduceat(drawn * (truth[order] == 0), starts, axis=1)
        ordered_pairs = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1, dtype=float)
        pairs = above.sum(axis=1, dtype=float) * below.sum(axis=1, dtype=float)
        areas[:, j] = ordered_pairs / np.where(pairs > 0, pairs, np.nan)
    return (areas * times_reader).sum(axis=1) / readers


def power(
    auc: float,
    readers: int,
    real: int,
    generated: int,
    reader_sd: float = 0.05,
    correlation: float = 0.4,
    studies: int = 500,
    seed: int = 0,
) -> pd.Series:
    """How often a study of this size would find that `auc` differs from 0.5, by simulation (Roe and
    Metz 1997).

    `reader_sd`: standard deviation of the readers' true areas; `correlation` of two readers' scores
    of the same image. Returns power, low, high (Wilson, of the simulation), mean half width of the
    interval, studies.
    """
    random = np.random.default_rng(seed)
    distance = stats.norm.ppf(auc) * np.sqrt(2)
    spread = reader_sd / (stats.norm.pdf(distance / np.sqrt(2)) / np.sqrt(2))
    truth = np.repeat([0, 1], [real, generated])
    shift = distance + spread * random.standard_normal((studies, readers))
    shared = np.sqrt(correlation) * random.standard_normal((len(truth), studies, 1))
    own = np.sqrt(1 - correlation) * random.standard_normal((len(truth), studies, readers))
    scores = truth[:, None, None] * shift + shared + own
    found = random_readers(*roc_areas.areas(scores, truth, np.arange(len(truth)))[:2])
    half_width = special.stdtrit(found["df"], cluster.UPPER) * found["se"]
    # If all readers separate the kinds perfectly, there is no standard error, and the difference
    # counts as found.
    rejected = np.abs(found["estimate"] - 0.5) > half_width
    low, high = cluster.wilson(rejected.mean(), studies)
    chance = {"power": rejected.mean(), "low": low, "high": high, "studies": studies}
    wide = half_width[found["se"] > 1e-12]
    return pd.Series(chance | {"half_width": wide.mean() if len(wide) else np.nan})


class _Table:
    """Scores (images, readers) and truth (images,) in one order, without images or readers that
    have no usable scores.
    """

    def __init__(self, scores: pd.DataFrame, truth, clusters=None, strata=None):
        images = len(scores)
        if isinstance(truth, pd.Series):
            truth = truth.reindex(scores.index)
        truth = np.asarray(truth, dtype=float)
        if not np.isin(truth, (0, 1)).all():
            raise ValueError("truth must be 0 (real) or 1 (generated) for every image")
        values = scores.to_numpy(dtype=float, na_value=np.nan)
        rated = ~np.isnan(values)
        kept = rated.any(axis=1)
        able = np.minimum(rated[truth == 1].sum(axis=0), rated[truth == 0].sum(axis=0)) >= 2
        able |= not able.any()
        self.values, self.truth = values[kept][:, able], truth[kept].astype(int)
        self.numbers = cluster.codes(cluster.codes(clusters, images)[kept], kept.sum())
        layers = np.zeros(images) if strata is None else pd.factorize(np.asarray(strata))[0]
        kinds, given = [self.truth == kind for kind in (0, 1)], ~np.isnan(self.values)
        # A stratum counts only if every reader has two images of each kind in it.
        self.strata = [
            part
            for part in (layers[kept] == name for name in np.unique(layers))
            if min(given[part & kind].sum(axis=0).min() for kind in kinds) >= 2
        ]
        if self.strata:
            inside = np.any(self.strata, axis=0)
            self.values, self.truth = self.values[inside], self.truth[inside]
            self.numbers, given = self.numbers[inside], given[inside]
            self.strata, kinds = [p[inside] for p in self.strata], [k[inside] for k in kinds]
        # An image weighs as much as the number of images that it is compared with.
        weights = np.ones(len(self.truth))
        for part in self.strata:
            for kind, other in (kinds, kinds[::-1]):
                weights[part & kind] = (part & other).sum()
        self.counts = {
            "readers": int(able.sum()),
            "images": len(self.truth),
            "dropped": int((~kept).sum()),
            "answers": int(given.sum()),
            "incomplete": int((~given.all(axis=1)).sum()),
            "fewest": min(cluster.equal(self.numbers[kind], weights[kind]) for kind in kinds),
        }

    def lacking(self, covariance: str = "delong", readers: int = 1) -> str:
        """The reason why there is no analysis; empty if there is one."""
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance is {covariance!r}; one of: {', '.join(COVARIANCES)}")
        for value, name in ((0, "real"), (1, "generated")):
            if (self.truth == value).sum() < 2:
                return f"fewer than two {name} images with scores"
        if not self.strata:
            return "fewer than two real or two generated images that a reader scored"
        few = self.values.shape[1] < readers
        return "one reader: readers cannot be taken as random" if few else ""

    def areas(self, covariance: str) -> tuple[np.ndarray, np.ndarray, float]:
        """The result of `areas` for this one study."""
        study = self.values[:, None], self.truth, self.numbers, self.strata, covariance
        return tuple(part[0] for part in roc_areas.areas(*study))


def _result(estimate: float, se: float, df: float, **more) -> pd.Series:
    found = dict.fromkeys(FIELDS, np.nan) | {"estimate": estimate, "se": 0.0, "df": df}
    few = more["fewest"] < cluster.FEWEST
    reason = cluster.FEW_ON_A_SIDE if few else WITHOUT_WIDTH
    reason = {0: REVERSED, 1: SEPARATED}.get(estimate, reason)
    if se >= 1e-12:
        statistic, half, reason = (estimate - 0.5) / se, special.stdtrit(df, cluster.UPPER) * se, ""
        found |= {
            "se": se,
            "statistic": statistic,
            "low": estimate - half,
            "high": estimate + half,
            "p": 2 * special.stdtr(df, -abs(statistic)),
        }
    return pd.Series(found | more | {"reason": reason})


def _without_result(reason: str, **more) -> pd.Series:
    return pd.Series({**dict.fromkeys(FIELDS, np.nan), **more, "reason": reason})
