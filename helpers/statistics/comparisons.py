"""Compares the areas of two sets of images read by the same readers, or of two groups of readers of
the same images, and a model with the mean of a group of readers. Every score counts.

Images in both sets (the real ones beside two generators) affect both areas, so the covariance is
over the union of the images. The difference of a model is the mean over readers of the model minus
each reader: accuracy on the images that both answered, the area of each on its own images.
Intervals over images treat these readers as fixed; those for readers in general treat them as
random (Obuchowski and Rockette 1995, applied to the readers' differences). Truth is 0 (real) or 1
(generated).
"""

import numpy as np
import pandas as pd
from scipy import special

from helpers.statistics import clusters as cluster
from helpers.statistics import multireader, roc_areas

FEWEST_READERS = 3  # minimum in each of two groups
ALIKE = "the difference is the same for every image"


def of_images(scores, truth, first, second, clusters=None) -> pd.Series:
    """The mean area over the images `first` minus that over `second`, for these readers and for
    readers in general.

    `scores` (images, readers), missing allowed; `truth` 0 or 1, `first` and `second` yes or no per
    image, `clusters` the prompt or patient of each image. Readers without two scores of each kind
    in both sets are left out. Returns area_a, area_b, estimate, low, high (these readers, random
    images), general_low, general_high, statistic, df and p (random readers), readers, images,
    fewest (of a kind in a set) and reason.
    """
    truth, numbers = np.asarray(truth, dtype=int), cluster.codes(clusters, len(scores))
    values = scores.to_numpy(dtype=float, na_value=np.nan)
    sets = [np.asarray(chosen, dtype=bool) for chosen in (first, second)]
    kinds = [chosen & (truth == kind) for chosen in sets for kind in (0, 1)]
    given = ~np.isnan(values)
    able = np.min([given[kind].sum(axis=0) for kind in kinds], axis=0) >= 2
    rated = given[:, able].any(axis=1)
    counts = {
        "readers": int(able.sum()),
        "images": int((sets[0] | sets[1]).sum()),
        "fewest": min(cluster.equal(numbers[kind & rated]) for kind in kinds),
    }
    if not able.any():
        return pd.Series(
            counts | {"reason": "fewer than two real or two generated images in a set"}
        )
    found = different(values[:, None, able], truth, numbers, *sets, clusters is not None)
    counts |= {name: part[0] for name, part in found.items()}
    return _with_intervals(counts, _few(counts["fewest"]))


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
    mean = {"area_a": found[0].mean(axis=-1), "area_b": found[1].mean(axis=-1)}
    return mean | _spread(found[0] - found[1], matrix, df, df if clustered else np.inf)


def _spread(away, matrix, df, groups) -> dict:
    """The mean of the differences `away` (…, readers) with its standard error and degrees of
    freedom over images and, for several readers, over readers too; from the covariance over images
    `matrix` (…, readers, readers).
    """
    found = {
        "estimate": away.mean(axis=-1),
        "se": np.sqrt(np.maximum(matrix.mean(axis=(-2, -1)), 0)),
        "df": df,
    }
    if away.shape[-1] > 1:
        random = multireader.random_readers(away, matrix, groups)
        found |= {"general_se": random["se"], "general_df": random["df"]}
    return found


def of_readers(scores, truth, first: list, second: list, clusters=None) -> pd.Series:
    """The mean area of the readers `first` minus that of the readers `second` (columns of
    `scores`), readers random in both groups; fields as `of_images`. Readers without two scores of
    each kind are left out.

    The variance is that of the readers' areas in each group plus the part from the common images,
    with Satterthwaite's degrees of freedom.
    """
    truth, numbers = np.asarray(truth, dtype=int), cluster.codes(clusters, len(scores))
    able = np.min([scores[truth == kind].notna().sum() for kind in (0, 1)], axis=0) >= 2
    first, second = ([r for r in group if r in scores.columns[able]] for group in (first, second))
    counts = {"readers": len(first) + len(second), "images": len(scores)}
    if min(len(first), len(second)) < FEWEST_READERS:
        few = f"fewer than {FEWEST_READERS} readers in a group"
        return pd.Series(counts | {"reason": few})
    values = scores[[*first, *second]].to_numpy(dtype=float, na_value=np.nan)
    given = ~np.isnan(values)
    found = apart(values[:, None], truth, numbers, len(first))
    kinds = [given.any(axis=1) & (truth == kind) for kind in (0, 1)]
    few = _few(*(cluster.equal(numbers[kind]) for kind in kinds))
    return _with_intervals(counts | {name: part[0] for name, part in found.items()}, few)


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


def model_area(scores, truth, model, clusters=None) -> pd.Series:
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
    found = {"readers": int(able[1:].sum()), "images": int(given[:, 0].sum())}
    if not able[0] or not able[1:].any():
        return pd.Series(found | {"reason": "fewer than two real or two generated images"})
    kind = "delong" if clusters is None else "jackknife"
    areas, moved, groups = roc_areas.influence(
        values[:, None, able], truth, numbers, covariance=kind
    )
    matrix, df = roc_areas.covariances(moved[..., :1] - moved[..., 1:], truth, numbers, groups)
    found |= {"model": areas[0, 0], "readers_mean": areas[0, 1:].mean()}
    found |= _spread(areas[0, :1] - areas[0, 1:], matrix[0], df[0], df[0])
    kinds = [numbers[given[:, 0] & (truth == kind)] for kind in (0, 1)]
    return _with_intervals(found, _few(groups.min(), *map(cluster.equal, kinds)), ALIKE)


def model_accuracy(right, model, clusters=None) -> pd.Series:
    """The model's accuracy minus the readers' mean accuracy; fields as `model_area`.

    `right` (images, readers) and `model` (images,): 1 right, 0 wrong, missing without an answer.
    """
    numbers, own = cluster.codes(clusters, len(right)), np.asarray(model, dtype=float)
    values = right.to_numpy(dtype=float, na_value=np.nan)
    apart = own[:, None] - values
    given = ~np.isnan(apart)
    able = given.sum(axis=0) >= 2
    found = {"readers": int(able.sum()), "images": int((~np.isnan(own)).sum())}
    if not able.any():
        return pd.Series(found | {"reason": "fewer than two images that both answered"})
    apart, given = apart[:, able], given[:, able]
    away = np.nanmean(apart, axis=0)
    total = cluster.sums(np.nan_to_num((apart - away) / given.sum(axis=0)), numbers)
    answered = numbers[given.any(axis=1)]
    groups, df = len(np.unique(answered)), max(cluster.number(answered) - 1, 1.0)
    matrix = groups / max(groups - 1, 1) * total.T @ total
    both = np.where(given, values[:, able], np.nan)
    found |= {"model": np.nanmean(own), "readers_mean": np.nanmean(both, axis=0).mean()}
    found |= _spread(away, matrix, df, df)
    few = cluster.FEW if cluster.equal(answered) < cluster.FEWEST else ""
    return _with_intervals(found, few, ALIKE)


def _few(*sides: float) -> str:
    return cluster.FEW_ON_A_SIDE if min(sides) < cluster.FEWEST else ""


def _with_intervals(found: dict, few: str = "", alike: str = "") -> pd.Series:
    """A row with intervals and p, or with the reason why they are missing: `few` images, or
    differences that are all `alike`.
    """
    row = found | {"reason": few}
    for name in ("", "general_"):
        if few or f"{name}se" not in row:
            continue
        if not row[f"{name}se"] > 1e-12:
            row["reason"] = alike
            continue
        half = special.stdtrit(row[f"{name}df"], cluster.UPPER) * row[f"{name}se"]
        low, high = np.clip([row["estimate"] - half, row["estimate"] + half], -1, 1)
        row |= {f"{name}low": low, f"{name}high": high}
    if "general_low" in row:
        row |= {"statistic": row["estimate"] / row["general_se"], "df": row["general_df"]}
        row["p"] = 2 * special.stdtr(row["df"], -abs(row["statistic"]))
    return pd.Series(row)
