"""One coefficient of agreement from counts of ratings, with its standard error from each image's
influence (sources: agreement.py).

Each function returns estimate, standard error, images, effective clusters, lowest possible value
and the reason why something is missing.
"""

import numpy as np
from statsmodels.stats.inter_rater import cohens_kappa

from helpers.statistics import clusters as cluster

ONE_IMAGE = "one image: no standard error"
ONE_CATEGORY = "all ratings are in one category"


def missing(images: int, reason: str) -> tuple:
    """No estimate, with the reason."""
    return np.nan, np.nan, images, 0, -1.0, reason


def _estimated(estimate: float, influence: np.ndarray, numbers: np.ndarray, lowest: float) -> tuple:
    groups = len(np.unique(numbers))
    if groups < 2:
        reason = ONE_IMAGE if len(numbers) == 1 else "one prompt or patient: no standard error"
        return estimate, np.nan, len(numbers), groups, lowest, reason
    se = np.sqrt(cluster.variance(influence / len(numbers), numbers))
    return estimate, se, len(numbers), cluster.number(numbers), lowest, ""


def linearised(
    counts: np.ndarray,
    weights: np.ndarray,
    name: str,
    numbers: np.ndarray,
    codes: np.ndarray | None = None,
) -> tuple:
    """A Gwet-type coefficient with its linearised variance (Gwet 2014, sections 2.6 and 5.5)."""
    images, ratings = len(counts), counts.sum(axis=1)
    several = ratings >= 2
    if not several.any():
        return missing(images, "no image has two ratings")
    # An image rated once says nothing about agreement, but it counts for the chance term.
    of_pairs = np.where(several, ratings * (ratings - 1), -1)
    agreement = (counts * (counts @ weights.T - 1)).sum(axis=1) / of_pairs
    observed = agreement[several].mean()
    chance, per_image = _chance(name, counts / ratings[:, None], weights, codes)
    if np.isclose(chance, 1, atol=1e-12):
        return missing(images, ONE_CATEGORY)
    estimate = (observed - chance) / (1 - chance)
    linear = images / several.sum() * (agreement - chance * several) / (1 - chance)
    linear = linear - 2 * (1 - estimate) * (per_image - chance) / (1 - chance)
    if name == "percent" and round(observed, 12) in (0, 1):
        # Images rated once would widen or narrow an interval to which they add nothing.
        found = _estimated(estimate, np.zeros(several.sum()), numbers[several], 0.0)
        return *found[:2], images, *found[3:]
    return _estimated(estimate, linear - estimate, numbers, -chance / (1 - chance))


def _chance(name: str, shares: np.ndarray, weights: np.ndarray, codes: np.ndarray | None) -> tuple:
    """Chance agreement and each image's part in it; `shares` is (images, categories), and each row
    sums to 1.
    """
    categories, mean = len(weights), shares.mean(axis=0)
    if name == "fleiss":
        return mean @ weights @ mean, shares @ ((weights + weights.T) / 2 @ mean)
    if name == "gwet":
        scale = weights.sum() / (categories * (categories - 1))
        return scale * (mean @ (1 - mean)), scale * (shares @ (1 - mean))
    if name == "conger":
        return _chance_conger(codes, weights)
    constant = weights.sum() / categories**2 if name == "brennan_prediger" else 0.0
    return constant, constant


def _chance_conger(codes: np.ndarray, weights: np.ndarray) -> tuple:
    """Conger's chance agreement: over all pairs of different readers, each with their own
    distribution.
    """
    images, readers = codes.shape
    by_reader = (codes[:, :, None] == np.arange(len(weights))).sum(axis=0).astype(float)
    rated = by_reader.sum(axis=1)
    own = by_reader / rated[:, None]
    total = own.sum(axis=0)
    pairs_of_readers = readers * (readers - 1)
    chance = (
        total @ weights @ total - np.einsum("gk,kl,gl->", own, weights, own)
    ) / pairs_of_readers
    # The contribution of one rating of reader g in category l: its weight against the other
    # readers' distributions.
    gain = (total - own) @ weights * (images / rated)[:, None]
    expected = (gain * own).sum(axis=1)
    per_image = np.zeros(images)
    for g in range(readers):
        seen = codes[:, g] >= 0
        per_image += (
            np.where(seen, gain[g][codes[:, g]], 0) - (seen - rated[g] / images) * expected[g]
        )
    return chance, per_image / pairs_of_readers


def cohen(codes: np.ndarray, matrix: np.ndarray, weights: str) -> tuple:
    """Cohen's kappa of two readers, codes (images, 2), by statsmodels."""
    images, categories = len(codes), len(matrix)
    if not images:
        return missing(0, "no image has two ratings")
    cells = codes[:, 0] * categories + codes[:, 1]
    table = np.bincount(cells, minlength=categories**2).reshape(categories, categories)
    if (codes == codes[0, 0]).all():
        return missing(images, ONE_CATEGORY)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = cohens_kappa(table, weights=None if weights == "identity" else 1 - matrix)
    if images == 1:
        return float(found.kappa), np.nan, 1, 1, -np.inf, ONE_IMAGE
    # At perfect agreement the variance is zero, and rounding may make it negative.
    return float(found.kappa), float(np.sqrt(max(found.var_kappa, 0))), images, images, -np.inf, ""


def krippendorff(counts: np.ndarray, metric: str, numbers: np.ndarray) -> tuple:
    """Krippendorff's alpha over images rated at least twice; standard error as Gwet (2014, section
    5.5) linearises it.
    """
    several = counts.sum(axis=1) >= 2
    counts, numbers = counts[several], numbers[several]
    images, ratings = len(counts), counts.sum(axis=1)
    if images == 0:
        return missing(0, "no image has two ratings")
    distance = _distance(metric, counts.sum(axis=0))
    mean = ratings.mean()
    shares = counts.sum(axis=0) / ratings.sum()
    expected = shares @ distance @ shares
    if np.isclose(expected, 0, atol=1e-15):
        return missing(images, ONE_CATEGORY)
    similarity, chance, total = 1 - distance, 1 - expected, ratings.sum()
    observed = (counts * (counts @ similarity - 1)).sum(axis=1) / (mean * (ratings - 1))
    small = observed.mean()
    uncorrected = (small - chance) / (1 - chance)
    corrected = (1 - 1 / total) * small + 1 / total
    estimate = (corrected - chance) / (1 - chance)
    surplus = (ratings - mean) / mean
    linear = (observed - corrected * surplus - chance) / (1 - chance)
    per_image = counts @ similarity @ shares / mean - chance * surplus
    linear = linear - 2 * (1 - uncorrected) * (per_image - chance) / (1 - chance)
    return _estimated(estimate, linear - uncorrected, numbers, -chance / (1 - chance))


def _distance(metric: str, totals: np.ndarray) -> np.ndarray:
    """Krippendorff's squared difference between categories, scaled to at most 1 (alpha does not
    depend on the scale).
    """
    if metric == "nominal":
        return 1 - np.eye(len(totals))
    cumulative = np.cumsum(totals) - totals / 2
    squared = (cumulative[:, None] - cumulative) ** 2
    return squared / squared.max() if squared.max() > 0 else squared
