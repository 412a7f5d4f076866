"""Images that are not independent: several from one prompt, several of one patient.

Variances are sandwich estimates over clusters (Liang and Zeger 1986), degrees of freedom
Satterthwaite's. With one image per cluster, every formula becomes that for independent images.
"""

from math import ceil

import numpy as np
import pandas as pd
from scipy import special
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FEWEST = 5  # with fewer clusters, counted by `equal`, no interval is reliable
FEW = f"the effective number of images, prompts or patients is below {FEWEST}"
FEW_ON_A_SIDE = f"{FEW} on one side"
UPPER = 0.975  # quantile at the upper end of a 95 % interval


def codes(clusters, images: int) -> np.ndarray:
    """Cluster numbers 0, 1, …, (images,). Without `clusters`, or where one is missing, an image is
    its own cluster.
    """
    if clusters is None:
        return np.arange(images)
    numbers, names = pd.factorize(np.asarray(clusters))
    alone = numbers < 0
    numbers[alone] = len(names) + np.arange(alone.sum())
    return numbers


def linked(pairs: np.ndarray, count: int) -> np.ndarray:
    """Group number of `count` things, (count,): things that are paired, (pairs, 2), directly or
    through others, form one group, named after its first member.
    """
    graph = coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(count, count))
    group = connected_components(graph, directed=False)[1]
    return np.unique(group, return_index=True)[1][group]


def connected(*keys: pd.Series) -> np.ndarray:
    """Group number of every row, (rows,): rows that share a value of any key, directly or through
    others, form one group. A missing value is never shared.
    """
    rows = pd.Series(np.arange(len(keys[0])))
    firsts = (rows.groupby(key.to_numpy()).transform("min").fillna(rows) for key in keys)
    pairs = np.concatenate([np.column_stack([rows, first]) for first in firsts])
    return linked(pairs.astype(int), len(rows))


def number(numbers: np.ndarray) -> float:
    """The effective number of clusters: the number of clusters of equal size with the same
    information about the spread (Carter, Schnepel and Steigerwald 2017, with equal answers within a
    cluster).
    """
    sizes = np.unique(numbers, return_counts=True)[1] ** 2.0
    return max(float(sizes.sum() ** 2 / (sizes**2).sum()), min(len(sizes), 2.0))


def equal(numbers: np.ndarray, weights: np.ndarray | None = None) -> int:
    """Kish's effective number of clusters, rounded up: a few clusters that hold most images, or
    most of the images' `weights`, count as few.
    """
    sizes = np.bincount(pd.factorize(numbers)[0], weights).astype(float)
    return ceil(sizes.sum() ** 2 / max((sizes**2).sum(), 1))


def sums(influence: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sums of influence values (images, …) within clusters, (clusters, …)."""
    present = pd.factorize(numbers)[0]
    total = np.zeros((present.max(initial=-1) + 1, *influence.shape[1:]))
    np.add.at(total, present, influence)
    return total


def variance(influence: np.ndarray, numbers: np.ndarray) -> float:
    """Variance of an estimate from each image's influence on it, (images,); nan for one cluster."""
    total = sums(influence, numbers)
    return float(len(total) / (len(total) - 1) * (total**2).sum()) if len(total) > 1 else np.nan


def satterthwaite(variance, df) -> np.ndarray:
    """Degrees of freedom of a sum of variances (…, parts); inf where all of them are 0."""
    total, below = np.sum(variance, axis=-1) ** 2, np.sum(np.square(variance) / df, axis=-1)
    return np.divide(total, below, out=np.full(np.shape(total), np.inf), where=below > 0)[()]


def share(hits: np.ndarray, sizes: np.ndarray, weights=1.0) -> dict:
    """Shares with Wilson's intervals at the effective number of answers (Korn and Graubard 1998).

    `hits` of `sizes` answers, (…, strata, clusters); the share is the mean over strata by `weights`
    (strata,). Returns estimate, effective (before the correction for few clusters), df, clusters,
    low, high, equal (see `equal`), each (…).
    """
    of_stratum, of_cluster = sizes.sum(axis=-1), sizes.sum(axis=-2)
    total, groups = of_stratum.sum(axis=-1), (of_cluster > 0).sum(axis=-1)
    means = hits.sum(axis=-1) / of_stratum
    weights = np.broadcast_to(weights, means.shape)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    estimate = (weights * means).sum(axis=-1)
    influence = (weights / of_stratum)[..., None] * (hits - means[..., None] * sizes)
    sandwich = (influence.sum(axis=-2) ** 2).sum(axis=-1) * groups / np.maximum(groups - 1, 1)
    independent = weights**2 * means * (1 - means) / np.maximum(of_stratum - 1, 1)
    spread = estimate * (1 - estimate) * total / np.maximum(total - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.where(spread > 0, spread / independent.sum(axis=-1), total)
        # Without any spread, all answers of a cluster are taken as equal.
        alike = total**2 / (of_cluster**2).sum(axis=-1)
        clustered = np.where(sandwich > 1e-15, spread / sandwich, alike)
    df = np.where(groups == total, np.inf, np.maximum(groups - 1.0, 1.0))
    clustered = np.where(groups == 1, 1.0, np.where(groups == total, alone, clustered))
    few = (special.ndtri(UPPER) / special.stdtrit(df, UPPER)) ** 2
    low, high = wilson(estimate, np.clip(clustered * few, 1, alone))
    return {
        "estimate": estimate,
        "effective": np.clip(clustered, 1, alone),
        "df": df,
        "clusters": groups,
        "equal": np.ceil(alike),
        "low": low,
        "high": high,
    }


def wilson(share, effective) -> tuple:
    """Wilson's 95 % interval of a share seen in `effective` independent images; nan for none."""
    z = special.ndtri(UPPER)
    effective = np.where(np.asarray(effective) > 0, effective, np.nan)
    shrunk = 1 + z**2 / effective
    middle = (share + z**2 / (2 * effective)) / shrunk
    half = z * np.sqrt(share * (1 - share) / effective + (z / (2 * effective)) ** 2) / shrunk
    # At 0 and 100 % rounding leaves a small error.
    low, high = np.where(share == 0, 0 * half, middle - half), middle + half
    return low[()], np.where(share == 1, 1 + 0 * half, high)[()]
