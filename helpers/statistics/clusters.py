"""Images that are not independent: several from one prompt, several of one patient.

Variances are sandwich estimates over clusters (Liang and Zeger 1986), degrees of freedom
Satterthwaite's. With one image per cluster every formula is that for independent images.
"""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

FEWEST = 5  # below this many clusters no interval holds what it promises


def codes(clusters, images: int) -> np.ndarray:
    """Cluster numbers 0, 1, …, (images,). Without `clusters`, or where one is missing, an image is
    its own cluster.
    """
    if clusters is None:
        return np.arange(images)
    named = pd.Series(np.asarray(clusters, dtype=object))
    alone = pd.Series([("image", number) for number in range(images)], dtype=object)
    return pd.factorize(named.where(named.notna(), alone))[0]


def sums(influence: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Influence values (images, columns) added up within clusters, (clusters, columns)."""
    present = pd.factorize(numbers)[0]
    total = np.zeros((present.max(initial=-1) + 1, influence.shape[1]))
    np.add.at(total, present, influence)
    return total


def variance(influence: np.ndarray, numbers: np.ndarray) -> float:
    """Variance of an estimate from each image's influence on it, (images,); nan for one cluster."""
    total = sums(influence[:, None], numbers)
    return float(len(total) / (len(total) - 1) * (total**2).sum()) if len(total) > 1 else np.nan


def wilson(share: float, effective: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share seen in `effective` independent images; (nan, nan) for none."""
    if not effective > 0:
        return np.nan, np.nan
    low, high = proportion_confint(
        share * effective, effective, alpha=1 - confidence, method="wilson"
    )
    # At none and at all of them rounding leaves a trace.
    return 0.0 if share == 0 else float(low), 1.0 if share == 1 else float(high)
