"""Memorised copies: is a sample a training case, seen through cropping, noise, another window or a
mirror?

A sample is compared with every training case in two steps: small, contrast-normalised descriptors
of many crops of every case find the likeliest cases; those are aligned with the sample, and 1 − the
correlation of local structure is the distance: blind to mirrors, negatives, windows, crops, shifts,
and turns of a few degrees. What counts as a copy is calibrated on held-out real images of other
patients.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import fft, ndimage, stats
from statsmodels.stats.proportion import proportion_confint

from helpers import images, tables
from helpers.audit import features, fidelity
from helpers.runner import runs

SIDE = 64  # pixels at which structure is compared
COARSE = 24  # pixels of the descriptors of the search
LIKELIEST = 12  # cases aligned with each sample
BLOCK = 512  # samples searched at once
CROPS = {
    1.0: 1,
    0.95: 2,
    0.9: 3,
    0.85: 4,
    0.8: 5,
    0.75: 6,
    0.7: 7,
}  # side of the crop: places along each side
SHIFTED = 0.85  # side of the sample's centre that is looked for too: a shifted image shows it whole
INNER = 52  # pixels of a template that slides over a case
REGISTERED = 6  # of the aligned cases, the best are registered
BLUR, STEPS = 1.5, 12  # pixels; and steps of a registration at most


def nearest(samples: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """The nearest training case of every sample; both are rows of images.csv with `file`.

    Columns image_id, nearest_image_id, distance (1 − correlation of local structure after
    alignment: 0 the same, about 1 unrelated) and hash_distance (bits of 64 in which the perceptual
    hashes differ, mirror allowed). A training case with the sample's own image_id is left out.
    """
    cases, hashes = zip(
        *[
            (structure(picture), perceptual_hash(picture))
            for picture in _pictures(training, "training cases")
        ]
    )
    looked_for = [
        (structure(picture), _both_hashes(picture)) for picture in _pictures(samples, "samples")
    ]
    likeliest = _search(np.stack([small for small, _ in looked_for]), np.stack(cases))
    cases, own = np.stack(cases), training["image_id"].to_numpy(dtype=object)
    rows = []
    for (sample, hashed), image_id, indices in zip(
        looked_for, samples["image_id"], runs.progress(likeliest, "aligning")
    ):
        indices = indices[own[indices] != image_id]
        best, distance = aligned(sample, cases[indices])
        bits = min(np.count_nonzero(np.stack(hashes) != one, axis=1).min() for one in hashed)
        rows.append(
            {
                "image_id": image_id,
                "nearest_image_id": own[indices[best]],
                "distance": distance,
                "hash_distance": bits,
            }
        )
    return pd.DataFrame(rows)


def threshold(
    held_out: np.ndarray, false_alarms: float
) -> tuple[float, float, tuple[float, float]]:
    """(threshold, expected false-positive rate, its 95 % Clopper–Pearson-type interval) from
    held-out nearest distances.

    A distance below the threshold is called a copy. It is the k-th smallest held-out distance, k
    the largest with k / (n + 1) at most `false_alarms`, and at least 1: a new image of another
    patient falls below it with probability k / (n + 1), Beta(k, n + 1 − k) over calibration sets.
    Raises ValueError without held-out images.
    """
    ordered = np.sort(np.asarray(held_out, dtype=float))
    if not len(ordered):
        raise ValueError(
            "No held-out real images of other patients: without them no threshold can be"
            " calibrated."
        )
    k = max(1, int(false_alarms * (len(ordered) + 1)))
    low, high = stats.beta(k, len(ordered) + 1 - k).ppf([0.025, 0.975])
    return float(ordered[k - 1]), k / (len(ordered) + 1), (float(low), float(high))


def judge(
    pool: pd.DataFrame,
    trained_here: list[str],
    false_alarms: float,
    extractor: str,
    size: int,
    margin: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(nearest.csv, rows for quality.csv) for the samples of the runs `trained_here`, modality by
    modality.

    The rows are `copy_threshold`, `copy_false_alarms` (expected rate on other patients, with
    interval) and `copy_share` (Wilson interval). `release` is false for copies. Empty tables when
    nothing was trained here.
    """
    found, rows = [], []
    for (modality, source), samples in pool[
        pool["run"].isin(trained_here) & (pool["origin"] == "generated")
    ].groupby(["modality", "source"]):
        real = pool[(pool["origin"] == "real") & (pool["modality"] == modality)]
        training = real[(real["split"] == "train").fillna(False)]
        held_out = real[
            real["split"].isin(["validation", "test"]) & ~real["group"].isin(training["group"])
        ]
        held_out = held_out[
            held_out["duplicate_group"].isna()
            | ~held_out["duplicate_group"].isin(training["duplicate_group"])
        ]
        if training.empty or held_out.empty:
            continue
        limit, rate, between = threshold(nearest(held_out, training)["distance"], false_alarms)
        table = nearest(samples, training)
        common = min(size, fidelity.smallest_side(pd.concat([samples, training]), margin))
        vectors = [
            features.extract(side, extractor, common, margin) for side in (samples, training)
        ]
        table["feature_distance"] = fidelity.nearest_distance(
            *[side / features.scale(vectors[1])[1] for side in vectors]
        )
        table["copy"] = table["distance"] < limit
        table["release"] = ~table["copy"]
        found.append(table)
        share = proportion_confint(table["copy"].sum(), len(table), method="wilson")
        told = {
            "source": source,
            "modality": modality,
            "extractor": f"local structure at {SIDE} px, aligned",
        }
        rows += [
            {
                **told,
                "metric": "copy_threshold",
                "images": len(held_out),
                "reference_images": len(training),
                "estimate": limit,
            },
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


def not_searched(pool: pd.DataFrame, trained_here: list[str], copy_rows: pd.DataFrame) -> list[str]:
    """One sentence for every source trained here whose samples could not be searched for copies."""
    told = []
    for (modality, source), samples in pool[
        pool["run"].isin(trained_here) & (pool["origin"] == "generated")
    ].groupby(["modality", "source"]):
        if not ((copy_rows["source"] == source) & (copy_rows["modality"] == modality)).any():
            told.append(
                f"{modality} of {source}: its {len(samples)} samples were not searched for copies,"
                " since there are no real images of that modality in split train, or none of other"
                " patients to calibrate the threshold with. 06 does not refuse them: look at them"
                " yourself."
            )
    return told


def structure(picture: np.ndarray) -> np.ndarray:
    """Local structure of an image, (SIDE, SIDE) float32: detail divided by its local strength, so
    windows don't matter.
    """
    small = (
        images.area_resize(picture, SIDE, SIDE)
        if picture.shape[0] > SIDE
        else ndimage.zoom(picture, SIDE / picture.shape[0], order=1)
    )
    small = small.astype(np.float32)
    detail = ndimage.gaussian_filter(small, 0.6) - ndimage.gaussian_filter(small, 2)
    strength = np.sqrt(ndimage.gaussian_filter(detail**2, 2))
    # The floor of the image's own mean strength: flat air must not be blown up into structure.
    return detail / (strength + strength.mean() + 1e-6)


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """64 bits: the low 8×8 cosine frequencies of the image at 32 pixels, above their median."""
    low = fft.dctn(images.area_resize(picture, 32, 32), norm="ortho")[:8, :8].ravel()
    return low > np.median(low)


def _both_hashes(picture: np.ndarray) -> list[np.ndarray]:
    return [perceptual_hash(picture), perceptual_hash(picture[:, ::-1])]


def _pictures(pool: pd.DataFrame, label: str):
    """Whole images, padded to squares: bars that padding made are part of what a generator may have
    learnt.
    """
    for file, bits in runs.progress(list(zip(pool["file"], pool["bits"])), label, len(pool)):
        yield images.standardise(images.read_png(file), 4 * SIDE, int(bits)).astype(np.float32)


def _search(samples: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Indices of the likeliest cases of every sample, (n, LIKELIEST + 1): best correlation with any
    crop of the case, mirrored, negative or not.
    """
    whole, inner = (_units(_reduced(samples, side, 0.5, 0.5)) for side in (1.0, SHIFTED))
    best = np.full((len(samples), len(cases)), -1, dtype=np.float32)
    for scale, places in CROPS.items():
        steps = np.linspace(0, 1, places) if places > 1 else [0.5]
        for x, y in itertools.product(steps, repeat=2):
            crops = _reduced(cases, scale, x, y)
            for units in (_units(crops), _units(crops[:, :, ::-1])):
                for start in range(0, len(samples), BLOCK):
                    block = best[start : start + BLOCK]
                    for looks in (whole, inner) if scale == SHIFTED else (whole,):
                        np.maximum(block, np.abs(looks[start : start + BLOCK] @ units.T), out=block)
    count = min(LIKELIEST + 1, len(cases))  # one more, because an image itself may be left out
    return np.argsort(-best, axis=1, kind="stable")[:, :count]


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


def aligned(sample: np.ndarray, cases: np.ndarray) -> tuple[int, float]:
    """(index of the nearest case, 1 − its correlation with the sample) over mirrors, negatives,
    crops, shifts and small turns.

    `cases` come in the order of the search. Mirror, scale and place come from a grid, by normalised
    cross-correlation (Lewis 1995); the best few cases are then registered by an affine map.
    """
    spectra = fft.rfft2(cases)
    sums = np.pad(
        np.stack([cases, cases**2], 1).astype(np.float64).cumsum(2).cumsum(3),
        ((0, 0), (0, 0), (1, 0), (1, 0)),
    )
    found = []
    for scale in np.arange(1.0, 0.66, -0.05):
        side = round(scale * SIDE)
        small = images.area_resize(sample, side, side) if side < SIDE else sample
        found += [
            _slide(template, spectra, sums, scale, mirror)
            for mirror, template in enumerate((small, small[:, ::-1]))
        ]
    best = np.stack(found).transpose(
        1, 0, 2
    )  # cases, attempts, (correlation, top, left, scale, mirror)
    best = np.take_along_axis(best, best[:, :, :1].argmax(1)[:, None], axis=1)[:, 0]
    placed = stats.rankdata(-best[:, 0], method="ordinal") - 1
    # Noise upsets the one ranking and a turned image the other: the first few of both are
    # registered.
    likeliest = np.argsort(np.minimum(placed, np.arange(len(cases))), kind="stable")[:REGISTERED]
    values = [
        registered(sample[:, ::-1] if best[index, 4] else sample, cases[index], best[index, 1:4])
        for index in likeliest
    ]
    return int(likeliest[np.argmax(values)]), 1 - max(values)


def _slide(
    template: np.ndarray, spectra: np.ndarray, sums: np.ndarray, scale: float, mirror: int
) -> np.ndarray:
    """Best place of a template, or of its negative, on every case: rows of (correlation, top, left,
    scale, mirror).
    """
    cut = max(
        0, (template.shape[0] - INNER) // 2
    )  # without its rim a template can stand partly outside the case
    template = template[cut : template.shape[0] - cut, cut : template.shape[1] - cut]
    template = template - template.mean()
    side = template.shape[0]
    reach = SIDE - side + 1
    match = fft.irfft2(spectra * np.conj(fft.rfft2(template, (SIDE, SIDE))), (SIDE, SIDE))[
        :, :reach, :reach
    ]
    box = (
        sums[:, :, side:, side:]
        - sums[:, :, :-side, side:]
        - sums[:, :, side:, :-side]
        + sums[:, :, :-side, :-side]
    )
    spread = np.sqrt(np.maximum(box[:, 1] - box[:, 0] ** 2 / side**2, 1e-6))
    correlation = np.abs(match / (spread * np.linalg.norm(template) + 1e-6)).reshape(len(match), -1)
    at = correlation.argmax(1)
    value, top, left = correlation[np.arange(len(at)), at], at // reach - cut, at % reach - cut
    return np.column_stack([value, top, left, np.full(len(at), scale), np.full(len(at), mirror)])


def registered(sample: np.ndarray, case: np.ndarray, start: np.ndarray) -> float:
    """Best correlation (sign free) of a sample with the part of a case that an affine map near
    `start` (top, left, scale) finds.

    From the start as it is, and once more after registering both blurred, which reaches further and
    may lose its way.
    """
    top, left, scale = start
    place = np.array([[scale, 0, top], [0, scale, left]])
    blurred = [ndimage.gaussian_filter(picture, BLUR) for picture in (sample, case)]
    return max(
        _register(sample, case, begin)[0] for begin in (place, _register(*blurred, place)[1])
    )


def _register(sample: np.ndarray, case: np.ndarray, place: np.ndarray) -> tuple[float, np.ndarray]:
    """(best absolute correlation, its affine map (2, 3) from sample to case) by Gauss–Newton with
    free gain and offset (Lucas & Kanade 1981).

    The map keeps half of the sample on the case and its scales between 0.6 and 1.2.
    """
    down, across = (
        np.mgrid[:SIDE, :SIDE].reshape(2, -1) + 0.5
    )  # the centre of pixel n lies at n + 1/2
    terms = np.stack([down, across, np.ones_like(down)])
    surfaces = (case, *np.gradient(case))
    best, best_place = 0.0, place
    for _ in range(STEPS):
        at = place @ terms - 0.5
        inside = ((at >= 0) & (at <= SIDE - 1)).all(axis=0)
        scales = np.linalg.svd(place[:, :2], compute_uv=False)
        if inside.mean() < 0.5 or scales.min() < 0.6 or scales.max() > 1.2:
            break
        look, *slopes = (
            ndimage.map_coordinates(surface, at[:, inside], order=1) for surface in surfaces
        )
        seen = sample.ravel()[inside]
        value = abs(
            float(
                ((seen - seen.mean()) * (look - look.mean())).mean()
                / (seen.std() * look.std() + 1e-6)
            )
        )
        if value < best + 1e-4:
            break
        best, best_place = value, place
        design = np.stack(
            [
                np.ones_like(look),
                look,
                *(slope * term for slope in slopes for term in terms[:, inside]),
            ]
        )
        answer = np.linalg.lstsq(design @ design.T, design @ seen, rcond=None)[0]
        place = place + (answer[2:] / (answer[1] or 1)).reshape(2, 3)
    return best, best_place
