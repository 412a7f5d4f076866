"""Areas under the ROC curves of readers, and their covariance over images (DeLong et al.,
Biometrics 44, 1988; within clusters as Obuchowski, Biometrics 53, 1997).
"""

import numpy as np
from scipy import stats

from helpers.statistics import clusters as cluster


def areas(values, truth, numbers, strata=None, covariance="delong") -> tuple:
    """Areas (studies, readers) of scores (images, studies, readers), their covariance over images
    (studies, readers, readers), and the degrees of freedom that the images or clusters leave
    (Satterthwaite; studies).

    `numbers`: the cluster of each image; `strata`: sets of images that are compared among
    themselves only, (images,) yes or no.
    """
    found, moved, groups = influence(values, truth, numbers, strata, covariance)
    matrix, df = covariances(moved, truth, numbers, groups[:2])
    if len(groups) > 2:  # each stratum's few images or clusters leave their own degrees of freedom
        cells = np.full(len(truth), -1)
        for place, part in enumerate(strata):
            cells[part] = 2 * place + truth[part]
        df = covariances(moved, cells, numbers, groups)[1]
    return found, matrix, df


def influence(values, truth, numbers, strata=None, covariance="delong") -> tuple:
    """Areas (studies, readers), the influence of every image on them (images, studies, readers),
    and the number of clusters of real and of generated images, stratum by stratum (2 × strata,
    studies); arguments as for `areas`.
    """
    strata = [np.ones(len(truth), dtype=bool)] if strata is None else strata
    pairs = [(truth[part] == 1).sum() * (truth[part] == 0).sum() for part in strata]
    found, moved, counts = 0.0, np.zeros(values.shape), []
    for part, weight in zip(strata, np.array(pairs) / sum(pairs)):
        placed = _placements(values[part], truth[part])
        found = found + weight * np.nanmean(placed[truth[part] == 1], axis=0)
        for kind in (0, 1):
            inside = np.flatnonzero(part)[truth[part] == kind]
            own = placed[truth[part] == kind]
            given = ~np.isnan(own)
            groups = (cluster.sums(given.astype(float), numbers[inside]) > 0).sum(axis=0)
            counts.append(groups.min(axis=-1))
            scale = np.sqrt(groups / np.maximum(groups - 1.0, 1.0))
            if covariance == "jackknife":
                scale = scale**2 * np.sqrt(1 - 1 / len(np.unique(numbers)))
            change = (own - np.nanmean(own, axis=0)) / given.sum(axis=0)
            moved[inside] = np.nan_to_num(weight * scale * change)
    return found, moved, np.array(counts)


def covariances(moved, kinds, numbers, groups) -> tuple:
    """Covariance over images (studies, readers, readers) and degrees of freedom (studies) from the
    results of `influence`; `kinds` (images,) 0, 1, …: independent parts, one for each of `groups`.
    """
    parts = [kinds == kind for kind in range(len(groups))]
    sums = [cluster.sums(moved[part], numbers[part]) for part in parts]
    parts = [np.moveaxis(total, 0, -1) @ np.moveaxis(total, 0, -2) for total in sums]
    spread = np.stack([part.mean(axis=(-2, -1)) for part in parts], axis=-1)
    df = np.maximum(groups - 1.0, 1.0)
    return sum(parts), cluster.satterthwaite(spread, np.moveaxis(df, 0, -1))


def _placements(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Per reader, the share of images of the other kind with which an image is in the right order;
    nan if a score is missing. Computed from mid-ranks.
    """
    placed, missing = np.empty_like(values), np.isnan(values)
    rated, above = np.where(missing, np.inf, values), np.where(missing, np.nan, 1.0)
    everything = stats.rankdata(rated, axis=0)
    for kind in (1, 0):
        own = truth == kind
        before = everything[own] - stats.rankdata(rated[own], axis=0)
        share = before * above[own] / (~missing[~own]).sum(axis=0)
        placed[own] = share if kind else 1 - share
    return placed
