"""Compares a model with the mean of a group of readers of the same images.

The difference is the mean over readers of the model minus each reader: accuracy on the images that
both answered, the area of each on its own images. Intervals over images treat these readers as
fixed; those for readers in general treat them as random (Obuchowski and Rockette 1995, applied to
the differences). Truth is 0 (real) or 1 (generated).
"""

import numpy as np
import pandas as pd
from scipy import special

from helpers.statistics import clusters as cluster
from helpers.statistics import multireader, roc_areas


def area_difference(scores, truth, model, clusters=None, confidence: float = 0.95) -> pd.Series:
    """The model's area minus the readers' mean area.

    `scores` (images, readers), `model` (images,), missing allowed; `clusters` the prompt or patient
    of each image. Readers without two scores of each kind are left out. Returns model,
    readers_mean, estimate, low, high (these readers), general_low, general_high (readers in
    general; none for one reader), readers, images and reason.
    """
    truth, numbers = np.asarray(truth, dtype=int), cluster.codes(clusters, len(scores))
    values = np.column_stack([model, scores]).astype(float)
    given = ~np.isnan(values)
    able = np.min([given[truth == kind].sum(axis=0) for kind in (0, 1)], axis=0) >= 2
    counts = {"readers": int(able[1:].sum()), "images": int(given[:, 0].sum())}
    if not able[0] or not able[1:].any():
        return pd.Series(counts | {"reason": "fewer than two real or two generated images"})
    kind = "delong" if clusters is None else "jackknife"
    areas, moved, groups = roc_areas.influence(
        values[:, None, able], truth, numbers, covariance=kind
    )
    away = areas[0, :1] - areas[0, 1:]
    matrix, df = roc_areas.covariances(moved[..., :1] - moved[..., 1:], truth, numbers, groups)
    found = counts | {"model": areas[0, 0], "readers_mean": areas[0, 1:].mean()}
    return _with_intervals(found, away, matrix[0], df[0], groups.min(), confidence)


def accuracy_difference(right, model, clusters=None, confidence: float = 0.95) -> pd.Series:
    """The model's accuracy minus the readers' mean accuracy; fields as `area_difference`.

    `right` (images, readers) and `model` (images,): 1 right, 0 wrong, missing without an answer.
    """
    numbers, own = cluster.codes(clusters, len(right)), np.asarray(model, dtype=float)
    values = right.to_numpy(dtype=float, na_value=np.nan)
    apart = own[:, None] - values
    given = ~np.isnan(apart)
    able = given.sum(axis=0) >= 2
    counts = {"readers": int(able.sum()), "images": int((~np.isnan(own)).sum())}
    if not able.any():
        return pd.Series(counts | {"reason": "fewer than two images that both answered"})
    apart, given = apart[:, able], given[:, able]
    away = np.nanmean(apart, axis=0)
    total = cluster.sums(np.nan_to_num((apart - away) / given.sum(axis=0)), numbers)
    answered = cluster.sums(given.any(axis=1).astype(float), numbers) > 0
    groups = int(answered.sum())
    matrix = groups / max(groups - 1, 1) * total.T @ total
    both = np.where(given, values[:, able], np.nan)
    found = counts | {"model": np.nanmean(own), "readers_mean": np.nanmean(both, axis=0).mean()}
    df = max(cluster.number(numbers[given.any(axis=1)]) - 1, 1.0)
    return _with_intervals(found, away, matrix, df, groups, confidence)


def _with_intervals(
    found: dict, away, matrix, df: float, groups: int, confidence: float
) -> pd.Series:
    """The mean of the differences `away` (readers,) with intervals from their covariance over
    images `matrix` (readers, readers), or the reason why they are missing.
    """
    row = found | {"estimate": away.mean(), "reason": ""}
    if groups < cluster.FEWEST:
        said = f"fewer than {cluster.FEWEST} real or generated images, prompts or patients"
        return pd.Series(row | {"reason": said})
    spreads = {"": (np.sqrt(max(matrix.mean(), 0.0)), df)}
    if len(away) > 1:
        general = multireader.random_readers(away, matrix, df)
        spreads["general_"] = general["se"], general["df"]
    for name, (se, freedom) in spreads.items():
        if se < 1e-12:
            row["reason"] = "the difference is the same for every image"
            continue
        half = special.stdtrit(freedom, (1 + confidence) / 2) * se
        row[f"{name}low"], row[f"{name}high"] = np.clip(
            [away.mean() - half, away.mean() + half], -1, 1
        )
    return pd.Series(row)
