"""Finds memorised copies: a sample that is a training case, even if cropped, within bars, mirrored,
noisy or with another window.

A sample is compared with every case in two steps: small, contrast-normalised descriptors of many
crops of every case find the most similar cases; those are aligned with the sample. The distance is
1 − the correlation of local structure. It ignores mirrors, negatives and small rotations; crops,
bars and stretching add to it. The threshold is calibrated on real images of other patients, so that
a strongly changed copy is missed where all patients look alike.

Only a generator trained here can be shown to have memorised a case. Images of other generators are
compared with the real cases by the same distance; the result is called a comparison.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import fft, stats
from statsmodels.stats.proportion import proportion_confint

from helpers import images, table_columns, tables
from helpers.audit import alignment, features, fidelity
from helpers.audit.alignment import SIDE
from helpers.runner.progress import progress
from helpers.table_columns import MODALITY_NAMES

COARSE = 24  # pixels of the descriptors of the search
LIKELIEST = 12  # cases aligned with each sample
# Real images that share one of these are not independent.
APART = ("image_id", "group", "duplicate_group")
BLOCK = 512  # samples searched at once
CROPS = {1.0: 1, 0.95: 2, 0.9: 3, 0.85: 4, 0.8: 5, 0.75: 6, 0.7: 7}  # side: places along each side
# Side of the sample's centre, which is also searched for: without bars, and whole if shifted.
CENTRE = 0.85
NULL = 60  # real images whose distance to other patients calibrates a comparison


def nearest(samples: pd.DataFrame, cases: pd.DataFrame, apart: tuple = ()) -> pd.DataFrame:
    """The nearest case of every sample; both are rows of audit.gather.

    Columns image_id, nearest_image_id, distance (1 − correlation of local structure after
    alignment: 0 the same, about 1 unrelated) and hash_distance (bits of 64 in which the perceptual
    hashes differ, mirror allowed). Cases that share a value of one of the columns `apart` with a
    sample are left out.
    """
    known = [
        (alignment.structure(image), perceptual_hash(image)) for image in _pictures(cases, "cases")
    ]
    structures, hashes = (np.stack(part) for part in zip(*known))
    looked_for = [
        (alignment.structure(image), [perceptual_hash(image), perceptual_hash(image[:, ::-1])])
        for image in _pictures(samples, "samples")
    ]
    allowed = _apart(samples, cases, apart)
    likeliest = _search(np.stack([small for small, _ in looked_for]), structures, allowed)
    rows, names = [], cases["image_id"].to_numpy(dtype=object)
    for (sample, hashed), indices in zip(looked_for, progress(likeliest, "aligning")):
        best, distance = alignment.aligned(sample, structures[indices])
        bits = min(np.count_nonzero(hashes != one, axis=1).min() for one in hashed)
        rows.append((names[indices[best]], distance, bits))
    found = pd.DataFrame(rows, columns=["nearest_image_id", "distance", "hash_distance"])
    return found.assign(image_id=samples["image_id"].to_numpy())


def threshold(others: np.ndarray, false_alarms: float) -> tuple[float, float, tuple[float, float]]:
    """(threshold, expected false-positive rate, its 95 % Clopper–Pearson-type interval) from
    the nearest distances of real images of other patients.

    A distance below the threshold is called a copy. The threshold is the k-th smallest distance, k
    the largest with k / (n + 1) at most `false_alarms`, and at least 1: a new image of another
    patient falls below it with probability k / (n + 1), Beta(k, n + 1 − k) over calibration sets.
    """
    ordered = np.sort(np.asarray(others, dtype=float))
    k = max(1, int(false_alarms * (len(ordered) + 1)))
    low, high = stats.beta(k, len(ordered) + 1 - k).ppf([0.025, 0.975])
    return float(ordered[k - 1]), k / (len(ordered) + 1), (float(low), float(high))


def judge(pool: pd.DataFrame, settings: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(nearest.csv, rows for quality.csv) for every generated source, modality by modality.

    Samples of a generator trained here are compared with its training cases, calibrated on held-out
    real images of other patients; a sample below the threshold is a `copy` and is not released.
    Images of other generators are compared with all real cases, calibrated on real images of
    different patients. The rows are `copy_threshold`, `copy_false_alarms` (expected rate on other
    patients, with interval) and `copy_share` (Wilson interval); for a comparison they are called
    `near_...`.
    `settings` has false_alarms, extractor, feature_size, framing, margin and seed.
    """
    found, rows = [], []
    for modality, source, samples in fidelity.generated(pool):
        trained = bool(samples["trained_here"].all())
        cases, others = _compared(pool[pool["modality"] == modality], trained, settings["seed"])
        if others.empty:
            continue
        distances = nearest(others, cases, APART)["distance"]
        limit, rate, between = threshold(distances, settings["false_alarms"])
        table = nearest(samples, cases)
        size = fidelity.common_size(pd.concat([samples, cases]), settings)
        vectors = [features.extract(side, settings, size) for side in (samples, cases)]
        _, spread = features.scale(vectors[1])
        table["feature_distance"] = fidelity.nearest_distance(*[one / spread for one in vectors])
        table["near"] = table["distance"] < limit
        table["copy"] = table["near"] & trained
        found.append(table.assign(trained_here=trained, release=~table["copy"]))
        share = proportion_confint(table["near"].sum(), len(table), method="wilson")
        measured = [
            ("threshold", len(others), limit, (np.nan, np.nan)),
            ("false_alarms", len(others), rate, between),
            ("share", len(table), table["near"].mean(), share),
        ]
        rows += [
            {
                "metric": ("copy_" if trained else "near_") + name,
                "source": source,
                "modality": modality,
                "images": count,
                "reference_images": len(cases),
                "estimate": estimate,
                "low": low,
                "high": high,
                "extractor": f"local structure at {SIDE} px, aligned",
            }
            for name, count, estimate, (low, high) in measured
        ]
    return pd.concat([tables.empty("nearest"), *found]), pd.DataFrame(
        rows, columns=table_columns.column_names("quality")
    )


def _compared(pool: pd.DataFrame, trained: bool, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the real cases that samples are compared with, the real images that calibrate: those with a
    case that is neither of their patient nor their duplicate).
    """
    cases = others = pool[pool["origin"] == "real"]
    if trained:
        cases = others[(others["split"] == "train").fillna(False)]
        others = others[others["split"].isin(["validation", "test"])]
        for name in ("group", "duplicate_group"):
            others = others[others[name].isna() | ~others[name].isin(cases[name])]
    others = others[_apart(others, cases, APART).any(axis=1)]
    return cases, others if trained else others.sample(min(NULL, len(others)), random_state=seed)


def _apart(samples: pd.DataFrame, cases: pd.DataFrame, by: tuple) -> np.ndarray:
    """Whether sample and case share no value of the columns `by`, shape (samples, cases)."""
    apart = np.ones((len(samples), len(cases)), bool)
    for name in by:
        one, two = (side[name].fillna("").to_numpy(dtype=str) for side in (samples, cases))
        apart &= (one[:, None] != two[None]) | (one == "")[:, None]
    return apart


def sentences(pool: pd.DataFrame, nearest: pd.DataFrame, copy_rows: pd.DataFrame) -> list[str]:
    """One text per source: how many copies, how many images of a generator not trained here that
    are too near to a real case, or why the source could not be searched.
    """
    said = []
    for modality, source, samples in fidelity.generated(pool):
        own = nearest[nearest["image_id"].isin(samples["image_id"])]
        known = (copy_rows["source"] == source) & (copy_rows["modality"] == modality)
        near, name = int(own["near"].sum()), f"{MODALITY_NAMES[modality]} of {source}"
        if not known.any():
            said.append(
                f"{name}: its {len(samples)} images were not searched for copies. There are no real"
                " images of that modality to compare with, or none of other patients to calibrate"
                " the threshold. 06 does not refuse these images: look at them yourself."
            )
        elif samples["trained_here"].all():
            said.append(
                f"{name}: {near} of {len(own)} images"
                f" {'is a copy' if near == 1 else 'are copies'} of training cases; copies are not"
                " released and cannot be drawn."
            )
        elif not near:
            said.append(
                f"{name}: none of the {len(own)} images is nearer to a real case than images of"
                " different patients usually are."
            )
        else:
            said.append(
                f"{name}: {near} of {len(own)} images {'is' if near == 1 else 'are'} nearer to a"
                " real case than images of different patients usually are. This does not show"
                " memorisation, because the generator was not trained here and its training data"
                " are unknown. 06 never draws such an image together with that case."
            )
    return said


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """64 bits: the low 8×8 cosine frequencies of the image at 32 pixels, above their median."""
    low = fft.dctn(images.area_resize(picture, 32, 32), norm="ortho")[:8, :8].ravel()
    return low > np.median(low)


def _pictures(pool: pd.DataFrame, label: str):
    """Whole images, padded to squares, because a generator may have learned the bars that padding
    makes.
    """
    for file, bits in progress(list(zip(pool["file"], pool["bits"])), label, len(pool)):
        yield images.standardise(images.read_png(file), 4 * SIDE, int(bits)).astype(np.float32)


def _search(samples: np.ndarray, cases: np.ndarray, allowed: np.ndarray) -> list[np.ndarray]:
    """Indices of the LIKELIEST `allowed` cases of every sample, by the best correlation with any
    crop of the case, also mirrored or negative. `allowed` has shape (samples, cases).
    """
    whole, inner = (_units(_reduced(samples, side, 0.5, 0.5)) for side in (1.0, CENTRE))
    best = np.full((len(samples), len(cases)), -1, dtype=np.float32)
    for scale, places in CROPS.items():
        steps = np.linspace(0, 1, places) if places > 1 else [0.5]
        for x, y in itertools.product(steps, repeat=2):
            crops = _reduced(cases, scale, x, y)
            for units in (_units(crops), _units(crops[:, :, ::-1])):
                for start in range(0, len(samples), BLOCK):
                    block = best[start : start + BLOCK]
                    for looks in (whole, inner):
                        np.maximum(block, np.abs(looks[start : start + BLOCK] @ units.T), out=block)
    best[~allowed] = -2
    order = np.argsort(-best, axis=1, kind="stable")[:, :LIKELIEST]
    return [row[allowed[place, row]] for place, row in enumerate(order)]


def _reduced(pictures: np.ndarray, scale: float, x: float, y: float) -> np.ndarray:
    """A square crop of all images at once, by area to (n, COARSE, COARSE)."""
    side = round(scale * SIDE)
    down, across = (round(place * (SIDE - side)) for place in (y, x))
    shrink = images.area_resize(np.eye(side), COARSE, side)
    return shrink @ pictures[:, down : down + side, across : across + side] @ shrink.T


def _units(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    centred = flat - flat.mean(1, keepdims=True)
    return (centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
