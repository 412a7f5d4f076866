"""Memorised copies: is a sample a training case, seen through cropping, noise, another window or a mirror?

A sample is compared with every training case in two steps: small, contrast-normalised descriptors of many crops
of every case find the likeliest cases; those are aligned with the sample, and 1 − the correlation of local
structure is the distance. What counts as a copy is calibrated on held-out real pictures of other patients.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import fft, ndimage, stats
from statsmodels.stats.proportion import proportion_confint

from helpers import images, runs, tables
from helpers.audit import features, fidelity

SIDE = 64  # pixels at which structure is compared
COARSE = 24  # pixels of the descriptors of the search
LIKELIEST = 12  # cases aligned with each sample
BLOCK = 512  # samples searched at once
CROPS = [(1.0, 0.5, 0.5)] + [(scale, x, y) for scale in (0.9, 0.8) for x, y in itertools.product((0.0, 0.5, 1.0), repeat=2)]


def nearest(samples: pd.DataFrame, training: pd.DataFrame, margin: float) -> pd.DataFrame:
    """The nearest training case of every sample; both are rows of images.csv with `file`.

    Columns image_id, nearest_image_id, distance (1 − correlation of local structure after alignment: 0 the same,
    about 1 unrelated) and hash_distance (bits of 64 in which the perceptual hashes differ, mirror allowed).
    A training case with the sample's own image_id is left out.
    """
    cases = np.stack([structure(picture) for picture in _pictures(training, margin, "training cases")])
    hashes = np.stack([perceptual_hash(picture) for picture in _pictures(training, margin, "")])
    looked_for = [(structure(picture), _both_hashes(picture)) for picture in _pictures(samples, margin, "samples")]
    likeliest = _search(np.stack([small for small, _ in looked_for]), cases)
    own = training["image_id"].to_numpy(dtype=object)
    rows = []
    for (sample, hashed), image_id, indices in zip(looked_for, samples["image_id"], likeliest):
        indices = [index for index in indices if own[index] != image_id]
        distances = [aligned_distance(sample, cases[index]) for index in indices]
        best = int(np.argmin(distances))
        bits = min(np.count_nonzero(hashes != one, axis=1).min() for one in hashed)
        rows.append({"image_id": image_id, "nearest_image_id": own[indices[best]], "distance": distances[best], "hash_distance": bits})
    return pd.DataFrame(rows)


def threshold(held_out: np.ndarray, false_alarms: float) -> tuple[float, float, tuple[float, float]]:
    """(threshold, expected false-positive rate, its 95 % Clopper–Pearson-type interval) from held-out nearest distances.

    A distance below the threshold is called a copy. It is the k-th smallest held-out distance, k the largest with
    k / (n + 1) at most `false_alarms`, and at least 1: a new picture of another patient falls below it with
    probability k / (n + 1), Beta(k, n + 1 − k) over calibration sets. Raises ValueError without held-out pictures.
    """
    ordered = np.sort(np.asarray(held_out, dtype=float))
    if not len(ordered):
        raise ValueError("No held-out real pictures of other patients: without them no threshold can be calibrated.")
    k = max(1, int(false_alarms * (len(ordered) + 1)))
    low, high = stats.beta(k, len(ordered) + 1 - k).ppf([0.025, 0.975])
    return float(ordered[k - 1]), k / (len(ordered) + 1), (float(low), float(high))


def judge(
    pool: pd.DataFrame, trained_here: list[str], false_alarms: float, extractor: str, size: int, margin: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(nearest.csv, rows for quality.csv) for the samples of the runs `trained_here`, modality by modality.

    The rows are `copy_threshold`, `copy_false_alarms` (expected rate on other patients, with interval) and
    `copy_share` (Wilson interval). `release` is false for copies. Empty tables when nothing was trained here.
    """
    found, rows = [], []
    for (modality, source), samples in pool[pool["run"].isin(trained_here) & (pool["origin"] == "generated")].groupby(
        ["modality", "source"]
    ):
        real = pool[(pool["origin"] == "real") & (pool["modality"] == modality)]
        training = real[(real["split"] == "train").fillna(False)]
        held_out = real[real["split"].isin(["validation", "test"]) & ~real["group"].isin(training["group"])]
        held_out = held_out[held_out["duplicate_group"].isna() | ~held_out["duplicate_group"].isin(training["duplicate_group"])]
        if training.empty or held_out.empty:
            continue
        limit, rate, between = threshold(nearest(held_out, training, margin)["distance"], false_alarms)
        table = nearest(samples, training, margin)
        common = min(size, fidelity.smallest_side(pd.concat([samples, training]), margin))
        vectors = [features.extract(side, extractor, common, margin) for side in (samples, training)]
        table["feature_distance"] = fidelity.nearest_distance(*[side / features.scale(vectors[1])[1] for side in vectors])
        table["copy"] = table["distance"] < limit
        table["release"] = ~table["copy"]
        found.append(table)
        share = proportion_confint(table["copy"].sum(), len(table), method="wilson")
        told = {"source": source, "modality": modality, "extractor": f"local structure at {SIDE} px, aligned"}
        rows += [
            {**told, "metric": "copy_threshold", "images": len(held_out), "reference_images": len(training), "estimate": limit},
            {
                **told,
                "metric": "copy_false_alarms",
                "images": len(held_out),
                "reference_images": len(training),
                "estimate": rate,
                "low": between[0],
                "high": between[1],
            },
            {
                **told,
                "metric": "copy_share",
                "images": len(table),
                "reference_images": len(training),
                "estimate": table["copy"].mean(),
                "low": share[0],
                "high": share[1],
            },
        ]
    return pd.concat(found, ignore_index=True) if found else tables.empty("nearest"), pd.DataFrame(
        rows, columns=[column.name for column in tables.columns("quality")]
    )


def structure(picture: np.ndarray) -> np.ndarray:
    """Local structure of a picture, (SIDE, SIDE) float32: detail divided by its local strength, so windows don't matter."""
    small = images.area_resize(picture, SIDE, SIDE) if picture.shape[0] > SIDE else ndimage.zoom(picture, SIDE / picture.shape[0], order=1)
    small = small.astype(np.float32)
    detail = ndimage.gaussian_filter(small, 0.6) - ndimage.gaussian_filter(small, 2)
    strength = np.sqrt(ndimage.gaussian_filter(detail**2, 2))
    # The floor of the picture's own mean strength: flat air must not be blown up into structure.
    return detail / (strength + strength.mean() + 1e-6)


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """64 bits: the low 8×8 cosine frequencies of the picture at 32 pixels, above their median."""
    low = fft.dctn(images.area_resize(picture, 32, 32), norm="ortho")[:8, :8].ravel()
    return low > np.median(low)


def _both_hashes(picture: np.ndarray) -> list[np.ndarray]:
    return [perceptual_hash(picture), perceptual_hash(picture[:, ::-1])]


def _pictures(pool: pd.DataFrame, margin: float, label: str):
    rows = zip(pool["file"], pool["bits"])
    for file, bits in runs.progress(rows, label, len(pool)) if label else rows:
        array = images.read_png(file)
        side = min(images.reading_side(array, margin), 4 * SIDE)
        yield images.for_reading(array, int(bits), side, min(int(bits), 12), margin).astype(np.float32)


def _search(samples: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Indices of the likeliest cases of every sample, (n, LIKELIEST): best correlation of any crop of the case, mirrored or not."""
    looks = np.stack([_unit(images.area_resize(sample, COARSE, COARSE)) for sample in samples])
    best = np.full((len(samples), len(cases)), -1, dtype=np.float32)
    for scale, x, y in CROPS:
        crops = np.stack([images.area_resize(_crop(case, scale, x, y), COARSE, COARSE) for case in cases])
        for mirrored in (crops, crops[:, :, ::-1]):
            units = np.stack([_unit(crop) for crop in mirrored])
            for start in range(0, len(samples), BLOCK):
                np.maximum(best[start : start + BLOCK], looks[start : start + BLOCK] @ units.T, out=best[start : start + BLOCK])
    count = min(LIKELIEST + 1, len(cases))  # one more, because a picture itself may be left out
    return np.argsort(-best, axis=1, kind="stable")[:, :count]


def _crop(picture: np.ndarray, scale: float, x: float, y: float) -> np.ndarray:
    side = round(scale * picture.shape[0])
    top, left = round(y * (picture.shape[0] - side)), round(x * (picture.shape[1] - side))
    return picture[top : top + side, left : left + side]


def _unit(picture: np.ndarray) -> np.ndarray:
    centred = picture.ravel() - picture.mean()
    return centred / (np.linalg.norm(centred) + 1e-6)


def aligned_distance(sample: np.ndarray, case: np.ndarray) -> float:
    """1 − the best correlation of two structures over mirrors, scales 0.75 to 1 and every shift, either of which is the crop.

    The smaller one is slid over the larger one (normalised cross-correlation, Lewis 1995).
    """
    best = -1.0
    for scale in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
        side = round(scale * SIDE)
        small = images.area_resize(sample, side, side) if side < SIDE else sample
        for template in (small, small[:, ::-1]):
            best = max(best, _slide(template, case))
    return 1 - best


def _slide(template: np.ndarray, case: np.ndarray) -> float:
    reach = max(0, case.shape[0] - template.shape[0])
    # At full size a shift of a few pixels is allowed by cutting the template's rim.
    if reach == 0:
        template, reach = template[2:-2, 2:-2], 4
    template = template - template.mean()
    side, size = template.shape[0], case.shape[0]
    match = fft.irfft2(fft.rfft2(case) * np.conj(fft.rfft2(template, case.shape)), case.shape)[: reach + 1, : reach + 1]
    summed = np.pad(np.stack([case, case**2]).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))[:, : size + 1, : size + 1]
    box = summed[:, side:, side:] - summed[:, :-side, side:] - summed[:, side:, :-side] + summed[:, :-side, :-side]
    spread = np.sqrt(np.maximum(box[1] - box[0] ** 2 / side**2, 1e-6))[: reach + 1, : reach + 1]
    return float((match / (spread * np.linalg.norm(template) + 1e-6)).max())
