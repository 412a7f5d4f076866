"""Compares the areas of two sets of images read by the same readers, or of two groups of readers of
the same images. Every score counts.

Images in both sets (the real ones beside two generators) affect both areas, so the covariance is
over the union of the images. Truth is 0 (real) or 1 (generated).
"""

import numpy as np
import pandas as pd
from scipy import special

from helpers.statistics import clusters as cluster
from helpers.statistics import multireader, roc_areas

FEWEST_READERS = 3  # minimum in each of two groups


def of_images(scores, truth, first, second, clusters=None, confidence: float = 0.95) -> pd.Series:
    """The mean area over the images `first` minus that over `second`, for these readers and for
    readers in general.

    `scores` (images, readers), missing allowed; `truth` 0 or 1, `first` and `second` yes or no per
    image, `clusters` the prompt or patient of each image. Readers without two scores of each kind
    in both sets are left out. Returns area_a, area_b, estimate, low, high (these readers, random
    images), general_low, general_high, statistic, df and p (random readers: Obuchowski and Rockette
    1995, applied to the readers' differences), readers, images, fewest (of a kind in a set) and
    reason.
    """
    truth, numbers = np.asarray(truth, dtype=int), cluster.codes(clusters, len(scores))
    values = scores.to_numpy(dtype=float, na_value=np.nan)
    sets = [np.asarray(chosen, dtype=bool) for chosen in (first, second)]
    kinds = [chosen & (truth == kind) for chosen in sets for kind in (0, 1)]
    able = np.min([(~np.isnan(values[kind])).sum(axis=0) for kind in kinds], axis=0) >= 2
    counts = {
        "readers": int(able.sum()),
        "images": int((sets[0] | sets[1]).sum()),
        "fewest": min(len(np.unique(numbers[kind])) for kind in kinds),
    }
    if not able.any():
        return pd.Series(
            counts | {"reason": "fewer than two real or two generated images in a set"}
        )
    found = different(values[:, None, able], truth, numbers, *sets, clusters is not None)
    return _with_intervals({name: part[0] for name, part in found.items()}, counts, confidence)


def different(values, truth, numbers, first, second, clustered=True) -> dict:
    """`of_images` for scores (images, studies, readers): estimate, se, df over images; general_se,
    general_df over readers too; area_a, area_b, each (studies,).
    """
    # Half of a generator's images come from few prompts of unequal size, so the sandwich estimate
    # is too small.
    kind, found, moved, groups = "jackknife" if clustered else "delong", [], [], []
    for chosen in (first, second):
        areas, part, clusters = roc_areas.influence(
            values[chosen], truth[chosen], numbers[chosen], covariance=kind
        )
        moved.append(np.zeros(values.shape))
        moved[-1][chosen] = part
        found.append(areas)
        groups.append(clusters)
    matrix, df = roc_areas.covariances(moved[0] - moved[1], truth, numbers, np.minimum(*groups))
    away = found[0] - found[1]
    row = {
        "area_a": found[0].mean(axis=-1),
        "area_b": found[1].mean(axis=-1),
        "estimate": away.mean(axis=-1),
        "se": np.sqrt(matrix.mean(axis=(-2, -1))),
        "df": df,
    }
    if away.shape[-1] > 1:
        random = multireader.random_readers(away, matrix, df if clustered else np.inf)
        row |= {"general_se": random["se"], "general_df": random["df"]}
    return row


def of_readers(scores, truth, first: list, second: list, clusters=None, confidence=0.95):
    """The mean area of the readers `first` minus that of the readers `second` (columns of
    `scores`), readers random in both groups; fields as `of_images`.

    The variance is that of the readers' areas in each group plus the part from the common images,
    with Satterthwaite's degrees of freedom.
    """
    counts = {"readers": len(first) + len(second), "images": len(scores), "fewest": np.inf}
    if min(len(first), len(second)) < FEWEST_READERS:
        few = f"fewer than {FEWEST_READERS} readers in a group"
        return pd.Series(counts | {"reason": few})
    truth, numbers = np.asarray(truth, dtype=int), cluster.codes(clusters, len(scores))
    values = scores[[*first, *second]].to_numpy(dtype=float, na_value=np.nan)
    given = ~np.isnan(values)
    if min(given[truth == kind].sum(axis=0).min() for kind in (0, 1)) < 2:
        few = "a reader scored fewer than 2 real or generated images"
        return pd.Series(counts | {"reason": few})
    found = apart(values[:, None], truth, numbers, len(first))
    return _with_intervals({name: part[0] for name, part in found.items()}, counts, confidence)


def apart(values, truth, numbers, first: int) -> dict:
    """`of_readers` for scores (images, studies, readers), the `first` readers against the rest."""
    areas, matrix, groups = roc_areas.areas(values, truth, numbers)
    parts, shared, means = [], 0.0, []
    for members in (slice(first), slice(first, None)):
        block, count = matrix[:, members, members], areas[:, members].shape[-1]
        own = np.trace(block, axis1=-2, axis2=-1)
        shared = shared + (block.sum(axis=(-2, -1)) - own) / (count * (count - 1))
        parts.append((areas[:, members].var(axis=-1, ddof=1) / count, count - 1.0))
        means.append(areas[:, members].mean(axis=-1))
    shared = np.maximum(shared - 2 * matrix[:, :first, first:].mean(axis=(-2, -1)), 0)
    spread, df = zip(*parts, (shared, groups))
    spread = np.stack(spread, axis=-1)
    df = cluster.satterthwaite(spread, np.stack(np.broadcast_arrays(*df), axis=-1))
    return {
        "area_a": means[0],
        "area_b": means[1],
        "estimate": means[0] - means[1],
        "general_se": np.sqrt(spread.sum(axis=-1)),
        "general_df": df,
    }


def _with_intervals(found: dict, counts: dict, confidence: float) -> pd.Series:
    """A row with intervals and p, or with the reason why they are missing."""
    row, upper = found | counts | {"reason": ""}, (1 + confidence) / 2
    if counts["fewest"] < cluster.FEWEST:
        row["reason"] = f"fewer than {cluster.FEWEST} images, prompts or patients on one side"
    for name in () if row["reason"] else ("", "general_"):
        if not (se := row.get(f"{name}se", 0)) > 1e-12:
            continue
        half = special.stdtrit(row[f"{name}df"], upper) * se
        low, high = np.clip([row["estimate"] - half, row["estimate"] + half], -1, 1)
        row |= {f"{name}low": low, f"{name}high": high}
    if "general_low" in row:
        row |= {"statistic": row["estimate"] / row["general_se"], "df": row["general_df"]}
        row["p"] = 2 * special.stdtr(row["df"], -abs(row["statistic"]))
    return pd.Series(row)
