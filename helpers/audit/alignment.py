"""Aligns a sample with a case: over place, scale, mirror and negative, then by registration."""

import numpy as np
from scipy import fft, ndimage, stats

from helpers import images

SIDE = 64  # pixels at which structure is compared
INNER = 52  # pixels of a template that slides over a case
REGISTERED = 6  # number of aligned cases that are registered, the best first
BLUR, STEPS = 1.5, 12  # pixels; and steps of a registration at most


def structure(picture: np.ndarray) -> np.ndarray:
    """Local structure of an image, (SIDE, SIDE) float32: detail divided by its local strength, so
    the window does not matter.
    """
    small = _resized(picture, SIDE).astype(np.float32)
    detail = ndimage.gaussian_filter(small, 0.6) - ndimage.gaussian_filter(small, 2)
    strength = np.sqrt(ndimage.gaussian_filter(detail**2, 2))
    # The image's own mean strength is the lower limit: otherwise flat air would be amplified into
    # structure.
    return detail / (strength + strength.mean() + 1e-6)


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    if picture.shape[0] > side:
        return images.area_resize(picture, side, side)
    return ndimage.zoom(picture, side / picture.shape[0], order=1)


def aligned(sample: np.ndarray, cases: np.ndarray) -> tuple[int, float]:
    """(index of the nearest case, 1 − its correlation with the sample) over mirrors, negatives,
    crops, bars, shifts and small turns.

    `cases` come in the order of the search. Mirror, scale and place come from a grid, by normalised
    cross-correlation (Lewis 1995); the best few cases are then registered by an affine map.
    """
    spectra = fft.rfft2(cases)
    sums = np.pad(
        np.stack([cases, cases**2], 1).astype(np.float64).cumsum(2).cumsum(3),
        ((0, 0), (0, 0), (1, 0), (1, 0)),
    )
    found = []
    for scale in np.arange(1.35, 0.66, -0.05):
        side = round(scale * SIDE)
        small = _resized(sample, side)
        found += [
            _slide(template, spectra, sums, scale, mirror)
            for mirror, template in enumerate((small, small[:, ::-1]))
        ]
    best = np.stack(found).transpose(
        1, 0, 2
    )  # cases, attempts, (correlation, top, left, scale, mirror)
    best = np.take_along_axis(best, best[:, :, :1].argmax(1)[:, None], axis=1)[:, 0]
    placed = stats.rankdata(-best[:, 0], method="ordinal") - 1
    # Noise disturbs one ranking and a rotated image the other, so the first few of both are
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
    # Without its rim, a template can lie partly outside the case.
    cut = max(0, (template.shape[0] - INNER) // 2)
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

    It starts from `start` itself, and again after registering blurred images, which reaches further
    but may fail.
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

    The map keeps half of the sample on the case and its scales between 0.6 and 1.5.
    """
    down, across = (
        np.mgrid[:SIDE, :SIDE].reshape(2, -1) + 0.5
    )  # the centre of pixel n lies at n + 1/2
    terms = np.stack([down, across, np.ones_like(down)])
    surfaces = np.stack([case, *np.gradient(case)]).reshape(3, -1)
    best, best_place = 0.0, place
    for _ in range(STEPS):
        at = place @ terms - 0.5
        inside = ((at >= 0) & (at <= SIDE - 1)).all(axis=0)
        scales = np.linalg.svd(place[:, :2], compute_uv=False)
        if inside.mean() < 0.5 or scales.min() < 0.6 or scales.max() > 1.5:
            break
        look, *slopes = _interpolated(surfaces, at[:, inside])
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


def _interpolated(surfaces: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Flat (SIDE, SIDE) surfaces at the places `at` (down, across), bilinear: much quicker together
    than each by ndimage.map_coordinates.
    """
    whole = np.minimum(at.astype(np.intp), SIDE - 2)
    (down, across), corner = (at - whole).astype(np.float32), whole[0] * SIDE + whole[1]
    upper, lower = (
        surfaces.take(corner + row, 1) * (1 - across) + surfaces.take(corner + row + 1, 1) * across
        for row in (0, SIDE)
    )
    return upper * (1 - down) + lower * down
