"""Fidelity and diversity of generated images compared with real ones. Each number is shown beside
the same number for real against real.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import linalg, ndimage, stats

from helpers import images, tables
from helpers.assemble_reading_set import framing
from helpers.audit import features

BLOCK = 1024  # rows of a distance matrix in memory at once
FEWEST = 10  # minimum number of images per side for a comparison
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003


def measure(pool: pd.DataFrame, settings: dict, replicates: int = 40) -> pd.DataFrame:
    """The table quality.csv: every generated source of `pool` (audit.gather) against real images of
    its modality.

    Real patients are split in half: one half is the reference, the other the baseline. All three
    sides have the same number of images, because every measure depends on that number. `settings`
    has extractor, feature_size (pixels, lowered to the size of the smallest image), framing, margin
    and seed. Intervals: delete-half jackknife over patients and prompts.
    """
    rows, seed = [], settings["seed"]
    for modality, source, made in generated(pool):
        real = pool[(pool["origin"] == "real") & (pool["modality"] == modality)]
        sides = _equal_sides(made, real, seed)
        if min(map(len, sides)) < FEWEST:
            continue
        size = common_size(pd.concat(sides), settings)
        found = [features.extract(side, settings, size) for side in sides]
        if settings["extractor"] == features.HANDCRAFTED:
            centre, spread = features.scale(np.concatenate(found[1:]))
            found = [(side - centre) / spread for side in found]
        groups = [side["group"].to_numpy(dtype=object) for side in sides]
        table = pd.DataFrame(
            [*_compare(found, groups, seed, replicates), _diversity(sides, settings, size)]
        )
        about = {"source": source, "modality": modality, "images": len(sides[0])}
        rows.append(table.assign(**about, extractor=features.describe(settings, size)))
    return pd.concat([tables.empty("quality"), *rows], ignore_index=True)


def generated(pool: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Modality, source and images of every generated source of `pool`."""
    for names, made in pool[pool["origin"] == "generated"].groupby(["modality", "source"]):
        yield *names, made


def common_size(pool: pd.DataFrame, settings: dict) -> int:
    """feature_size, or the size of the smallest image of the pool if that is less, pixels."""
    sides = (framing.side(row, settings) for row in pool.itertuples())
    return min(settings["feature_size"], *sides)


def _equal_sides(made: pd.DataFrame, real: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Generated images, the real reference and the real baseline: the same number of each, and no
    patient in both real sides.
    """
    random = np.random.default_rng(seed)
    patients = random.permutation(np.unique(real["group"].to_numpy(dtype=object)))
    first = real["group"].isin(patients[: len(patients) // 2])
    sides = [made, real[first], real[~first]]
    count = min(map(len, sides))
    return [
        side.sort_values("image_id").iloc[np.sort(random.permutation(len(side))[:count])]
        for side in sides
    ]


def _compare(
    found: list[np.ndarray], groups: list[np.ndarray], seed: int, replicates: int
) -> list[dict]:
    made, reference, baseline = found
    rows = {}
    for side, own, prefix in ((made, groups[0], ""), (baseline, groups[2], "baseline_")):
        errors = half_sample_error(
            lambda a, b, side=side: distances(side[a], reference[b]),
            own,
            groups[1],
            np.random.default_rng(seed),
            replicates,
        )
        for name, value in distances(side, reference).items():
            floor = -np.inf if name == "kernel_distance" else 0.0
            ceiling = 1.0 if name in ("precision", "recall", "coverage") else np.inf
            row = rows.setdefault(name, {"metric": name, "reference_images": len(reference)})
            row[prefix.rstrip("_") or "estimate"] = value
            for end, sign in (("low", -1), ("high", 1)):
                row[prefix + end] = np.clip(value + sign * 1.96 * errors[name], floor, ceiling)
    return list(rows.values())


def distances(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """All feature-distribution measures of `made` against `real`, both (n, d), by name."""
    return {
        "frechet_distance": frechet_distance(made, real),
        "kernel_distance": kernel_distance(made, real),
        **neighbourhoods(made, real),
    }


def frechet_distance(made: np.ndarray, real: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians fitted to (n, d) features (Dowson &
    Landau 1982; Heusel 2017).
    """
    made, real = made.astype(np.float64), real.astype(np.float64)
    gap = ((made.mean(0) - real.mean(0)) ** 2).sum()
    one, two = np.cov(made, rowvar=False), np.cov(real, rowvar=False)
    # The trace of the root of one·two from the singular values of the centred features, so no root
    # of a singular matrix is needed.
    a, b = _factor(one), _factor(two)
    return float(max(gap + np.trace(one) + np.trace(two) - 2 * linalg.svdvals(a.T @ b).sum(), 0.0))


def _factor(covariance: np.ndarray) -> np.ndarray:
    values, vectors = linalg.eigh(np.atleast_2d(covariance))
    return vectors * np.sqrt(np.maximum(values, 0))


def kernel_distance(made: np.ndarray, real: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y/d + 1)³ (Bińkowski 2018); can
    be below zero.
    """

    # In float64, because the answer is a small difference of large sums.
    made, real = made.astype(np.float64), real.astype(np.float64)

    def total(one, two):
        """The kernel, summed over all pairs of rows."""
        return sum(float(((block @ two.T / two.shape[1] + 1) ** 3).sum()) for block in _blocks(one))

    # Without the pairs of a row with itself.
    within = [
        (total(side, side) - float((((side**2).sum(1) / side.shape[1] + 1) ** 3).sum()))
        / (len(side) * (len(side) - 1))
        for side in (made, real)
    ]
    return sum(within) - 2 * total(made, real) / (len(made) * len(real))


def neighbourhoods(made: np.ndarray, real: np.ndarray, neighbours: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020), from balls to
    the k-th neighbour.
    """
    k = min(neighbours, len(real) - 1, len(made) - 1)
    made, real = _centred(made, real)
    real_radius, made_radius = _kth_neighbour(real, k), _kth_neighbour(made, k)
    inside, covered, recalled = [], np.zeros(len(real), bool), np.zeros(len(real), bool)
    for block, radius in zip(_blocks(made), _blocks(made_radius)):
        distance = _distances(block, real)
        within = distance <= real_radius[None]
        inside.append(within.sum(1))
        covered |= within.any(0)
        recalled |= (distance <= radius[:, None]).any(0)
    balls = np.concatenate(inside)
    return {
        "precision": (balls > 0).mean(),
        "recall": recalled.mean(),
        "density": balls.mean() / k,
        "coverage": covered.mean(),
    }


def nearest_distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distance of every point to the nearest of the others, shape (n,)."""
    points, others = _centred(points, others)
    return np.concatenate([_distances(block, others).min(1) for block in _blocks(points)])


def _centred(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both minus the mean of `others`: a constant that is large relative to the spread would cost
    numerical precision.
    """
    centre = others.mean(0, dtype=np.float64)
    return (points - centre).astype(np.float32), (others - centre).astype(np.float32)


def _kth_neighbour(points: np.ndarray, k: int) -> np.ndarray:
    return np.concatenate(
        [np.partition(_distances(block, points), k, axis=1)[:, k] for block in _blocks(points)]
    )


def _distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    squared = (one**2).sum(1)[:, None] + (two**2).sum(1)[None] - 2 * one @ two.T
    return np.sqrt(np.maximum(squared, 0))


def _blocks(rows: np.ndarray):
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def half_sample_error(
    measure: Callable,
    first: np.ndarray,
    second: np.ndarray,
    random: np.random.Generator,
    replicates: int,
) -> dict[str, float]:
    """Standard error of each measure by the delete-half jackknife over groups (Shao & Wu 1989).

    The spread over halves drawn without replacement estimates the standard error of the whole.
    Unlike the bootstrap, it makes no ties, which nearest-neighbour measures would treat as copies.
    `measure` takes two index arrays.
    """

    def half(groups):
        names = np.unique(groups)
        return np.flatnonzero(np.isin(groups, random.permutation(names)[: max(1, len(names) // 2)]))

    halves = ((half(first), half(second)) for _ in range(replicates))
    values = pd.DataFrame([measure(a, b) for a, b in halves if min(len(a), len(b)) > 2])
    return values.std().to_dict()


def _diversity(sides: list[pd.DataFrame], settings: dict, size: int) -> dict:
    row = {"metric": "ms_ssim_within", "reference_images": len(sides[2])}
    row["estimate"], row["low"], row["high"] = within_source(sides[0], settings, size)
    row["baseline"], row["baseline_low"], row["baseline_high"] = within_source(
        sides[2], settings, size
    )
    return row


def within_source(pool: pd.DataFrame, settings: dict, size: int) -> tuple[float, float, float]:
    """Mean MS-SSIM over disjoint random pairs of one source, at most 200, with the ends of a t
    interval; higher is less diverse.
    """
    rows = list(pool.itertuples())
    order = np.random.default_rng(settings["seed"]).permutation(len(rows))
    pairs = min(len(order) // 2, 200)
    shown = [features.as_read(rows[index], settings, size) for index in order[: 2 * pairs]]
    values = np.array([ms_ssim(one, two) for one, two in zip(shown[::2], shown[1::2])])
    error = values.std(ddof=1) / np.sqrt(pairs) * stats.t.ppf(0.975, pairs - 1)
    return float(values.mean()), float(values.mean() - error), float(values.mean() + error)


def ms_ssim(one: np.ndarray, two: np.ndarray) -> float:
    """Multi-scale structural similarity of two 8-bit images (Wang 2003), 11-pixel Gaussian window
    of 1.5 pixels.

    An image too small for five scales gets as many as fit, with weights that sum to 1.
    """
    scales = max(1, min(5, int(np.log2(min(one.shape) / 11)) + 1))
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    one, two, value = one.astype(np.float32), two.astype(np.float32), 1.0
    for scale, weight in enumerate(weights):
        structure, whole = _ssim(one, two)
        value *= max(whole if scale == scales - 1 else structure, 0.0) ** weight
        one, two = (
            images.area_resize(picture, picture.shape[0] // 2, picture.shape[1] // 2)
            for picture in (one, two)
        )
    return value


def _ssim(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    def blur(picture):
        return ndimage.gaussian_filter(picture, 1.5, truncate=3.4)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = blur(one), blur(two)
    var1, var2, both = (
        blur(one**2) - mean1**2,
        blur(two**2) - mean2**2,
        blur(one * two) - mean1 * mean2,
    )
    structure = (2 * both + c2) / (var1 + var2 + c2)
    light = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return float(structure.mean()), float((structure * light).mean())
